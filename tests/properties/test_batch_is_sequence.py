"""Batches: a batch writes the same rows and gives the same answers as its messages one by one, on both databases."""

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
from cardwright.storage.account_transactions import NOTHING_RECENT, with_newest
from tests.support.databases import migrate_address
from tests.support.in_process_platform import InProcessPlatform, card_request, movement_request

CARDS = ("jit", "gpa", "second", "asleep", "closed", "child")

OPENING = tuple((card, 60_00) for card in ("jit", "gpa", "second", "child", "jit", "gpa"))
"""Purchases before the messages of an example, which may follow them. A GPA order with a fee comes before these."""

OPENED = (5, 7, 11, 13, 17, 19)
"""Row ids of the opening purchases. A purchase of ``gpa`` and ``child`` has a fee, whose row follows it."""

NAMED = reduce(with_newest, range(10**9 + 1, 10**9 + 11, 2), NOTHING_RECENT)
"""Recent transactions of every account at the start. Few more fit, so most examples move some of them to the account's list."""

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
        # An authorization that follows another one is an increment.
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
    """Draw messages and the ends of their batches."""
    messages = draw(st.lists(purchase | follow_up | movement, min_size=1, max_size=12))
    cuts = draw(st.sets(st.integers(1, len(messages))))
    return messages, sorted(cuts | {len(messages)})


