"""Runs agents durably and streams what happens."""
