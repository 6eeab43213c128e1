"""Programs: what a program is and issues: card products and the health check."""
