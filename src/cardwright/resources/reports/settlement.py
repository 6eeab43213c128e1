"""Settlement report: the amounts that a day drew, returned, captured and held by funding source, tied to the journal."""

from typing import Any

import msgspec
from sqlalchemy import select

from cardwright.core.enums import TYPES
from cardwright.core.money import decimal_text, exponent_of
from cardwright.core.movement_types import GPA_CREDIT, GPA_DEBIT, PROGRAM
from cardwright.core.problems import bad_parameter
from cardwright.core.render import details_decoder
from cardwright.core.transaction_row import ORDER, TransactionRow, root_token, token_of, with_kind
from cardwright.kit.bookmarks import Position
from cardwright.kit.clock import DAY_MS, Instant, iso, iso_day, parse_instant
from cardwright.ledger.settlement import LINES, Balances, Day, lines_of
from cardwright.resources.common.call import Call
from cardwright.resources.common.fields import is_day
from cardwright.resources.common.route import Paging, Scope, Shape, get
from cardwright.storage.records import Listing, text_of
from cardwright.storage.tables import JOURNAL_ACCOUNTS, funding_sources, transactions
from cardwright.storage.transaction_lists.blocks import Range

# --- Shapes: what travels on the wire ------------------------------------------------


class DayQuery(Shape, frozen=True, kw_only=True):
    """``date`` is a UTC day of the program's clock, ``yyyy-MM-dd``. The default is today."""

    date: str | None = None


class LinesQuery(DayQuery, frozen=True, kw_only=True):
    """The query selects the lines of a day: all of them, or those of one funding source."""

    funding_source_token: str | None = None


# --- Rules: pure ---------------------------------------------------------------------

PAGING = Paging(count=100, count_max=100, sort_by="created_time")


SHOWN_AS = {"program_funding": "net_drawn", "held": "on_hold", "settlement": "settled"}
"""The report's names for accounts of the chart. The other accounts keep their names."""

SIGN_OF = {
    "jit_load": 1, "jit_load_reversal": -1, "capture": 0, "refund_unload": -1, "refund_kept": 0, "gpa_load": 1,
    "gpa_unload": -1, "program_transfer": -1,
}  # fmt: skip
"""The sign of each line in the amount that is drawn from the funding source; 0 means no effect."""


def parse_day(given: str | None, now: Instant) -> Instant:
    """Return the first instant of a day, today by default. Raises a problem for a malformed day and for a future one."""
    today = now - now % DAY_MS
    if not given:
        return today
    try:
        if not is_day(given):
            raise ValueError(given)
        start = parse_instant(given)
    except ValueError:
        raise bad_parameter("date", "must be a date, yyyy-MM-dd") from None
    if start > today:
        raise bad_parameter("date", f"must not be after the program's current day, {iso_day(now)}")
    return start


def balances_json(balances: Balances, places: int) -> str:
    """Return the JSON of the balances of a funding source.

    ``net_drawn`` is the amount drawn from the source and not returned. The other balances show where that money is.
    """
    shown = (
        f'"{SHOWN_AS.get(account, account)}":{decimal_text(-amount if account == "program_funding" else amount, places)}'
        for account, amount in zip(JOURNAL_ACCOUNTS, balances, strict=True)
    )
    return "{" + ",".join(shown) + "}"


def quoted(token: str | None) -> str:
    """Return a token as JSON."""
    return msgspec.json.encode(token).decode()


def day_json(token: str | None, currency: str, day: Day) -> str:
    """Return the JSON of a funding source's day."""
    places = exponent_of(currency) or 0
    lines = ",".join(f'"{name}":{decimal_text(getattr(day.moved, name), places)}' for name in LINES)
    return (
        f'{{"funding_source_token":{quoted(token)},"currency_code":"{currency}",'
        f'"opening":{balances_json(day.opening, places)},{lines},'
        f'"entries":{day.moved.entries},"closing":{balances_json(day.closing, places)}}}'
    )


class _Order(msgspec.Struct):
    token: str = ""
    original_order_token: str = ""


class _Shown(msgspec.Struct):
    gpa_order: _Order | None = None
    gpa_order_unload: _Order | None = None


def order_token(row: TransactionRow) -> str | None:
    """Return the token of the order that a row belongs to, None for a program transfer.

    GPA orders and unloads have it in their documents. For other rows, it is derived from the root of the chain.
    """
    if row.type_id not in (GPA_CREDIT, GPA_DEBIT, PROGRAM):
        return with_kind(token_of(row) if row.root_id is None else root_token(row), ORDER)
    shown = msgspec.json.decode(f"{{{details_decoder.decode(row.details).movement}}}", type=_Shown)
    if shown.gpa_order is not None:
        return shown.gpa_order.token
    return None if shown.gpa_order_unload is None else shown.gpa_order_unload.original_order_token


