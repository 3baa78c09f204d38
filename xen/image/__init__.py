"""The recipe of the node image: Debian, cloud-init and this package on one disk, twice the same bytes."""
