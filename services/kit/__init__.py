"""What every service shares: one way to be a service."""

VERSION = "0.1.0"
"""The release of the mesh."""
