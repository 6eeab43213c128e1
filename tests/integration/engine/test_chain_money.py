"""Money at each step of a chain, as tables: order, impact, balances, and the net amount from the funding source."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from cardwright.core.messages import Advice, Authorization, Clearing, Refund, Reversal
from cardwright.core.render import render, render_load
from cardwright.engine.batch import CardResult
from cardwright.storage.tables import journal
from tests.properties.test_batch_is_sequence import load_account
from tests.support.in_process_platform import InProcessPlatform, card_request

# message: auth/clear/force/reverse/advise/refund AMOUNT [of purchase N]; then type, state, order (state amount), impacted,
# ledger, available; `drawn` is the net amount that the funding source has given, holds included.
MANAGED_JIT = """
    message          | type                    state      | order           | impacted  ledger  available | drawn
    auth 200         | authorization           PENDING    | PENDING 200     | -200         200       0    |  200
    auth 250         | authorization           PENDING    | PENDING 250     | -250         450       0    |  450
    reverse 100 of 2 | authorization.reversal  PENDING    | PENDING 100     | +100         350       0    |  350
    clear 150 of 2   | authorization.clearing  COMPLETION | COMPLETION 150  | -150         200       0    |  350
    clear 200 of 1   | authorization.clearing  COMPLETION | COMPLETION 200  | -200           0       0    |  350
    auth 500         | authorization           PENDING    | PENDING 500     | -500         500       0    |  850
    reverse 500 of 6 | authorization.reversal  CLEARED    | REVERSED 500    | +500           0       0    |  350
    auth 100         | authorization           PENDING    | PENDING 100     | -100         100       0    |  450
    clear 50 of 8    | authorization.clearing  COMPLETION | COMPLETION 50   | -50           50       0    |  450
    clear 50 of 8    | authorization.clearing  COMPLETION | COMPLETION 50   | -50            0       0    |  450
    auth 12          | authorization           PENDING    | PENDING 12      | -12           12       0    |  462
    clear 15 of 11   | authorization.clearing  COMPLETION | COMPLETION 15   | -15            0       0    |  465
    refund 15 of 11  | refund                  COMPLETION | COMPLETION 15   | +15            0       0    |  450
    force 30 of 1    | authorization.clearing  COMPLETION | COMPLETION 30   | -30            0       0    |  480
    auth 100         | authorization           PENDING    | PENDING 100     | -100         100       0    |  580
    advise 40 of 15  | authorization.advice    PENDING    | PENDING 60      | +60           40       0    |  520
    clear 40 of 15   | authorization.clearing  COMPLETION | COMPLETION 40   | -40            0       0    |  520
    clear 7 of 15    | authorization.clearing  COMPLETION | COMPLETION 7    | -7             0       0    |  527
    auth 20          | authorization           PENDING    | PENDING 20      | -20           20       0    |  547
    reverse 21 of 19 | authorization.reversal  DECLINED   | -               | -             20       0    |  547
    advise 21 of 19  | authorization.advice    DECLINED   | -               | -             20       0    |  547
    reverse 20 of 19 | authorization.reversal  CLEARED    | REVERSED 20     | +20            0       0    |  527
    reverse 20 of 19 | authorization.reversal  DECLINED   | -               | -              0       0    |  527
    clear 5 of 19    | authorization.clearing  COMPLETION | COMPLETION 5    | -5             0       0    |  532
    auth 0           | authorization           CLEARED    | -               | -              0       0    |  532
"""

REFUNDS_TO_THE_ACCOUNT = """
    message          | type                    state      | order           | impacted  ledger  available | drawn
    auth 30          | authorization           PENDING    | PENDING 30      | -30           30       0    |   30
    clear 30 of 1    | authorization.clearing  COMPLETION | COMPLETION 30   | -30            0       0    |   30
    refund 20 of 1   | refund                  COMPLETION | -               | +20           20      20    |   30
    auth 30          | authorization           PENDING    | PENDING 10      | -30           30       0    |   40
    reverse 15 of 4  | authorization.reversal  PENDING    | PENDING 10      | +15           20       5    |   30
    clear 15 of 4    | authorization.clearing  COMPLETION | -               | -15            5       5    |   30
    auth 5           | authorization           PENDING    | -               | -5             5       0    |   30
    clear 9 of 7     | authorization.clearing  COMPLETION | COMPLETION 4    | -9             0       0    |   34
"""

PRELOADED_250 = """
    message          | type                    state      | order           | impacted  ledger  available | drawn
    auth 10          | authorization           PENDING    | -               | -10          250     240    |    0
    advise 8 of 1    | authorization.advice    PENDING    | -               | +2           250     242    |    0
    clear 8 of 1     | authorization.clearing  COMPLETION | -               | -8           242     242    |    0
    auth 20          | authorization           PENDING    | -               | -20          242     222    |    0
    clear 15 of 4    | authorization.clearing  COMPLETION | -               | -15          227     222    |    0
    reverse 5 of 4   | authorization.reversal  CLEARED    | -               | +5           227     227    |    0
    auth 20          | authorization           PENDING    | -               | -20          227     207    |    0
    clear 26 of 7    | authorization.clearing  COMPLETION | -               | -26          201     201    |    0
    refund 10 of 7   | refund                  COMPLETION | -               | +10          211     211    |    0
    auth 5000        | authorization           PENDING    | -               | -211         211       0    |    0
    auth 1           | authorization           DECLINED   | -               | -            211       0    |    0
    clear 300 of 10  | authorization.clearing  COMPLETION | -               | -300         -89     -89    |    0
