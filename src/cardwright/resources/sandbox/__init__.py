"""Sandbox: programs, their clock and reset, and the webhook inbox; our own API."""