# --- Queries: this resource's SQL ----------------------------------------------------


def tokens_of_sources(call: Call) -> dict[int | None, str | None]:
    """Return the tokens of the program's funding sources by id, and None for the id None."""
    rows = call.db.execute(
        select(funding_sources.c.id, funding_sources.c.token).where(funding_sources.c.program_id == call.program.id)
    )
    return {None: None} | {row.id: row.token for row in rows}


# --- Actions: what a caller can do with it -------------------------------------------


def get_report(call: Call) -> str:
    """Return the settlement report of a day: balances and amounts by funding source, and a check of both."""
    start = parse_day(call.query.date, call.now)
    tokens = tokens_of_sources(call)
    days = call.app.closings.day(call.db, call.program.id, start, call.now)
    ordered = sorted(days.items(), key=lambda item: (tokens[item[0][0]] or "", item[0][1]))
    shown = ",".join(day_json(tokens[source_id], currency, day) for (source_id, currency), day in ordered)
    wrong = [
        {"funding_source_token": tokens[source_id], "currency_code": currency, "account": name, "minor_units": difference}
        for (source_id, currency), day in ordered for name, difference in day.differences().items()
    ]  # fmt: skip
    check = text_of({"ties": not wrong, "differences": wrong})
    is_over = "true" if call.now >= start + DAY_MS else "false"
    return f'{{"date":"{iso_day(start)}","is_over":{is_over},"sources":[{shown}],"check":{check}}}'


def list_lines(call: Call) -> Listing:
    """List the lines of a day in the order of booking, each with the running total of its funding source."""
    start, wanted, page = parse_day(call.query.date, call.now), call.query.funding_source_token, call.list_page
    if page.sort_by not in ("created_time", "createdTime"):
        raise bad_parameter("sort_by", "must be created_time")
    tokens = tokens_of_sources(call)
    days = call.app.closings.day(call.db, call.program.id, start, call.now)
    drawn = {place: -day.opening[JOURNAL_ACCOUNTS.index("program_funding")] for place, day in days.items()}
    columns = [column for column in transactions.c if column.name != "id"]
    page_start = page.start()
    skip = page.start_index if page_start.after is None else 0
    lines: list[tuple[Position, str]] = []
    for row in lines_of(call.db, call.program.id, Range((start, 0), (start + DAY_MS, 0)), *columns):
        place = row.source_id, row.currency
        for number, name in enumerate(LINES):
            amount = getattr(row, name)
            if not amount:
                continue
            drawn[place] = drawn.get(place, 0) + SIGN_OF[name] * amount
            if wanted is not None and tokens[row.source_id] != wanted:
                continue
            position = (row.created_ms, row.id, number)
            if page_start.after is not None and position <= page_start.after:
                continue
            if skip:
                skip -= 1
            elif len(lines) <= page.count:
                lines.append((position, _line(row, name, amount, tokens[row.source_id], drawn[place])))
        if len(lines) > page.count:
            break
    shown, is_more = lines[: page.count], len(lines) > page.count
    page.end(page_start, [position for position, _ in shown], is_more=is_more, descending=False)
    return Listing([line for _, line in shown], is_more)


def _line(row: Any, name: str, amount: int, source: str | None, drawn: int) -> str:
    recorded = TransactionRow(*(getattr(row, field) for field in TransactionRow._fields))
    places = exponent_of(row.currency) or 0
    order = quoted(order_token(recorded))
    return (
        f'{{"date":"{iso_day(row.created_ms)}","created_time":"{iso(row.created_ms)}","transaction_token":"{token_of(recorded)}",'
        f'"type":"{TYPES[row.type_id]}","gpa_order_token":{order},'
        f'"funding_source_token":{quoted(source)},'
        f'"kind":"{name.upper()}","amount":{decimal_text(amount, places)},"currency_code":"{row.currency}",'
        f'"net_drawn":{decimal_text(drawn, places)}}}'
    )


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Settlement"

routes = [
    get("/reports/settlement", get_report, dict[str, Any], query=DayQuery, scope=Scope.SANDBOX),
    get("/reports/settlement/lines", list_lines, dict[str, Any], query=LinesQuery, paging=PAGING, scope=Scope.SANDBOX),
]