"""

KINDS: dict[str, tuple[type[Any], bool]] = {
    "auth": (Authorization, False), "clear": (Clearing, False), "force": (Clearing, True), "reverse": (Reversal, False),
    "advise": (Advice, False), "refund": (Refund, False),
}  # fmt: skip


@pytest.fixture
def platform(migrated_url: str | Path) -> Iterator[InProcessPlatform]:
    """A program with a Managed JIT product, one whose refunds stay on the account, and a preloaded one."""
    platform = InProcessPlatform(str(migrated_url))
    platform.make("fundingsources/program", name="Bank", token="bank")
    for product, jit in (
        ("jit", {"enabled": True, "funding_source_token": "bank", "refunds_destination": "PROGRAM_FUNDING_SOURCE"}),
        ("keeps", {"enabled": True, "funding_source_token": "bank", "refunds_destination": "GPA"}),
        ("gpa", {"enabled": False}),
    ):
        config = {"card_life_cycle": {"activate_upon_issue": True}, "jit_funding": {"program_funding_source": jit}}
        platform.make("cardproducts", name=product, token=product, start_date="2025-01-01", config=config)
        platform.make("users", token=product)
        platform.make("cards", token=product, user_token=product, card_product_token=product)
    load_account(platform, "gpa", 250_00)
    yield platform
    platform.close()


def transaction_of(outcome: CardResult) -> dict[str, Any]:
    """Return the outcome's transaction as the API shows it. Its load side is rendered too and must agree."""
    fragments, source = outcome.card.fragments, outcome.source.fragments if outcome.source else None
    transaction: dict[str, Any] = msgspec.json.decode(render(outcome.row, fragments, source))
    order = transaction.get("gpa_order") or transaction.get("gpa_order_unload")
    if order is not None:
        load = msgspec.json.decode(render_load(outcome.row, fragments, source))
        assert order["transaction_token"] == load["token"]
        assert load["preceding_related_transaction_token"] == transaction["token"]
    return transaction


def observed(platform: InProcessPlatform, message: str, outcome: CardResult) -> str:
    """Return an outcome in the form of a row of ``TABLE``."""
    transaction = transaction_of(outcome)
    order = transaction.get("gpa_order") or transaction.get("gpa_order_unload")
    impacted = transaction["gpa"].get("impacted_amount")
    with platform.database.read() as db:
        drawn = -(db.scalar(select(func.sum(journal.c.program_funding))) or 0)
    cells = (
        message, f"{transaction['type']} {transaction['state']}", f"{order['state']} {order['amount']:g}" if order else "-",
        f"{'-' if impacted is None else f'{impacted:+g}' if impacted else '0'} {transaction['gpa']['ledger_balance']:g} "
        f"{transaction['gpa']['available_balance']:g}", f"{drawn / 100:g}",
    )  # fmt: skip
    return " | ".join(cells)


def expected_rows(table: str) -> list[str]:
    """Return the rows of a table, with single spaces."""
    lines = [" | ".join(" ".join(cell.split()) for cell in line.split("|")) for line in table.strip().splitlines()]
    return lines[1:]


@pytest.mark.parametrize(("card", "table"), [("jit", MANAGED_JIT), ("keeps", REFUNDS_TO_THE_ACCOUNT), ("gpa", PRELOADED_250)])
def test_a_chain_moves_the_money_as_the_table_says(platform: InProcessPlatform, card: str, table: str) -> None:
    """Each message of a long chain has the order, impact and balances that the tables of the reference state."""
    rows, outcomes = expected_rows(table), list[CardResult]()
    for expected in rows:
        verb, amount, *of = expected.split(" | ")[0].split()
        kind, forced = KINDS[verb]
        root = outcomes[int(of[1]) - 1].row.id if of else None
        message = card_request(platform, card, int(amount) * 100, seed=len(outcomes), kind=kind, forced=forced, root_id=root)
        (outcome,) = platform.run([[message]])
        assert isinstance(outcome, CardResult)
        outcomes.append(outcome)
        assert observed(platform, expected.split(" | ")[0], outcome) == expected


def test_an_order_keeps_its_token_through_the_chain(platform: InProcessPlatform) -> None:
    """Authorization, partial reversal and clearing share one order token. Each of them has its own load transaction."""
    (auth,) = platform.run([[card_request(platform, "jit", 250_00, seed=11)]])
    assert isinstance(auth, CardResult)
    steps = ((Reversal, 100_00), (Clearing, 150_00))
    follow = [card_request(platform, "jit", amount, seed=12, kind=kind, root_id=auth.row.id) for kind, amount in steps]
    members = [
        transaction_of(outcome)
        for outcome in (auth, *platform.run([[message] for message in follow]))
        if isinstance(outcome, CardResult)
    ]
    orders = [member["gpa_order"] for member in members]
    assert len({order["token"] for order in orders}) == 1
    assert len({order["transaction_token"] for order in orders}) == 3
    first = members[0]["token"]
    assert [member.get("preceding_related_transaction_token") for member in members] == [None, first, first]
    assert len({member["approval_code"] for member in members}) == 1
