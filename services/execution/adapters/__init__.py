"""What stands behind the ports of the execution service."""
