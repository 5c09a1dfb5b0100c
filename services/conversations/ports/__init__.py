"""What conversations need from outside, one module for each noun; the docstrings are the contracts."""
