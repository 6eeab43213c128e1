"""Tables, databases and migrations for SQLite and PostgreSQL."""
