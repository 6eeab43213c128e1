"""Programs: card products and the health check."""
