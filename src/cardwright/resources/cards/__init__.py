"""Cards: issuance, numbers and transitions."""
