"""The servicers, one module for each noun: convert in, one use case, convert out."""
