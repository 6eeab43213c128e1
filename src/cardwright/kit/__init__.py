"""Kit: helpers for every layer that know nothing of card issuing."""
