"""Engine stores: reads and writes of the engine's batches, on SQLite and on PostgreSQL."""
