"""The engine: an inbox of messages, decided in batches, one commit a batch."""
