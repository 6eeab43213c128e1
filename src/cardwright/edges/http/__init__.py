"""The HTTP door: bytes to shapes and back, one declarative route table."""
