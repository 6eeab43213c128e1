"""Benchmarks: load over real HTTP, beside pgbench and the straightforward design, in one run."""
