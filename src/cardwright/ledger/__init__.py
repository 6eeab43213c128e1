"""Ledger: the settlement view and the invariants of the books."""
