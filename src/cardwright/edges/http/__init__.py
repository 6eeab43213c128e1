"""HTTP: bytes to shapes and back, by one declarative route table."""
