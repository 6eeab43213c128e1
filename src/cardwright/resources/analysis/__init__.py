"""Analysis: explained decisions, what-if, shadow controls and backtests; our own API."""
