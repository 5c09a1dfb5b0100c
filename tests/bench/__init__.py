"""Figures, each measured beside a reference of the same run. Never assertions on time."""
