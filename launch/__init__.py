"""How a job gets onto machines: Ray workers, one a device, supervised from the process at the terminal."""
