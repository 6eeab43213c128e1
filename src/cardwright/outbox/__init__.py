"""Outbox: webhook notifications, and the guarded client that posts them."""
