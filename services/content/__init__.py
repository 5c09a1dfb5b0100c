"""The content service: what agents are and what they work on."""
