"""The heart: an inbox of messages, decided in batches, one commit a batch."""
