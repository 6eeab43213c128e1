"""A batch leaves the same rows as its messages one by one, on both databases."""

from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from cardwright.core.messages import Advice, Authorization, Clearing, Merchant, Refund, Reversal
from cardwright.core.movements import Deposit, FeeCharge, GpaLoad, PeerTransfer, ProgramTransfer, Unload
from cardwright.core.problems import Problem
from cardwright.core.transaction_types import RequestType
from cardwright.engine.batch import EngineRequest
from cardwright.engine.movement_rows import MovementResult
from cardwright.storage.transaction_lists.by_account import NOTHING_RECENT, with_newest
from tests.support.world import World, asked, instructed

CARDS = ("jit", "gpa", "second", "asleep", "closed", "child")

OPENING = tuple((card, 60_00) for card in ("jit", "gpa", "second", "child", "jit", "gpa"))
"""Purchases that are there before the examples' messages, which may follow them; before them an order and its fee."""

OPENED = (5, 7, 11, 13, 17, 19)
"""Their rows; what ``gpa`` and ``child`` buy has a fee, whose row comes after it."""

NAMED = reduce(with_newest, range(10**9 + 1, 10**9 + 11, 2), NOTHING_RECENT)
"""What every account's own row names from the beginning: with so little room left, most examples move some to the list."""

purchase = st.fixed_dictionaries(
    {
        "kind": st.just(Authorization),
        "card": st.sampled_from(CARDS),
        "amount": st.sampled_from((0, 1, 999, 1000, 40_00, 75_00, 100_00, 1_000_00)),
        "seed": st.integers(0, 2**63 - 1),
        "token": st.none() | st.sampled_from(("t1", "t2")),
        "cash_back": st.sampled_from((0, 0, 500)),
        "request_type": st.sampled_from(
            (RequestType.PURCHASE, RequestType.PURCHASE, *sorted(set(RequestType) - {RequestType.INCREMENT}))
        ),
        "mcc": st.sampled_from(("5411", "5411", "5542", "5813")),
    }
)


follow_up = st.fixed_dictionaries(
    {
        # An authorization that follows another is an increment.
        "kind": st.sampled_from((Clearing, Clearing, Reversal, Advice, Refund, Authorization)),
        "root": st.integers(0, len(OPENING) - 1),
        "forced": st.sampled_from((False, False, True)),
        "amount": st.sampled_from((1, 10_00, 30_00, 60_00, 75_00)),
        "seed": st.integers(0, 2**63 - 1),
        "token": st.none() | st.sampled_from(("t1", "t2")),
    }
)


USERS = ("ana", "ben", "cy")

movement = st.fixed_dictionaries(
    {
        "kind": st.sampled_from((GpaLoad, Unload, FeeCharge, PeerTransfer, ProgramTransfer, Deposit)),
        "users": st.lists(st.sampled_from(USERS), min_size=2, max_size=2, unique=True),
        "amount": st.sampled_from((1, 10_00, 30_00, 60_00, 75_00)),
        "fees": st.sampled_from(((), (100,), (100, 0, 250))),
        "seed": st.integers(0, 2**63 - 1),
        "token": st.none() | st.sampled_from(("t1", "t2")),
    }
)


@st.composite
def partitioned(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[int]]:
    """Messages, and where the batches end."""
    messages = draw(st.lists(purchase | follow_up | movement, min_size=1, max_size=12))
    cuts = draw(st.sets(st.integers(1, len(messages))))
    return messages, sorted(cuts | {len(messages)})


