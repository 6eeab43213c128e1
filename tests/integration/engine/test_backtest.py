"""Backtests: a replay of history under a change gives the outcomes of the same history that ran under that change."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import msgspec
import pytest

from cardwright.resources.analysis.backtest_worker import BacktestTask, ReplayedPart, parts
from cardwright.resources.analysis.backtests import BacktestCreate, job_of
from cardwright.resources.common.call import Call
from cardwright.storage.backtests import Sums
from cardwright.storage.programs import get_program
from tests.support.databases import chosen_databases, migrated_database
from tests.support.histories import PlayedHistory, Step, drawn, populated
from tests.support.in_process_platform import InProcessPlatform, new_platform

DAY = {"velocity_window": "DAY", "currency_code": "USD"}

CONTROLS: list[tuple[str, dict[str, Any]]] = [
    ("day", {**DAY, "amount_limit": 90, "usage_limit": 5, "association": {"user_token": "u"}}),
    ("week", {**DAY, "velocity_window": "WEEK", "amount_limit": 400, "association": {"card_product_token": "jit"}}),
    ("month", {**DAY, "velocity_window": "MONTH", "amount_limit": 900}),
    ("once", {**DAY, "velocity_window": "TRANSACTION", "amount_limit": 55, "merchant_scope": {"mcc": "5999"}}),
    ("life", {**DAY, "velocity_window": "LIFETIME", "amount_limit": 9000, "association": {"user_token": "w"}}),
    ("food", {**DAY, "amount_limit": 150, "merchant_scope": {"mcc_group": "food"}}),
    ("cash", {**DAY, "amount_limit": 15, "include_purchases": False, "merchant_scope": {"mid": "m2"}}),
]

BLOCKS: list[tuple[str, str, dict[str, Any]]] = [
    ("group", "fair", {"name": "Fair", "mids": ["m2"]}),
    ("block", "dinner", {"name": "No dinner", "association": {"user_token": "u"}, "merchant_scope": {"mcc": "5812"}}),
    ("block", "pumps", {"name": "P", "association": {"card_product_token": "jit2"}, "merchant_scope": {"mcc_group": "pumps"}}),
    ("block", "fairs", {"name": "F", "association": {"user_token": "w"}, "merchant_scope": {"merchant_group_token": "fair"}}),
    (
        "block", "lent",
        {"name": "L", "merchant_scope": {"mcc_group": "food"}, "start_time": "2026-01-15", "end_time": "2026-02-01"},
    ),
    ("exempt", "friends", {"name": "Friends", "association": {"card_product_token": "jit2"}, "mid": "m1"}),
]  # fmt: skip
"""Authorization controls and an exemption, with the merchant group that one of them names."""


@cache
def limited_steps() -> list[Step]:
    """Return the steps under velocity controls."""
    return drawn(2, 1500, days=40, each=16)


@cache
def blocked_steps() -> list[Step]:
    """Return the steps under velocity controls, authorization controls and an exemption."""
    return drawn(3, 700, days=30, each=12)


def ruled(
    steps: list[Step], controls: list[tuple[str, dict[str, Any]]], changes: dict[int, Any],
    blocks: list[tuple[str, str, dict[str, Any]]] | None = None,
) -> list[Step]:  # fmt: skip
    """Return the history with these controls from its first step, and with changes of them at some steps."""
    first = [*(("create", token, body) for token, body in controls), *(blocks or [])]
    changes_at = {**changes, 0: [*first, *changes.get(0, [])]}
    return [replace(step, changes=changes_at.get(number, [])) for number, step in enumerate(steps)]


def backtest(platform: InProcessPlatform, now_ms: int, **body: Any) -> tuple[Sums, list[dict[str, Any]]]:
    """Run a backtest of the program's history and return the sums and flips of all parts."""
    with platform.database.write() as db:
        call = Call(platform.app, db, get_program(db, platform.program_id), now_ms, {})
        job = job_of(call, msgspec.convert(body, BacktestCreate))
    database = platform.database
    address = database.path if database.is_sqlite else database.dsn
    sums, flips = Sums(), list[dict[str, Any]]()
    for part in parts(database, BacktestTask(address=address, job=job, cursor=0, flips_max=10**6)):
        assert isinstance(part, ReplayedPart)
        sums.add(part.sums)
        flips += map(msgspec.json.decode, part.flips)
    return sums, flips


@contextmanager
def played(address: str, steps: list[Step], again: PlayedHistory | None = None) -> Iterator[PlayedHistory]:
    """Yield the history after its steps ran on a platform at this address. The platform is closed at the end."""
    with new_platform(address) as platform:
        yield PlayedHistory(populated(platform), again).play(steps)


