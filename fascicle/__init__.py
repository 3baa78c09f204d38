"""The shell: the `fascicle` command and the embedded cluster."""
