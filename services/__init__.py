"""The services of the mesh; each is run as `python -m services.<name>`."""
