"""Storage: the ports every service writes to, and their adapters."""
