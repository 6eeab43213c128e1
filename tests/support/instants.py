"""Instants of tests, in milliseconds since 1970."""

NOON = 1_767_268_800_000
"""2026-01-01T12:00:00Z, the frozen time of an in-process platform."""
