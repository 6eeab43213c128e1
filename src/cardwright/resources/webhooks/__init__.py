"""Webhooks: subscriptions, pings and resent events."""
