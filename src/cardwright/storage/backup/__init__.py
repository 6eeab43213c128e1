"""Backups of a database: the file, its writing, and its restore."""
