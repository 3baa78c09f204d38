"""Everything that is compared, each a file of its own behind one interface (`experiments.peers.base`)."""
