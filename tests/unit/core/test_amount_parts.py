"""Parts of an amount: the parts are within the approved amount, and every reader of the row finds the same amounts.

The parts are goods, cash back, the acquirer's surcharge, and the increase of the hold by an MCC group. A real-time fee is a
separate transaction.
"""

from itertools import product
from typing import Any, NamedTuple

import msgspec
import pytest

from cardwright.core.decide import decide
from cardwright.core.decision import Decision
from cardwright.core.enums import TYPE_NUMBER
from cardwright.core.fee_groups import RealTimeFee
from cardwright.core.messages import CATEGORY_OF, Authorization, Details, Fee, Merchant, VelocityCategory
from cardwright.core.render import details_decoder, fragments_of, render
from cardwright.core.snapshot import Snapshot
from cardwright.core.spend_controls import Categories, Increase, IncreaseType
from cardwright.core.transaction_model import as_v2
from cardwright.core.transaction_row import TransactionRow
from cardwright.core.transaction_types import CASH_MACHINE, WITH_CASH, RequestType
from cardwright.core.velocity import Control, Window, resolved_control
from cardwright.core.velocity_events import event_of, request_of_row
from cardwright.engine.transaction_rows import details_of, record
from tests.support.instants import NOON
from tests.unit.core.test_checks import snapshot_of

REQUEST_TYPES = (
    RequestType.PURCHASE,
    RequestType.PIN_PURCHASE,
    RequestType.PIN_HOLD,
    RequestType.FUNDING,
    RequestType.WITHDRAWAL,
)
GOODS, CASH, SURCHARGES = (0, 7_50, 20_00), (0, 20_00), ((), (("D", 3_00),), (("C", 9_00),))
MONEY = ("0", "0.01", "3", "3.01", "7.5", "15", "23", "39.99", "43")
SOURCES, RULES, TERMINALS = ("none", "active"), ("", "no-partial"), (True, False)
EXTRAS = ("", "increase", "fee")

COUNTING = {"both": (True, True), "purchases": (True, False), "cash": (False, True)}
"""Velocity controls by their flags for purchases and for cash back."""


class Case(NamedTuple):
    """A purchase with its snapshot, decision, row, and transaction on the wire."""

    name: str
    snapshot: Snapshot
    request: Authorization
    decision: Decision
    row: TransactionRow
    shown: dict[str, Any]

    @property
    def details(self) -> Details:
        return details_decoder.decode(self.row.details)


def extended(snapshot: Snapshot, request_type: RequestType, extra: str) -> Snapshot:
    """Return the snapshot with an MCC group that increases holds, or with a real-time fee."""
    if extra == "increase":
        categories = Categories(("Pumps",), (Increase(IncreaseType.AMOUNT, 4_00),))
        return msgspec.structs.replace(snapshot, spend=msgspec.structs.replace(snapshot.spend, categories=categories))
    if extra == "fee":
        kinds = [TYPE_NUMBER[name] for name in (str(request_type), WITH_CASH.get(request_type)) if name]
        fees = tuple(
            RealTimeFee(token="f", type_id=kind, amount=1_00, is_percentage=False, fee="{}", group="{}") for kind in kinds
        )
        return msgspec.structs.replace(snapshot, fees=fees)
    return snapshot


def shown_of(row: TransactionRow, snapshot: Snapshot) -> dict[str, Any]:
    """Return the transaction on the wire. Assert that both models have the same amounts."""
    text = render(row, fragments_of(snapshot.card, snapshot.user, snapshot.owner), None)
    transaction: dict[str, Any] = msgspec.json.decode(text)
    other = msgspec.json.decode(as_v2(text, details_decoder.decode(row.details)))
    names = ("amount", "request_amount", "cash_back_amount", "acquirer_fee_amount", "gpa")
    assert [transaction.get(name) for name in names] == [other.get(name) for name in names]
    return transaction


def cases() -> list[Case]:
    """Return a case for every combination of the values above."""
    combinations = []
    for request_type, goods, cash, surcharge, money, source, rules, capable, extra in product(
        REQUEST_TYPES, GOODS, CASH, SURCHARGES, MONEY, SOURCES, RULES, TERMINALS, EXTRAS
    ):
        if (cash and request_type not in WITH_CASH) or (not goods and request_type in CATEGORY_OF):
            continue
        snapshot = snapshot_of({"source": source, "money": money, "rules": rules, "poi": "atm"}, NOON)
        snapshot = extended(snapshot, request_type, extra)
        details = Details(
            mid="m1",
            merchant=Merchant(partial_approval_capable=capable),
            cash_back=cash,
            velocity_category=CATEGORY_OF.get(request_type, VelocityCategory.PURCHASE),
            fees=tuple(Fee("ACQUIRER_FEE", amount, sign) for sign, amount in surcharge),
        )
        request = Authorization(amount=goods, details=details, request_type=request_type)
        decision = decide(snapshot, request, NOON)
        row = record(
            row_id=1, keys=(1, 1, 1, None), revisions=(1, 1), decision=decision, root=None, seed=1, now=NOON, duration_ms=0,
            details=details_of(request, snapshot, decision, None, None),
        )  # fmt: skip
        name = f"{request_type} {goods}+{cash} {surcharge} of {money} {source} {rules} {capable} {extra}"
        combinations.append(Case(name, snapshot, request, decision, row, shown_of(row, snapshot)))
    return combinations


