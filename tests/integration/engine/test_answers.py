"""Answers of a batch: each message gets the answer of its view, and a view that raises affects no other message."""

from pathlib import Path

import pytest

from cardwright.core.problems import INTERNAL, Problem
from cardwright.engine.batch import CardResult
from cardwright.storage.engine.store import TRANSACTION_COLUMNS
from tests.support.histories import populated
from tests.support.in_process_platform import InProcessPlatform, card_request

AMOUNT = TRANSACTION_COLUMNS.index("request_amount")


@pytest.fixture
def platform(migrated_url: str | Path) -> InProcessPlatform:
    """A program with cards."""
    return populated(InProcessPlatform(str(migrated_url)))


def test_each_message_gets_the_answer_that_its_own_view_made(platform: InProcessPlatform) -> None:
    """Three messages, two of them with one token, get three answers, each rendered by the view of its message."""
    first, second = card_request(platform, "u1", 100, seed=1, token="once"), card_request(platform, "w1", 200, seed=2)
    batch = [
        first._replace(view=lambda outcome: b"first %d" % outcome.row.id),
        second._replace(view=lambda outcome: b"second %d" % outcome.row.id),
        first._replace(view=lambda outcome: b"again %d" % outcome.row.id),
    ]
    first_result, second_result, again = platform.run([batch])
    assert isinstance(first_result, CardResult)
    assert isinstance(second_result, CardResult)
    assert isinstance(again, CardResult)
    assert [first_result.answer, second_result.answer] == [b"first %d" % first_result.row.id, b"second %d" % second_result.row.id]
    assert again.answer == b"again %d" % first_result.row.id
    (repeated,) = platform.run([[first._replace(view=lambda outcome: b"later %d" % outcome.row.id)]])
    assert isinstance(repeated, CardResult)
    assert repeated.answer == b"later %d" % first_result.row.id, "a batch that writes nothing answers too"
    platform.close()


def test_an_answer_that_cannot_be_made_spoils_no_other(platform: InProcessPlatform) -> None:
    """A view that raises causes an internal error for its message. The other message gets its answer, and both are booked."""

    def broken(_outcome: CardResult) -> bytes:
        raise ValueError("no words")

    bad, good = card_request(platform, "u1", 100, seed=1), card_request(platform, "w1", 200, seed=2)
    failed, answered = platform.run([[bad._replace(view=broken), good._replace(view=lambda _outcome: b"fine")]])
    assert isinstance(failed, Problem)
    assert failed.kind is INTERNAL
    assert isinstance(answered, CardResult)
    assert answered.answer == b"fine"
    assert sorted(row[AMOUNT] for row in platform.rows()["transactions"]) == [100, 200]
    platform.close()
