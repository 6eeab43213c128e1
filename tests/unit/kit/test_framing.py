"""Framing: every message arrives unchanged, for any division of the stream into chunks."""

from hypothesis import given
from hypothesis import strategies as st

from cardwright.kit.framing import LENGTH_BYTES, FrameReader, framed, length_of


@given(st.lists(st.binary(max_size=300)), st.data())
def test_messages_arrive_however_the_stream_is_cut(messages: list[bytes], data: st.DataObject) -> None:
    """All messages arrive if chunks end in any place, even inside a length, and complete no message or several."""
    stream = b"".join(map(framed, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    reader = FrameReader()
    received = [
        message for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True) for message in reader.feed(stream[start:end])
    ]
    assert received == messages


def test_length_is_four_bytes_most_significant_first() -> None:
    """A frame begins with its length in four bytes, in network byte order."""
    assert framed(b"x" * 258) == b"\x00\x00\x01\x02" + b"x" * 258
    assert length_of(framed(b"abc")[:LENGTH_BYTES]) == 3
    assert LENGTH_BYTES == 4


def test_unfinished_message_waits() -> None:
    """A message is returned only after its last byte has arrived."""
    reader = FrameReader()
    assert reader.feed(framed(b"abc")[:-1]) == []
    assert reader.feed(b"c") == [b"abc"]
