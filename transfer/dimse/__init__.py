"""DICOM's own network protocol, acceptor side, without I/O: bytes in, events out, replies as values (PS3.7, PS3.8).

Refuses to do: requesting associations, services other than Verification and Storage, sockets, clocks.
"""
