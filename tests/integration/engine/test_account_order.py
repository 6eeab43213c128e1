"""Order of an account's transactions: it is the order of the decisions, even if the clocks of the deciding processes differ."""

import asyncio
from collections.abc import Iterator

import pytest

from cardwright.core.messages import Reversal
from cardwright.engine.batch import CardRequest, CardResult
from cardwright.engine.batch_runner import run_batch
from cardwright.engine.id_blocks import IdSource
from cardwright.kit.clock import ProgramClock, parse_instant
from cardwright.resources.common.call import Call
from cardwright.resources.controls import velocity_controls
from cardwright.storage.programs import get_program, set_clock
from tests.support.in_process_platform import InProcessPlatform, card_request, new_platform

DAY_1, DAY_2 = parse_instant("2026-03-31T23:59:59.900Z"), parse_instant("2026-04-01T00:00:00.001Z")
EARLY, LATE = range(1, 101, 2), range(101, 201, 2)


@pytest.fixture
def platform(migrated_url: str) -> Iterator[InProcessPlatform]:
    """A program whose clock runs, with a card under a cap of 100.00 a month."""
    with new_platform(migrated_url) as platform:
        with platform.database.write() as db:
            set_clock(db, platform.program_id, ProgramClock(0))
        platform.make("fundingsources/program", token="f", name="F")
        jit = {"enabled": True, "funding_source_token": "f"}
        config = {"card_life_cycle": {"activate_upon_issue": True}, "jit_funding": {"program_funding_source": jit}}
        platform.make("cardproducts", token="p", name="P", start_date="2025-01-01", config=config)
        platform.make("users", token="u")
        platform.make("cards", token="c", user_token="u", card_product_token="p")
        platform.make(
            "velocitycontrols", token="month", amount_limit=100, velocity_window="MONTH", currency_code="USD",
            association={"user_token": "u"},
        )  # fmt: skip
        yield platform


def decide(platform: InProcessPlatform, now: int, ids: range, messages: list[CardRequest]) -> list[CardResult]:
    """Decide messages one by one, as a process with this clock and this id block does."""

    async def run() -> list[CardResult]:
        worker, source = await platform.store.open_worker(), IdSource()
        source.refill(ids)
        outcomes = []
        for message in messages:
            loaded_request = await platform.addressed(message._replace(received_ms=now))
            outcomes += await run_batch(worker, platform.cache, source, lambda: now, [loaded_request])
        await worker.close()
        await platform.store.close()
        assert all(isinstance(outcome, CardResult) for outcome in outcomes)
        return outcomes  # type: ignore[return-value]

    return asyncio.run(run())


def test_a_clock_that_lags_reopens_no_window(platform: InProcessPlatform) -> None:
    """A process whose clock still shows March opens no new window and ends none: it declines under April's exhausted limit."""
    (first,) = decide(platform, DAY_2, EARLY, [card_request(platform, "c", 100_00, seed=1)])
    late = decide(platform, DAY_1, LATE, [card_request(platform, "c", 1, seed=2), card_request(platform, "c", 100_00, seed=3)])
    (again,) = decide(platform, DAY_2, range(11, 21, 2), [card_request(platform, "c", 1, seed=4)])
    assert [outcome.row.code for outcome in (first, *late, again)] == [0, 1834, 1834, 1834]
    rows = [outcome.row for outcome in (first, *late, again)]
    assert rows == sorted(rows, key=lambda row: (row.created_ms, row.id))
    assert len({(row.created_ms, row.id) for row in rows}) == len(rows)


def test_history_is_counted_at_the_instant_of_the_decision(platform: InProcessPlatform) -> None:
    """A control that is new to an account counts the window of the decision, not the window of the lagging clock."""
    (first,) = decide(platform, DAY_2, EARLY, [card_request(platform, "c", 90_00, seed=1)])
    with platform.database.write() as db:
        call = Call(platform.app, db, get_program(db, platform.program_id), DAY_2, {"token": "month"})
        velocity_controls.update_control(call, velocity_controls.VelocityUpdate(include_transfers=False))
    late = decide(platform, DAY_1, LATE, [card_request(platform, "c", 50_00, seed=2), card_request(platform, "c", 10_00, seed=3)])
    assert [outcome.row.code for outcome in (first, *late)] == [0, 1834, 0]


def test_ids_that_go_back_within_a_millisecond(platform: InProcessPlatform) -> None:
    """A process with a lower id block decides second: its transaction gets the next millisecond, so the order stays correct."""
    (first,) = decide(platform, DAY_2, LATE, [card_request(platform, "c", 60_00, seed=1)])
    (second,) = decide(platform, DAY_2, EARLY, [card_request(platform, "c", 60_00, kind=Reversal, root_id=first.row.id, seed=2)])
    assert (first.row.created_ms, second.row.created_ms) == (DAY_2, DAY_2 + 1)
    assert second.row.id < first.row.id
