"""Transactions: single transactions and their lists."""
