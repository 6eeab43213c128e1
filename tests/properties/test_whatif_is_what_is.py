"""Dry run: its outcome equals the later decision, and it changes no row, on both databases."""

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest

from cardwright.core.messages import Fee, Merchant, Refund
from cardwright.core.render import render
from cardwright.engine.batch import CardRequest, CardResult
from cardwright.engine.batch_runner import run_batch
from cardwright.engine.dry_run import Trial, try_out
from cardwright.engine.id_blocks import IdSource
from cardwright.resources.analysis.what_if import answer_of
from cardwright.storage.tables import metadata
from tests.support.in_process_platform import InProcessPlatform, card_request
from tests.support.instants import NOON

CASES = {"sqlite": 10_000, "postgresql": 1_000}
"""Number of purchases. PostgreSQL gets fewer, because its decisions are the same and each dry run is a round trip."""

ACCOUNTS = 100
DUMPS_EVERY = 5

MERCHANTS = tuple(
    Merchant(mcc=mcc, country=country, partial_approval_capable=partial)
    for mcc in ("5411", "7995", "5812") for country in ("USA", "USA", "CUB") for partial in (True, False)
)  # fmt: skip

TOUCHING = ("transactions", "journal", "holders", "outbox", "message_tokens", "shadow_hits")
"""Tables that a purchase changes. If they were always empty, the test would prove nothing."""


SELECT_ALL = {
    table.name: f"SELECT {', '.join(table.columns.keys())} FROM {table.name}"
    f" ORDER BY {', '.join(table.primary_key.columns.keys())}"
    for table in metadata.sorted_tables
}
"""A query of each table with a stable order."""


@pytest.fixture
def platform(migrated_url: str) -> Iterator[InProcessPlatform]:
    """Yield a platform with 100 cardholders, with and without JIT Funding, under velocity controls. Two of them are inactive."""
    platform = InProcessPlatform(migrated_url)
    platform.make("fundingsources/program", name="Bank", token="bank")
    jit = {"program_funding_source": {"enabled": True, "funding_source_token": "bank"}}
    countries = {"accepted_countries_token": "decline_ofac_countries"}
    config: dict[str, Any] = {"card_life_cycle": {"activate_upon_issue": True}, "transaction_controls": countries}
    platform.make("cardproducts", name="jit", token="jit", start_date="2025-01-01", config={**config, "jit_funding": jit})
    platform.make("cardproducts", name="plain", token="plain", start_date="2025-01-01", config={**config, "poi": {"atm": True}})
    for number in range(ACCOUNTS):
        platform.make("users", token=f"u{number}")
        product = "plain" if number % 4 == 3 else "jit"
        platform.make("cards", token=f"c{number}", user_token=f"u{number}", card_product_token=product)
    platform.make("cardtransitions", card_token="c5", state="SUSPENDED", channel="API")
    platform.make("usertransitions", user_token="u6", status="SUSPENDED", reason_code="05", channel="API")
    day = {"velocity_window": "DAY", "currency_code": "USD"}
    platform.make("velocitycontrols", token="much", amount_limit=900, association={"card_product_token": "jit"}, **day)
    platform.make("velocitycontrols", token="often", amount_limit=9000, usage_limit=1, merchant_scope={"mcc": "5812"}, **day)
    yield platform
    platform.close()


def drawn(source: random.Random, platform: InProcessPlatform, number: int, seed: int) -> CardRequest:
    """Draw a purchase on the card with this number."""
    details: dict[str, Any] = {
        "merchant": source.choice(MERCHANTS),
        "cash_back": source.choice((0, 0, 0, 500)),
        "card_present": source.choice((None, None, True, False)),
        "security_code_matches": source.choice((None, None, None, True, False)),
        "pin_matches": source.choice((None, None, None, None, False)),
        "expiration_matches": source.choice((None, None, None, None, False)),
        "fees": source.choice(((), (), (Fee("ACQUIRER_FEE", 150, "D"),))),
    }
    token = f"t{number}-{source.randrange(60)}" if source.random() < 0.2 else None
    return card_request(
        platform, f"c{number}", source.choice((0, 1, 40_00, 75_50, 120_00, 950_00)), seed=seed, token=token, **details
    )


