"""What every service needs that keeps things people make, change, delete and find."""
