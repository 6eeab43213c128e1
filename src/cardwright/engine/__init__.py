"""Engine: an inbox of messages, and batches that decide them with one commit each."""
