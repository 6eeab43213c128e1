"""The outbox: what we tell the world, and the one guarded way in which it is posted."""
