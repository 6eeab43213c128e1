"""Bad weather on purpose: the machinery that tries to make Cardwright break its promises. `python -m tests.stress` runs it."""
