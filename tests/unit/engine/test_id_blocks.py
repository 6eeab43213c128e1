"""Id blocks: no transaction id is drawn twice."""

from cardwright.engine.id_blocks import IdSource


def test_a_block_that_begins_among_ids_in_use() -> None:
    """A new block that contains ids of a batch that is not written yet skips them."""
    ids = IdSource()
    ids.refill(range(1, 11, 2))
    given = [ids.next() for _ in range(4)]
    ids.refill(range(3, 101, 2))
    given += [ids.next() for _ in range(20)]
    assert len(set(given)) == len(given)
    assert ids.has(25)
    assert not ids.has(26)
    assert given[4] == 11
