"""The data plane's wire, sans-IO: bytes in, events out; no socket, clock or thread (docs/protocol.md)."""
