"""Funding: program funding sources, GPA orders and auto reloads."""
