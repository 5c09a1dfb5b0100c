"""What content does, one module for each noun."""
