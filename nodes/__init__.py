"""The storage node: receive, store, serve, replicate (trio)."""
