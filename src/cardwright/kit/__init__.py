"""Kit: helpers for every layer, independent of card issuing."""
