"""The servicers, one module for each service: convert in, one use case, convert out."""
