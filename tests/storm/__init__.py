"""Bad weather on purpose: the machinery that tries to make Cardwright break its promises. `python -m tests.storm` runs it."""