@pytest.fixture(scope="module", params=chosen_databases())
def module_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """Yield a function that creates a database with all tables. The tests run once with each kind of database."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(migrated_database(request.param, request, tmp_path_factory.mktemp("history")))


@pytest.fixture(scope="module")
def limited(module_url: Callable[[], str]) -> Iterator[PlayedHistory]:
    """A history under velocity controls. Backtests do not change it."""
    with played(module_url(), ruled(limited_steps(), CONTROLS, {})) as history:
        yield history


@pytest.fixture(scope="module")
def blocked(module_url: Callable[[], str]) -> Iterator[PlayedHistory]:
    """A history under velocity controls, authorization controls and an exemption."""
    with played(module_url(), ruled(blocked_steps(), CONTROLS, {}, BLOCKS)) as history:
        yield history


@dataclass(frozen=True)
class Decided:
    """The outcomes of a history that was replayed: all approvals, and the sum of the approved amounts."""

    approvals: dict[str, bool]
    amount: int


@pytest.fixture(scope="module")
def played_again(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, list[Step], PlayedHistory], Decided]:
    """Return a function that replays a history on SQLite under changed controls.

    The outcomes depend on the steps and on the messages that the first history omits. Both databases omit the same messages, so
    one replay serves both.
    """
    results: dict[tuple[str, frozenset[Any]], Decided] = {}

    def play(name: str, steps: list[Step], history: PlayedHistory) -> Decided:
        key = name, frozenset(number for number, outcome in history.outcomes.items() if outcome is None)
        if key not in results:
            with played(str(tmp_path_factory.mktemp("again") / "again.db"), steps, history) as again:
                after = again.approvals
                amounts = [
                    outcome.row.amount for number, outcome in again.outcomes.items() if outcome is not None and after.get(number)
                ]
                results[key] = Decided(after, sum(amounts))
        return results[key]

    return play


MIDWAY = {
    20: [("create", "late", {**DAY, "amount_limit": 60, "merchant_scope": {"mcc": "5812"}})],
    35: [("update", "day", {"amount_limit": 70, "usage_limit": 3})],
    50: [("update", "week", {"active": False})],
    55: [("regroup", "food", {"mccs": ("5411", "5800-5899")})],
    60: [("update", "month", {"merchant_scope": {"mcc": "5411"}, "amount_limit": 500})],
    80: [("update", "week", {"active": True})],
}
"""Changes of controls during the history, by the number of the step."""


MIDWAY_BLOCKS = {
    15: [("block", "late", {"name": "Late", "association": {"card_product_token": "jit"}, "merchant_scope": {"mid": "m2"}})],
    30: [("reblock", "dinner", {"active": False})],
    40: [("regroup merchants", "fair", {"mids": ["m1", "m2"]})],
    45: [("switch exemption", "friends", {"active": False})],
    52: [("reblock", "late", {"merchant_scope": {"mcc": "5411"}})],
    65: [("reblock", "dinner", {"active": True}), ("switch exemption", "friends", {"active": True})],
    70: [("regroup merchants", "fair", {"active": False})],
}
"""Changes of authorization controls, groups and exemptions during the history, by the number of the step."""


def test_unchanged_controls_flip_nothing(migrated_url: str) -> None:
    """A backtest without changes flips none of 10,000 purchases, although controls were edited and switched meanwhile.

    PostgreSQL gets 4,000 purchases, because only the reading of history differs there.
    """
    steps = drawn(1, 4_000 if migrated_url.startswith("postgres") else 10_000)
    with played(migrated_url, ruled(steps, CONTROLS, MIDWAY | MIDWAY_BLOCKS, BLOCKS)) as history:
        sums, flips = backtest(history.platform, steps[-1].time_ms)
    approvals = list(history.approvals.values())
    assert (sums.purchases, sums.approved_before) == (len(approvals), sum(approvals))
    assert 0.2 < sum(approvals) / len(approvals) < 0.9, "controls must decline some purchases, but not all"
    assert flips == []
    assert set(sums.blocked_by) == {"dinner", "pumps", "fairs", "lent", "late"}
    assert (sums.approved_after, sums.amount_after) == (sums.approved_before, sums.amount_before)


CHANGES: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any] | None]]] = {
    "a lower limit": ({"change": [{"token": "day", "amount_limit": 50}]}, {"day": {"amount_limit": 50}}),
    "a higher limit": ({"change": [{"token": "month", "amount_limit": 2000}]}, {"month": {"amount_limit": 2000}}),
    "a longer window": (
        {"change": [{"token": "day", "velocity_window": "MONTH", "amount_limit": 600}]},
        {"day": {"velocity_window": "MONTH", "amount_limit": 600}},
    ),
    "other shops": (
        {"change": [{"token": "once", "merchant_scope": {"mcc": "5411"}, "amount_limit": 30}]},
        {"once": {"merchant_scope": {"mcc": "5411"}, "amount_limit": 30}},
    ),
    "one less": ({"remove": ["month"]}, {"month": None}),
    "one more, which counts declines": (
        {"add": [{"token": "new", **DAY, "amount_limit": 1000, "usage_limit": 2, "approvals_only": False}]},
        {"new": {**DAY, "amount_limit": 1000, "usage_limit": 2, "approvals_only": False}},
    ),
    "all at once": (
        {
            "add": [
                {"token": "new", **DAY, "velocity_window": "LIFETIME", "amount_limit": 5000, "association": {"user_token": "u"}}
            ],
            "change": [
                {"token": "week", "amount_limit": 250}, {"token": "cash", "amount_limit": 5}, {"token": "life", "active": False},
            ],
            "remove": ["day"],
        },
        {
            "new": {**DAY, "velocity_window": "LIFETIME", "amount_limit": 5000, "association": {"user_token": "u"}},
            "week": {"amount_limit": 250}, "cash": {"amount_limit": 5}, "life": None, "day": None,
        },
    ),
}  # fmt: skip
"""The changes of a backtest's request, and the same changes as fields of the controls for a replay; None omits the control."""


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_flips_what_it_would_have_flipped(limited: PlayedHistory, played_again: Any, name: str) -> None:
    """The flips are exactly the purchases whose outcome differs when the same history runs under the change."""
    change, means = CHANGES[name]
    result = backtest(limited.platform, limited_steps()[-1].time_ms, velocity_controls=change)
    controls = {token: {**body, **(means.get(token) or {})} for token, body in CONTROLS if means.get(token, {}) is not None}
    controls |= {token: body for token, body in means.items() if body is not None and token not in controls}
    again = played_again(name, ruled(limited_steps(), list(controls.items()), {}), limited)
    assert_flipped(limited, again, *result)


