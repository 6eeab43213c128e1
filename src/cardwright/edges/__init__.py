"""Edges: HTTP and the command line, which turn bytes into shapes and back."""
