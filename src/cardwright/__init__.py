"""Cardwright: a self-hosted card-issuing platform with Just-in-Time Funding."""
