"""What conversations are, and the rules of their changes; pure, one module for each noun."""
