"""Messages as rows of a text table: the engine decides each message, and its row has the expected outcome."""

import re
from typing import Any

import msgspec
from sqlalchemy import select

from cardwright.core.messages import (
    CATEGORY_OF,
    Advice,
    Authorization,
    Clearing,
    Details,
    Expiry,
    Merchant,
    Refund,
    Reversal,
    VelocityCategory,
)
from cardwright.core.problems import Problem
from cardwright.core.render import render, render_load
from cardwright.core.transaction_types import ANNOUNCED_REFUND, FAMILIES, PIN_REFUND, TYPE_OF, RequestType
from cardwright.engine.batch import CardRequest, CardResult
from cardwright.kit.clock import DAY_MS, ProgramClock
from cardwright.ledger.invariants import verify
from cardwright.storage.programs import get_program, set_clock
from cardwright.storage.tables import JOURNAL_ACCOUNTS, journal
from tests.support.in_process_platform import InProcessPlatform
from tests.support.instants import NOON

UNITS = {"m": 60_000, "h": 3_600_000, "d": DAY_MS}

ASKS = {
    "auth": RequestType.PURCHASE, "pin": RequestType.PIN_PURCHASE, "pinhold": RequestType.PIN_HOLD, "atm": RequestType.WITHDRAWAL,
    "inquiry": RequestType.BALANCE_INQUIRY, "credit": RequestType.ORIGINAL_CREDIT, "grow": RequestType.INCREMENT,
    "cash": RequestType.ATM_HOLD, "chips": RequestType.QUASI_HOLD, "pinchips": RequestType.PIN_QUASI,
    "fund": RequestType.FUNDING, "fundhold": RequestType.FUNDING_HOLD, "credithold": RequestType.CREDIT_HOLD,
}  # fmt: skip
FOLLOWS = {"clear": Clearing, "reverse": Reversal, "advise": Advice, "refund": Refund, "force": Clearing}
REFUNDS = {"announce": ANNOUNCED_REFUND, "pinrefund": PIN_REFUND}

LETTERS = dict(zip("FAHSCTOD", JOURNAL_ACCOUNTS, strict=True))
"""Letters of the accounts in a row: funding source, available, held, settlement, (fees, transit,) overdraft, (deposits)."""

SHORT = {".auth_plus_capture": "", "authorization": "auth"}
"""Parts of a type's name that a row omits or shortens."""

PRODUCTS: dict[str, dict[str, Any]] = {
    "jit": {"jit": "PROGRAM_FUNDING_SOURCE", "transaction_controls": {"allow_quasi_cash": True}},
    "keeps": {"jit": "GPA", "transaction_controls": {"allow_quasi_cash": True}},
    "waterfall": {"jit": "WATERFALL"},
    "plain": {"transaction_controls": {"allow_quasi_cash": True}},
    "overdraft": {"clearing_and_settlement": {"overdraft_destination": "GLOBAL_OVERDRAFT_ACCOUNT"}},
    "whole": {"transaction_controls": {"enable_partial_auth_approval": False}},
    "no-atm": {"poi": {"atm": False}},
    "dry": {"jit": "PROGRAM_FUNDING_SOURCE", "source": "dry"},
    "fenced": {"jit": "GPA", "transaction_controls": {"allow_gpa_auth": False}},
}
"""Card products: differences from a product with cards that are active at once and can withdraw cash."""


def populate(platform: InProcessPlatform) -> None:
    """Create the funding sources and the card products."""
    platform.make("fundingsources/program", name="Bank", token="bank")
    platform.make("fundingsources/program", name="Dry", token="dry", active=False)
    for name, settings in PRODUCTS.items():
        settings = dict(settings)
        destination, source = settings.pop("jit", None), settings.pop("source", "bank")
        funding = {"enabled": destination is not None, "refunds_destination": destination or ""}
        config = {"card_life_cycle": {"activate_upon_issue": True}, "poi": {"atm": True}, **settings}
        config["jit_funding"] = {"program_funding_source": {**funding, "funding_source_token": source if destination else ""}}
        platform.make("cardproducts", name=name, token=name, start_date="2025-01-01", config=config)


def check_table(platform: InProcessPlatform, product: str, table: str) -> None:
    """Decide every row of a table, on a new account with a card of the product; assert the outcomes and all invariants."""
    till = Till(platform, product)
    expected = rows_of(table)
    assert expected
    assert [till.row(row.split(" | ")[0]) for row in expected] == expected
    assert verify(platform.database).violations == []


