"""XenServer pools and Xen/KVM hosts: makes the virtual machines that storage nodes run on, and keeps their number."""
