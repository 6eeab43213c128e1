"""Packed cache: its size is limited, and it evicts the oldest values first."""

from cardwright.engine.packed_cache import PART, PackedCache


def test_the_oldest_go_first_and_the_limit_holds() -> None:
    """With ten times as many values as the limit, the cache always has the newest values without a gap, at most the limit."""
    limit = 10 * PART
    cache, kept = PackedCache[int](limit), 0
    for key in range(10 * limit):
        cache.put(key, b"%d" % key)
        there = [old_key for old_key in range(key + 1) if cache.get(old_key) is not None] if key % 97 == 0 else None
        if there is not None:
            assert there == list(range(key + 1 - len(there), key + 1))
            assert len(there) >= min(key + 1, limit - limit // PART)
            assert len(there) <= limit
            kept = max(kept, len(there))
    assert kept > limit - limit // PART, "the cache never held more values than it has after an eviction"


def test_a_value_takes_the_place_of_an_earlier_one() -> None:
    """A key that is put again has one entry with its newest value, and is evicted in the place of its first value."""
    cache = PackedCache[str](3)
    for key, packed in (("a", b"1"), ("b", b"2"), ("a", b"3"), ("c", b"4"), ("d", b"5")):
        cache.put(key, packed)
    assert [cache.get(key) for key in "abcd"] == [None, b"2", b"4", b"5"]
    cache.clear()
    assert cache.get("b") is None
