"""What the execution service does, in domain words."""
