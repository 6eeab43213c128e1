"""Fees: fee definitions, fee charges and real-time fee groups."""
