"""Hosts with Xen or KVM under libvirt, as `xen.backend.Backend`: one connection for each host, no pool above them."""
