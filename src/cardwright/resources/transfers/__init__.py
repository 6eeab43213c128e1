"""Transfers: peer transfers, program transfers and direct deposits."""
