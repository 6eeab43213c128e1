"""Benchmarks: load over HTTP, compared in one run with pgbench and with a straightforward design."""