class Till:
    """Conversion of a table's words to messages of one card, and of outcomes to a table's words.

    ``auth 20+5`` is a purchase with cash back. ``auth 20 alone`` is a purchase at a terminal without partial approvals.
    ``auth 20 hold 3h`` is a pre-authorization, and ``grow 5 of 1`` an increment of the chain of row 1. ``reverse 5 of 1 told`` is
    an advice of a reversal, and ``within 3`` a reversal with a window of three days. ``force 5 as cash`` is a forced clearing of
    cash. ``wait 7d`` moves the clock, and ``expire 1`` is an expiry from the timers.
    """

    def __init__(self, platform: InProcessPlatform, product: str) -> None:
        self.platform, self.card = platform, platform.make("users")["token"]
        platform.make("cards", token=self.card, user_token=self.card, card_product_token=product)
        with platform.database.read() as db:
            self.now = get_program(db, platform.program_id).clock.time_at(NOON)
        self.outcomes: list[CardResult | None] = []

    def row(self, words: str) -> str:
        """Run a row; return it with the real outcome."""
        verb, *rest = words.split()
        if verb == "wait":
            return self._wait(words, rest[0])
        (result,) = self.platform.run([[self._request_of(verb, rest)]])
        if isinstance(result, Problem):
            self.outcomes.append(None)
            return f"{words} | {result.kind.code} | - | - | -"
        self.outcomes.append(result)
        return f"{words} | {row_of(self.platform, result)}"

    def _wait(self, words: str, text: str) -> str:
        self.now += int(text[:-1]) * UNITS[text[-1]]
        with self.platform.database.write() as db:
            set_clock(db, self.platform.program_id, ProgramClock(0, self.now))
        self.outcomes.append(None)
        return f"{words} | - | - | - | -"

    def _request_of(self, verb: str, rest: list[str]) -> CardRequest:
        options = dict(zip(rest[1::2], rest[2::2], strict=False)) if verb != "expire" else {"of": rest[0]}
        root = self.outcomes[int(options["of"]) - 1] if "of" in options else None
        if verb == "expire":
            message: Any = Expiry(details=Details(mid=""))
        else:
            amount, _, cash = (rest[0] if rest else "0").partition("+")
            message = self._message(verb, round(float(amount) * 100), int(cash or 0) * 100, rest, options)
        key: Any = (self.platform.program_id, self.card)
        root_id = None if root is None else root.row.root_id or root.row.id
        return CardRequest(key, message, len(self.outcomes), NOON, root_id=root_id)

    def _message(self, verb: str, amount: int, cash: int, rest: list[str], options: dict[str, str]) -> Any:
        if verb in ASKS:
            merchant = Merchant(partial_approval_capable="alone" not in rest)
            hold = int(options["hold"][:-1]) * UNITS[options["hold"][-1]] if "hold" in options else None
            request_type, mid = ASKS[verb], "m1" if verb != "grow" else ""
            velocity_category = CATEGORY_OF.get(request_type, VelocityCategory.PURCHASE)
            details = Details(
                mid=mid,
                merchant=merchant,
                cash_back=cash,
                hold_ms=hold,
                is_pre_auth=hold is not None,
                velocity_category=velocity_category,
            )
            return Authorization(amount=amount, details=details, request_type=request_type)
        if verb in REFUNDS:
            return Refund(amount=amount, details=Details(mid="m1"), type_id=REFUNDS[verb])
        fields: dict[str, Any] = {"is_forced": True} if verb == "force" else {}
        if "as" in options:
            begins = REFUNDS[options["as"]] if options["as"] in REFUNDS else TYPE_OF[ASKS[options["as"]]]
            fields["forced_as"] = FAMILIES[begins].clearing
        if verb == "reverse":
            fields = {"is_advice": "told" in rest, "window_days": int(options["within"]) if "within" in options else None}
        return FOLLOWS[verb](amount=amount, details=Details(mid=""), **fields)


def row_of(platform: InProcessPlatform, outcome: CardResult) -> str:
    """Return type, state and code; order; impact, ledger and available; legs. Assert that the load's side agrees."""
    fragments, source, row = outcome.card.fragments, outcome.source.fragments if outcome.source else None, outcome.row
    document: dict[str, Any] = msgspec.json.decode(render(row, fragments, source))
    order = document.get("gpa_order") or document.get("gpa_order_unload")
    if order is not None and row.moved:
        load = msgspec.json.decode(render_load(row, fragments, source))
        assert order["transaction_token"] == load["token"]
        assert load["preceding_related_transaction_token"] == document["token"]
        assert abs(load["gpa"]["impacted_amount"]) == order["amount"]
    impacted = document["gpa"].get("impacted_amount")
    unload = "un" if "gpa_order_unload" in document else ""
    code, kind = document["response"]["code"], document["type"]
    for word, short in SHORT.items():
        kind = kind.replace(word, short)
    balances = f"{document['gpa']['ledger_balance']:g} {document['gpa']['available_balance']:g}"
    return " | ".join(
        (
            f"{kind} {document['state']}{'' if code == '0000' else f' {code}'}",
            f"{unload}{order['state']} {order['amount']:g}" if order else "-",
            f"{'-' if impacted is None else f'{impacted:+g}' if impacted else '0'} {balances}",
            postings(platform, row.id),
        )
    )


def postings(platform: InProcessPlatform, row_id: int) -> str:
    """Return the legs of a journal entry, such as ``F-10 H+10``."""
    columns = [journal.c[account] for account in LETTERS.values()]
    with platform.database.read() as db:
        units_of_accounts = db.execute(select(*columns).where(journal.c.id == row_id)).one_or_none()
    if units_of_accounts is None:
        return "-"
    return " ".join(f"{letter}{units / 100:+g}" for letter, units in zip(LETTERS, units_of_accounts, strict=True) if units)


def rows_of(table: str) -> list[str]:
    """Return the rows of a table with single spaces and without comments after ``#``."""
    lines = [line.split("#")[0] for line in table.strip().splitlines()]
    return [" | ".join(re.sub(r"\s+", " ", cell.strip()) for cell in line.split("|")) for line in lines[1:] if "|" in line]
