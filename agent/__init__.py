"""The workstation's side: send, get, and the daemon that watches folders and receives C-STORE."""