BLOCKING: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any] | None]]] = {
    "one more": (
        {"auth_controls": {"add": [{"token": "new", "name": "New", "merchant_scope": {"mcc_group": "food"}}]}},
        {"new": {"name": "New", "merchant_scope": {"mcc_group": "food"}}},
    ),
    "one more, for a while": (
        {"auth_controls": {"add": [
            {"token": "new", "name": "New", "association": {"card_product_token": "jit"}, "start_time": "2026-01-20",
             "end_time": "2026-01-27T10:00:00+01:00"},
        ]}},
        {"new": {"name": "New", "association": {"card_product_token": "jit"}, "start_time": "2026-01-20",
                 "end_time": "2026-01-27T10:00:00+01:00"}},
    ),
    "one less": ({"auth_controls": {"remove": ["dinner"]}}, {"dinner": None}),
    "other shops": (
        {"auth_controls": {"change": [{"token": "fairs", "merchant_scope": {"mid": "m1"}}]}},
        {"fairs": {"merchant_scope": {"mid": "m1"}}},
    ),
    "an exemption more": (
        {"exempt_mids": {"add": [{"token": "new", "name": "New", "merchant_group_token": "fair"}]}},
        {"new": {"name": "New", "merchant_group_token": "fair"}},
    ),
    "an exemption less": ({"exempt_mids": {"remove": ["friends"]}}, {"friends": None}),
    "everything at once": (
        {
            "auth_controls": {
                "add": [{"token": "new", "name": "New", "association": {"user_token": "bo"}}],
                "change": [{"token": "lent", "active": False}, {"token": "pumps", "merchant_scope": {"mcc": "5411"}}],
                "remove": ["dinner"],
            },
            "exempt_mids": {"remove": ["friends"]},
            "velocity_controls": {"change": [{"token": "day", "amount_limit": 60}], "remove": ["month"]},
        },
        {"new": {"name": "New", "association": {"user_token": "bo"}}, "lent": None,
         "pumps": {"merchant_scope": {"mcc": "5411"}}, "dinner": None, "friends": None,
         "day": {"amount_limit": 60}, "month": None},
    ),
}  # fmt: skip
"""The same for authorization controls and exemptions."""


@pytest.mark.parametrize("name", BLOCKING)
def test_a_block_flips_what_it_would_have_flipped(blocked: PlayedHistory, played_again: Any, name: str) -> None:
    """The flips of changed blocks and exemptions are exact: new approvals use velocity limits, and new declines use none."""
    change, means = BLOCKING[name]
    result = backtest(blocked.platform, blocked_steps()[-1].time_ms, **change)
    known = {token for token, _ in CONTROLS} | {token for _, token, _ in BLOCKS}
    limits = [(token, {**body, **(means.get(token) or {})}) for token, body in CONTROLS if means.get(token, {}) is not None]
    verb = "exempt" if "add" in change.get("exempt_mids", {}) else "block"
    blocks = [
        *((kind, name, {**body, **(means.get(name) or {})}) for kind, name, body in BLOCKS if means.get(name, {}) is not None),
        *((verb, token, body) for token, body in means.items() if token not in known and body is not None),
    ]
    again = played_again(f"block: {name}", ruled(blocked_steps(), limits, {}, blocks), blocked)
    assert_flipped(blocked, again, *result)


def assert_flipped(history: PlayedHistory, again: Decided, sums: Sums, flips: list[dict[str, Any]]) -> None:
    """Check that a backtest found exactly the differences between a history and its replay under the change."""
    before, after = history.approvals, again.approvals
    expected = {key: after[key] for key in before if before[key] != after[key]}
    assert {history.tokens[flip["transaction_token"]]: flip["after"]["outcome"] == "APPROVED" for flip in flips} == expected
    assert len(expected) > 20, "the change must flip more than 20 purchases"
    assert (sums.approved_after, sums.purchases) == (sum(after.values()), len(after))
    assert sums.amount_after == again.amount