def money(platform: InProcessPlatform, number: int, seed: int, root_id: int) -> CardRequest:
    """Return a refund of 100.00 for an account without JIT Funding."""
    return card_request(platform, f"c{number}", 100_00, seed=seed, kind=Refund, root_id=root_id)


def dump(platform: InProcessPlatform) -> dict[str, list[Any]]:
    """Return every row of every table in the order of the primary keys."""
    with platform.database.read() as db:
        return {name: list(map(tuple, db.exec_driver_sql(query))) for name, query in SELECT_ALL.items()}


async def compared(platform: InProcessPlatform, cases: int) -> set[int]:
    """Run each purchase as a dry run and then for real; return the response codes."""
    source, codes = random.Random(5), set[int]()
    worker, dry_run_worker, ids = await platform.store.open_worker(), await platform.store.open_worker(), IdSource()
    ids.refill(platform.store.next_ids())
    first = [card_request(platform, f"c{number}", 0, seed=number) for number in range(ACCOUNTS)]
    first = [await carded(platform, request) for request in first]
    roots = [result.row.id for result in await run_batch(worker, platform.cache, ids, lambda: NOON, first)]  # type: ignore[union-attr]
    for turn in range(cases // ACCOUNTS):
        batch = [await carded(platform, drawn(source, platform, number, turn * ACCOUNTS + number)) for number in range(ACCOUNTS)]
        if not ids.has(2 * ACCOUNTS):
            ids.refill(platform.store.next_ids())
        before = dump(platform) if turn % DUMPS_EVERY == 0 else None
        trials = [await try_out(dry_run_worker, platform.cache, lambda: NOON, request, later()) for request in batch]
        if before is not None:
            assert dump(platform) == before
        results = await run_batch(worker, platform.cache, ids, lambda: NOON, batch)
        for request, trial, result in zip(batch, trials, results, strict=True):
            agree(request, trial, result)
            codes.add(result.row.code if isinstance(result, CardResult) else -1)
        if turn % 7 == 0:
            poor = [await carded(platform, money(platform, number, turn, roots[number])) for number in range(3, ACCOUNTS, 4)]
            await run_batch(worker, platform.cache, ids, lambda: NOON, poor)
    for each_worker in (worker, dry_run_worker):
        await each_worker.close()
    await platform.store.close()
    return codes


def later() -> float:
    """Return a deadline in one hour, which no test reaches."""
    return asyncio.get_running_loop().time() + 3600


async def carded(platform: InProcessPlatform, request: CardRequest) -> CardRequest:
    """Return the message with the card in place of its key."""
    key: Any = request.card
    return request._replace(card=await platform.card(key))


def agree(request: CardRequest, trial: Any, result: Any) -> None:
    """Assert that dry run and decision agree in every field that is not drawn, and that the trace has the same outcome."""
    if not isinstance(trial, Trial):
        assert trial.kind == result.kind
        return
    assert isinstance(result, CardResult)
    tried, made = trial.outcome.row, result.row
    repeats = trial.snapshot is None
    same = made if repeats else made._replace(id=tried.id, seed=tried.seed)
    assert tried == same
    assert render(tried, result.card.fragments, None) == render(same, result.card.fragments, None)
    if not repeats:
        answer = answer_of(trial, ())
        refused = [step["response"]["code"] for step in answer["checks"] if step["verdict"] == "refuse"]
        assert refused == ([f"{made.code:04d}"] if made.impacted is None else [])


def test_a_trial_agrees_with_the_decision(platform: InProcessPlatform) -> None:
    """The row of a dry run equals the row of the following decision, and a dry run changes no table."""
    codes = asyncio.run(compared(platform, CASES["sqlite" if platform.database.is_sqlite else "postgresql"]))
    # Approved, approved in part, and declined for card, holder, country, PIN, security code, quasi-cash, funds and both limits.
    assert codes >= {0, 2, 1001, 1003, 1016, 1809, 1813, 1817, 1834, 1864, 1952, 1956}
    rows = dump(platform)
    assert all(rows[name] for name in TOUCHING if name not in ("outbox", "shadow_hits"))
