"""Simulations: card messages and deposits that a client sends in place of a network or a bank."""
