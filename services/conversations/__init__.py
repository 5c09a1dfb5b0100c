"""The conversations service: what is said to agents and by them, and where they are placed."""
