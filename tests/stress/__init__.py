"""Stress tests: kills, outages, races and mixed load against a real server. `python -m tests.stress` runs them."""