@pytest.fixture(scope="module")
def world_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Worlds by address, made once: examples wipe what the engine wrote, not the cards."""
    worlds: dict[str, World] = {}

    def find(address: str) -> World:
        if address not in worlds:
            worlds[address] = populated(World(address))
        return worlds[address]

    yield find
    for world in worlds.values():
        world.close()


def populated(world: World) -> World:
    """Cards of every kind that decides differently."""
    world.make("fundingsources/program", name="Bank", token="bank")
    jit = {"program_funding_source": {"enabled": True, "funding_source_token": "bank"}}
    alive = {"activate_upon_issue": True}
    poi = {"atm": True}
    config: dict[str, Any] = {"card_life_cycle": alive, "poi": poi}
    world.make("cardproducts", name="JIT", token="jit", start_date="2025-01-01", config={**config, "jit_funding": jit})
    world.make("cardproducts", name="GPA", token="gpa", start_date="2025-01-01", config=config)
    fees = (("held", 1.5, "authorization"), ("paid", 12.5, "pindebit"), ("cash", 3, "pindebit.atm.withdrawal"))
    for token, amount, kind in fees:
        world.make(
            "fees", token=token, name=token, amount=amount, type="PERCENTAGE" if token == "paid" else "FLAT", currency_code="USD",
            velocity_category="REALTIME", fee_attributes={"transaction_type": kind},
        )  # fmt: skip
    world.make("realtimefeegroups", token="fees", name="Fees", fee_tokens=("held", "paid", "cash"))
    world.make("accountholdergroups", token="payers", config={"real_time_fee_group_token": "fees"})
    for user, group in (("ana", "DEFAULT_AHG"), ("ben", "payers"), ("cy", "DEFAULT_AHG")):
        world.make("users", token=user, account_holder_group_token=group)
    world.make(
        "users", token="dee", parent_token="ana", uses_parent_account=True, account_holder_group_token="payers"
    )  # fmt: skip
    for token, user, product in (
        ("jit", "ana", "jit"), ("gpa", "ben", "gpa"), ("second", "ana", "jit"), ("asleep", "ben", "jit"), ("closed", "cy", "jit"),
        ("child", "dee", "jit"),
    ):  # fmt: skip
        world.make("cards", token=token, user_token=user, card_product_token=product)
    world.make("cardtransitions", card_token="asleep", state="SUSPENDED", channel="API")
    world.make("usertransitions", user_token="cy", status="SUSPENDED", reason_code="05", channel="API")
    load_account(world, "ben", 100_00)
    window = {"velocity_window": "DAY", "currency_code": "USD"}
    world.make("velocitycontrols", token="much", amount_limit=150, **window)
    world.make("velocitycontrols", token="often", amount_limit=900, usage_limit=3, association={"user_token": "ana"}, **window)
    amounts = {"trigger_amount": 5, "reload_amount": 40}
    world.make(
        "autoreloads", token="filled", association={"user_token": "ben"}, funding_source_token="bank", currency_code="USD",
        order_scope={"gpa": amounts},
    )  # fmt: skip
    world.make("shadow-controls", token="quiet", amount_limit=100, **window)
    increase = {"authorization_controls": {"hold_increase": {"type": "PERCENT", "value": 12.5}}}
    world.make("mccgroups", token="pumps", name="Pumps", mccs=("5542",), config=increase)
    world.make("mccgroups", token="bars", name="Bars", mccs=("5812-5814",))
    world.make("authcontrols", name="No bars", association={"user_token": "ana"}, merchant_scope={"mcc_group": "bars"})
    world.make("velocitycontrols", amount_limit=40, merchant_scope={"mcc_group": "pumps"}, **window)
    return world


def load_account(world: World, user: str, amount: int) -> None:
    """Puts money on an account, so that a preloaded card has something to spend, partially at the end."""
    import msgspec

    from cardwright.core.snapshot import Account

    state = msgspec.msgpack.encode(Account({"USD": (amount, 0)}))
    with world.database.write() as db:
        query = text("UPDATE holders SET state = :state WHERE id = (SELECT holder_id FROM users WHERE token = :user)")
        db.execute(query, {"state": state, "user": user})


def wipe(world: World, accounts: dict[int, bytes]) -> None:
    """Back to the cards and accounts as they were made."""
    with world.database.write() as db:
        db.execute(text("INSERT INTO meta (key, value) VALUES ('resetting', 'test')"))
        for table in ("message_tokens", "movements", "outbox", "shadow_hits", "journal", "transactions", "holder_transactions"):
            db.execute(text(f"DELETE FROM {table}"))
        db.execute(text("DELETE FROM meta WHERE key = 'resetting'"))
        for holder_id, state in accounts.items():
            before = {"id": holder_id, "state": state, "recent": NAMED}
            db.execute(text("UPDATE holders SET state = :state, recent = :recent WHERE id = :id"), before)
        if not world.database.is_sqlite:
            db.execute(text("ALTER SEQUENCE transaction_blocks RESTART"))


def outcomes(results: list[Any]) -> list[Any]:
    """What the callers were told."""
    return [told(result) for result in results]


def told(result: Any) -> Any:
    """What one of them was told."""
    if isinstance(result, Problem):
        return result.kind.code
    return result.doc if isinstance(result, MovementResult) else result.row


def message_of(world: World, one: dict[str, Any]) -> EngineRequest:
    """The message that an example describes."""
    if "users" in one:
        return movement_of(world, one)
    known = {"amount": one["amount"], "seed": one["seed"], "token": one["token"], "kind": one["kind"]}
    if "card" in one:
        return asked(
            world,
            one["card"],
            **known,
            cash_back=one["cash_back"],
            request_type=one["request_type"],
            merchant=Merchant(mcc=one["mcc"]),
        )
    if one["kind"] is Authorization:
        known["request_type"] = RequestType.INCREMENT
    card, forced = OPENING[one["root"]][0], one["forced"] and one["kind"] is Clearing
    return asked(world, card, **known, root_id=OPENED[one["root"]], forced=forced)


def movement_of(world: World, one: dict[str, Any]) -> EngineRequest:
    """The movement that an example describes; what is unloaded is the order that came before everything."""
    kind, amount = one["kind"], one["amount"]
    known = {"seed": one["seed"], "token": one["token"]}
    if kind is PeerTransfer:
        return instructed(world, kind, one["users"], amount, **known)
    if kind is Unload:
        return instructed(world, kind, ["ben"], amount, source="bank", root_id=1, **known)
    if kind is FeeCharge:
        return instructed(world, kind, one["users"][:1], 0, fees=one["fees"] or (50,), **known)
    if kind is Deposit:
        # Some come and some go, some at once and some later.
        days = {"is_credit": amount % 2 == 0, "settles_ms": amount % 3 * 10**14}
        said = {"user_token": one["users"][0], "direct_deposit_account_token": "account"}
        return instructed(world, kind, one["users"][:1], amount, echoed=said, **days, **known)
    return instructed(world, kind, one["users"][:1], amount, fees=one["fees"], source="bank", **known)


def check(world: World, messages: list[dict[str, Any]], cuts: list[int]) -> None:
    """Decides the messages one by one and in batches, and compares rows and answers."""
    opening: list[EngineRequest] = [instructed(world, GpaLoad, ["ben"], 80_00, seed=99, source="bank", fees=[100])]
    opening += [asked(world, card, amount, seed=seed) for seed, (card, amount) in enumerate(OPENING)]
    arrived = [message_of(world, one) for one in messages]
    batches = [arrived[start:end] for start, end in zip([0, *cuts], cuts, strict=False)]
    accounts = {row[0]: row[3] for row in world.rows()["holders"]}
    wipe(world, accounts)
    try:
        told_singly = outcomes(world.run([opening, *([one] for one in arrived)]))
        left_singly = world.rows()
        wipe(world, accounts)
        assert outcomes(world.run([opening, *batches])) == told_singly
        assert world.rows() == left_singly
    finally:
        wipe(world, accounts)


@pytest.fixture
def sqlite_world(world_of: Any, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The world on SQLite."""
    path: Path = tmp_path_factory.getbasetemp() / "sequence.db"
    return world_of(str(path))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def postgres_address(postgres: Any) -> Iterator[str]:
    """A database of its own on PostgreSQL."""
    dsn = postgres.new_database()
    yield dsn
    postgres.drop_database(dsn)


relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@settings(relaxed, max_examples=500)
@given(case=partitioned())
def test_any_partition_leaves_the_same_rows_on_sqlite(sqlite_world: World, case: tuple[list[dict[str, Any]], list[int]]) -> None:
    """Any partition of any messages into batches leaves the same rows and gives the same answers on SQLite."""
    check(sqlite_world, *case)


@settings(relaxed, max_examples=500)
@given(case=partitioned())
def test_any_partition_leaves_the_same_rows_on_postgresql(
    world_of: Any, postgres_address: str, case: tuple[list[dict[str, Any]], list[int]]
) -> None:
    """Any partition of any messages into batches leaves the same rows and gives the same answers on PostgreSQL."""
    check(world_of(postgres_address), *case)
