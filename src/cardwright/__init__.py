"""Cardwright: a self-hosted card-issuing platform with Just-in-Time Funding."""

__version__ = "0.1.0"
