"""Framing: messages in a stream of bytes, each after its length. The caller serialises the messages."""

LENGTH_BYTES = 4
"""Bytes of the length before a message, most significant byte first."""


def framed(message: bytes) -> bytes:
    """Return a message with its length in front."""
    return len(message).to_bytes(LENGTH_BYTES, "big") + message


def length_of(prefix: bytes) -> int:
    """Return the length of the message after a prefix."""
    return int.from_bytes(prefix, "big")


class FrameReader:
    """Reader of framed messages from a stream that arrives in chunks of any size."""

    def __init__(self) -> None:
        self._received = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the messages that a chunk completes, in order."""
        received, messages = self._received + chunk, list[bytes]()
        while len(received) >= LENGTH_BYTES:
            end = LENGTH_BYTES + length_of(received[:LENGTH_BYTES])
            if len(received) < end:
                break
            messages.append(received[LENGTH_BYTES:end])
            received = received[end:]
        self._received = received
        return messages
