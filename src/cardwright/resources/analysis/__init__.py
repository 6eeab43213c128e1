"""Analysis: explained decisions, dry runs, shadow controls and backtests; an API of Cardwright only."""
