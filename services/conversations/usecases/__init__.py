"""What conversations do, one module for each noun."""
