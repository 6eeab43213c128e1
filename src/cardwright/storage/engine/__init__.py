"""Engine stores: how the engine reads and writes its batches, for SQLite and for PostgreSQL."""
