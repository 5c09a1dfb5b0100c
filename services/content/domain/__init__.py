"""What content is, and the rules of its changes; pure, one module for each noun."""
