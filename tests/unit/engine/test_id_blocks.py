"""Transaction ids come in blocks, and none is given twice."""

from cardwright.engine.id_blocks import IdSource


def test_a_block_that_begins_among_ids_in_use() -> None:
    """What is stored says less than what was given out, while a batch has ids that it did not write yet."""
    ids = IdSource()
    ids.refill(range(1, 11, 2))
    given = [ids.next() for _ in range(4)]
    ids.refill(range(3, 101, 2))
    given += [ids.next() for _ in range(20)]
    assert len(set(given)) == len(given)
    assert ids.has(25)
    assert not ids.has(26)
    assert given[4] == 11
