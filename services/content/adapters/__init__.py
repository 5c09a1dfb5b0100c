"""Zip files, YAML and other services behind the ports of the content service."""