@pytest.fixture(scope="module")
def decided() -> list[Case]:
    """Return all cases."""
    return cases()


def counts(case: Case, name: str) -> int:
    """Return the amount that the velocity control of this name counts for the row."""
    purchases, cash = COUNTING[name]
    control = resolved_control(
        Control(
            id=1, token="v", name=None, amount_limit=1, usage_limit=None, window=Window.DAY, currency="USD", since_ms=0,
            include_purchases=purchases, include_cashback=cash, include_withdrawals=False,
        )
    )  # fmt: skip
    event = event_of(case.row, case.details)
    return 0 if event is None else control.amount_of(event)


def units(amount: float) -> int:
    """Return the minor units of an amount on the wire."""
    return round(amount * 100)


def test_the_parts_are_within_the_amount(decided: list[Case]) -> None:
    """Cash back and surcharge together are at most the amount. A partial approval has no cash back, and its goods are above 0."""
    codes = set()
    for case in decided:
        transaction, name = case.shown, case.name
        amount, requested = units(transaction["amount"]), units(transaction["request_amount"])
        cash, surcharge = units(transaction.get("cash_back_amount", 0)), units(transaction["acquirer_fee_amount"])
        goods, code = amount - cash - surcharge, transaction["response"]["code"]
        codes.add(code)
        assert cash + surcharge <= amount, name
        assert requested == case.request.requested, name
        assert ("cash_back_amount" in transaction) == bool(case.request.details.cash_back), name
        assert surcharge == case.request.surcharge, name
        if code == "0002":
            assert (cash, case.request.request_type not in CASH_MACHINE) == (0, True), name
            assert 0 < goods <= case.request.amount, name
            assert amount < requested, name
        else:
            assert (amount, cash) == (case.decision.amount, case.request.details.cash_back), name
            assert goods == case.request.amount + (amount - requested), name
            assert amount - requested in ((0, 4_00) if case.decision.is_approved else (0,)), name
    assert codes >= {"0000", "0002", "1016"}


def test_what_is_approved_is_what_moves(decided: list[Case]) -> None:
    """The impacted amount, the legs, and the sum of hold and cleared amount equal the approved amount. A decline has none."""
    for case in decided:
        decision, name = case.decision, case.name
        if not decision.is_approved:
            assert (case.row.impacted, sum(map(abs, decision.legs)), case.row.hold_left) == (None, 0, 0), name
            continue
        # An approved amount of 0, as of an account verification, shows no impacted amount.
        assert ("impacted_amount" in case.shown["gpa"]) == bool(decision.amount), name
        assert units(case.shown["gpa"].get("impacted_amount", 0)) == -decision.amount, name
        assert decision.legs.held + decision.legs.settlement == decision.amount, name
        assert decision.hold_left + decision.cleared == decision.amount, name
        if case.snapshot.source is None:
            ledger, held = case.snapshot.account.money("USD")
            assert decision.amount <= max(0, ledger - held), name


def test_velocity_controls_count_what_was_approved(decided: list[Case]) -> None:
    """A control of purchases counts the amount without cash back, a control of cash back only that, and one of both all of it."""
    for case in decided:
        is_counted = case.request.request_type not in CASH_MACHINE
        amount, cash = units(case.shown["amount"]), units(case.shown.get("cash_back_amount", 0))
        expected = {"both": amount, "purchases": amount - cash, "cash": cash} if is_counted else dict.fromkeys(COUNTING, 0)
        assert {name: counts(case, name) for name in COUNTING} == expected, case.name


def test_the_record_gives_the_message_back(decided: list[Case]) -> None:
    """The message rebuilt from a row has the same amounts and type, and its decision is the same."""
    for case in decided:
        request, again = case.request, request_of_row(case.row, case.details)
        assert (again.amount, again.requested, again.request_type) == (request.amount, request.requested, request.request_type), (
            case.name
        )
        decision = decide(case.snapshot, again, NOON)
        expected = (case.row.type_id, case.decision.reason, case.row.amount)
        assert (decision.type_id, decision.reason, decision.amount) == expected, case.name