@pytest.fixture(scope="module")
def platform_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yield a function that returns the platform of an address. Examples delete the rows of the engine and keep the cards."""
    platforms: dict[str, InProcessPlatform] = {}

    def find(address: str) -> InProcessPlatform:
        if address not in platforms:
            platforms[address] = populated(InProcessPlatform(address))
        return platforms[address]

    yield find
    for platform in platforms.values():
        platform.close()


def populated(platform: InProcessPlatform) -> InProcessPlatform:
    """Create cards of every kind that leads to different decisions; return the platform."""
    platform.make("fundingsources/program", name="Bank", token="bank")
    jit = {"program_funding_source": {"enabled": True, "funding_source_token": "bank"}}
    alive = {"activate_upon_issue": True}
    poi = {"atm": True}
    config: dict[str, Any] = {"card_life_cycle": alive, "poi": poi}
    platform.make("cardproducts", name="JIT", token="jit", start_date="2025-01-01", config={**config, "jit_funding": jit})
    platform.make("cardproducts", name="GPA", token="gpa", start_date="2025-01-01", config=config)
    fees = (("held", 1.5, "authorization"), ("paid", 12.5, "pindebit"), ("cash", 3, "pindebit.atm.withdrawal"))
    for token, amount, kind in fees:
        platform.make(
            "fees", token=token, name=token, amount=amount, type="PERCENTAGE" if token == "paid" else "FLAT", currency_code="USD",
            category="REALTIME", fee_attributes={"transaction_type": kind},
        )  # fmt: skip
    platform.make("realtimefeegroups", token="fees", name="Fees", fee_tokens=("held", "paid", "cash"))
    platform.make("accountholdergroups", token="payers", config={"real_time_fee_group_token": "fees"})
    for user, group in (("ana", "DEFAULT_AHG"), ("ben", "payers"), ("cy", "DEFAULT_AHG")):
        platform.make("users", token=user, account_holder_group_token=group)
    platform.make(
        "users", token="dee", parent_token="ana", uses_parent_account=True, account_holder_group_token="payers"
    )  # fmt: skip
    for token, user, product in (
        ("jit", "ana", "jit"), ("gpa", "ben", "gpa"), ("second", "ana", "jit"), ("asleep", "ben", "jit"), ("closed", "cy", "jit"),
        ("child", "dee", "jit"),
    ):  # fmt: skip
        platform.make("cards", token=token, user_token=user, card_product_token=product)
    platform.make("cardtransitions", card_token="asleep", state="SUSPENDED", channel="API")
    platform.make("usertransitions", user_token="cy", status="SUSPENDED", reason_code="05", channel="API")
    load_account(platform, "ben", 100_00)
    window = {"velocity_window": "DAY", "currency_code": "USD"}
    platform.make("velocitycontrols", token="much", amount_limit=150, **window)
    platform.make("velocitycontrols", token="often", amount_limit=900, usage_limit=3, association={"user_token": "ana"}, **window)
    amounts = {"trigger_amount": 5, "reload_amount": 40}
    platform.make(
        "autoreloads", token="filled", association={"user_token": "ben"}, funding_source_token="bank", currency_code="USD",
        order_scope={"gpa": amounts},
    )  # fmt: skip
    platform.make("shadow-controls", token="quiet", amount_limit=100, **window)
    increase = {"authorization_controls": {"hold_increase": {"type": "PERCENT", "value": 12.5}}}
    platform.make("mccgroups", token="pumps", name="Pumps", mccs=("5542",), config=increase)
    platform.make("mccgroups", token="bars", name="Bars", mccs=("5812-5814",))
    platform.make("authcontrols", name="No bars", association={"user_token": "ana"}, merchant_scope={"mcc_group": "bars"})
    platform.make("velocitycontrols", amount_limit=40, merchant_scope={"mcc_group": "pumps"}, **window)
    return platform


def load_account(platform: InProcessPlatform, user: str, amount: int) -> None:
    """Set the ledger balance of an account, so that a card without JIT Funding gets approvals, and at last partial ones."""
    import msgspec

    from cardwright.core.snapshot import Account

    state = msgspec.msgpack.encode(Account({"USD": (amount, 0)}))
    with platform.database.write() as db:
        query = text("UPDATE holders SET state = :state WHERE id = (SELECT holder_id FROM users WHERE token = :user)")
        db.execute(query, {"state": state, "user": user})


WRITTEN = ("message_tokens", "movements", "outbox", "shadow_hits", "journal", "transactions", "holder_transactions")

WIPES = (
    "INSERT INTO meta (key, value) VALUES ('resetting', 'test')",
    *(f"DELETE FROM {table}" for table in WRITTEN),
    "DELETE FROM meta WHERE key = 'resetting'",
)
"""Statements that delete all rows of the engine. The database refuses them outside a reset."""

RESTORE = text("UPDATE holders SET state = :state, recent = :recent WHERE id = :id")


def wipe(platform: InProcessPlatform, accounts: dict[int, bytes]) -> None:
    """Delete the rows of the engine and restore the accounts."""
    with platform.database.write() as db:
        if platform.database.is_sqlite:
            for statement in WIPES:
                db.exec_driver_sql(statement)
        else:
            # PostgreSQL runs several statements in one round trip if they have no parameters.
            db.exec_driver_sql("; ".join((*WIPES, "ALTER SEQUENCE transaction_blocks RESTART")))
        before = [{"id": holder_id, "state": state, "recent": NAMED} for holder_id, state in accounts.items()]
        db.execute(RESTORE, before)


def outcomes(results: list[Any]) -> list[Any]:
    """Return the comparable outcomes of the results."""
    return [outcome_of(result) for result in results]


def outcome_of(result: Any) -> Any:
    """Return the comparable outcome of a result: an error code, a document or a row."""
    if isinstance(result, Problem):
        return result.kind.code
    return result.doc if isinstance(result, MovementResult) else result.row


def message_of(platform: InProcessPlatform, example: dict[str, Any]) -> EngineRequest:
    """Return the message of an example."""
    if "users" in example:
        return movement_of(platform, example)
    known = {"amount": example["amount"], "seed": example["seed"], "token": example["token"], "kind": example["kind"]}
    if "card" in example:
        return card_request(
            platform,
            example["card"],
            **known,
            cash_back=example["cash_back"],
            request_type=example["request_type"],
            merchant=Merchant(mcc=example["mcc"]),
        )
    if example["kind"] is Authorization:
        known["request_type"] = RequestType.INCREMENT
    card, forced = OPENING[example["root"]][0], example["forced"] and example["kind"] is Clearing
    return card_request(platform, card, **known, root_id=OPENED[example["root"]], forced=forced)


def movement_of(platform: InProcessPlatform, example: dict[str, Any]) -> EngineRequest:
    """Return the movement of an example. An unload refers to the GPA order of the opening."""
    kind, amount = example["kind"], example["amount"]
    known = {"seed": example["seed"], "token": example["token"]}
    if kind is PeerTransfer:
        return movement_request(platform, kind, example["users"], amount, **known)
    if kind is Unload:
        return movement_request(platform, kind, ["ben"], amount, source="bank", root_id=1, **known)
    if kind is FeeCharge:
        return movement_request(platform, kind, example["users"][:1], 0, fees=example["fees"] or (50,), **known)
    if kind is Deposit:
        # Credits and debits, some with a settlement date in the past and some in the future.
        days = {"is_credit": amount % 2 == 0, "settles_ms": amount % 3 * 10**14}
        echoed = {"user_token": example["users"][0], "direct_deposit_account_token": "account"}
        return movement_request(platform, kind, example["users"][:1], amount, echoed=echoed, **days, **known)
    return movement_request(platform, kind, example["users"][:1], amount, fees=example["fees"], source="bank", **known)


def check(platform: InProcessPlatform, messages: list[dict[str, Any]], cuts: list[int]) -> None:
    """Decide the messages one by one and in batches; assert equal rows and answers."""
    opening: list[EngineRequest] = [movement_request(platform, GpaLoad, ["ben"], 80_00, seed=99, source="bank", fees=[100])]
    opening += [card_request(platform, card, amount, seed=seed) for seed, (card, amount) in enumerate(OPENING)]
    arrived = [message_of(platform, message) for message in messages]
    batches = [arrived[start:end] for start, end in zip([0, *cuts], cuts, strict=False)]
    accounts = {row[0]: row[3] for row in platform.rows()["holders"]}
    wipe(platform, accounts)
    try:
        told_singly = outcomes(platform.run([opening, *([message] for message in arrived)]))
        left_singly = platform.rows()
        wipe(platform, accounts)
        assert outcomes(platform.run([opening, *batches])) == told_singly
        assert platform.rows() == left_singly
    finally:
        wipe(platform, accounts)


@pytest.fixture
def sqlite_platform(platform_of: Any, tmp_path_factory: pytest.TempPathFactory) -> InProcessPlatform:
    """Return the platform on SQLite."""
    path: Path = tmp_path_factory.getbasetemp() / "sequence.db"
    return platform_of(str(path))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def postgres_address(postgres: Any) -> Iterator[str]:
    """Yield the DSN of a new database on PostgreSQL."""
    dsn = postgres.new_database(migrate_address)
    yield dsn
    postgres.drop_database(dsn)


relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@settings(relaxed, max_examples=500)
@given(case=partitioned())
def test_any_partition_leaves_the_same_rows_on_sqlite(
    sqlite_platform: InProcessPlatform, case: tuple[list[dict[str, Any]], list[int]]
) -> None:
    """Any partition of messages into batches writes the same rows and gives the same answers on SQLite."""
    check(sqlite_platform, *case)


@settings(relaxed, max_examples=500)
@given(case=partitioned())
def test_any_partition_leaves_the_same_rows_on_postgresql(
    platform_of: Any, postgres_address: str, case: tuple[list[dict[str, Any]], list[int]]
) -> None:
    """Any partition of messages into batches writes the same rows and gives the same answers on PostgreSQL."""
    check(platform_of(postgres_address), *case)
