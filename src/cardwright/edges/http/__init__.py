"""HTTP: the server, and the translation between bytes and shapes for the routes of one declarative table."""
