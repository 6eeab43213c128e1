"""Lists of transactions: their filters, their orders, and the search for a page in a long list."""

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from msgspec import Meta
from sqlalchemy import Connection, SmallInteger, and_, column, false, literal, literal_column, select, union_all
from sqlalchemy.sql.elements import ColumnElement

from cardwright.core.enums import TYPE_NUMBER, State
from cardwright.core.movement_types import CARDLESS
from cardwright.core.problems import bad_parameter
from cardwright.core.transaction_row import CARD_SIDE, LOAD_SIDE, TransactionRow
from cardwright.core.transaction_types import LOAD_TYPES
from cardwright.kit.clock import DAY_MS, Instant, parse_instant
from cardwright.resources.common.call import Call
from cardwright.resources.common.fields import is_day
from cardwright.resources.common.route import Paging, Shape
from cardwright.storage.account_transactions import AccountTransactions
from cardwright.storage.tables import transactions
from cardwright.storage.transaction_lists.blocks import (
    HIGHEST,
    LOWEST,
    IndexPart,
    Key,
    ListOrder,
    Range,
    RowClass,
    account_parts,
    parts_of,
)

# --- Shapes: what travels on the wire ------------------------------------------------

DEFAULT_WINDOW_DAYS = 30


class ViewQuery(Shape, frozen=True, kw_only=True):
    """The form of transactions: ``version`` is the transaction model. The default is the program's model."""

    version: str | None = None
    verbose: bool | None = None


class RelatedQuery(ViewQuery, frozen=True, kw_only=True):
    """The query filters transactions. Dates are ``yyyy-MM-dd`` or date-times."""

    start_date: str | None = None
    end_date: str | None = None
    type: str | None = None
    state: str | None = None
    start_identifier: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None


class SourceQuery(RelatedQuery, frozen=True, kw_only=True):
    """The query filters the transactions of a funding source."""

    polarity: str | None = None


class TransactionQuery(RelatedQuery, frozen=True, kw_only=True):
    """The query filters a program's transactions."""

    user_token: str | None = None
    acting_user_token: str | None = None
    business_token: str | None = None
    account_token: str | None = None
    card_token: str | None = None
    merchant_token: str | None = None
    campaign_token: str | None = None


# --- Rules: pure ---------------------------------------------------------------------

PAGING = Paging(count=10, count_max=100, sort_by="-user_transaction_time")

SORTS = {
    "user_transaction_time": ListOrder.BEGUN,
    "userTransactionTime": ListOrder.BEGUN,
    "created_time": ListOrder.MADE,
    "createdTime": ListOrder.MADE,
    "last_modified_time": ListOrder.MADE,
    "lastModifiedTime": ListOrder.MADE,
}

DIRECTIONS = {"CREDIT": 1, "DEBIT": -1}
"""The sign of a load's amount for the account, by polarity. Pending polarities have no sign, because no load has them."""

POLARITIES = ("CREDIT", "DEBIT", "PENDING_CREDIT", "PENDING_DEBIT")


class ListEntry(NamedTuple):
    """An entry of a list: a side of a row, at a time."""

    time_ms: Instant
    id: int
    side: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """The sides of rows that a list has. None is no restriction.

    Without card sides, the list has the movements of a funding source's money: loads, and orders without a card. ``direction``
    is the sign of these movements.
    """

    states: frozenset[int] | None = None
    types: frozenset[int] | None = None
    source_id: int | None = None
    direction: int | None = None
    has_card_sides: bool = True

    def weight(self, row: RowClass) -> int:
        """Return the number of entries of such a row in the list."""
        if self.states is not None and row.state not in self.states:
            return 0
        if self.source_id is not None and row.source_id != self.source_id:
            return 0
        moves = row.direction != 0 and self.direction in (None, row.direction)
        is_own = self.has_card_sides or (row.type_id in CARDLESS and (moves or self.direction is None))
        is_load = moves and row.type_id not in CARDLESS
        if self.types is not None:
            is_own, is_load = is_own and row.type_id in self.types, is_load and LOAD_TYPES.get(row.type_id) in self.types
        return is_own + is_load

    def sides(self, start_id: int = 0) -> list[tuple[int, ColumnElement[bool]]]:
        """Return the sides of the list, each with the condition on its row.

        The id of a load's side is that of the card's side plus 1.
        """
        row, common = transactions.c, list[ColumnElement[bool]]()
        if self.states is not None:
            common.append(row.state.in_(self.states))
        if self.source_id is not None:
            common.append(row.source_id == self.source_id)
        moved = row.moved != 0
        if self.direction is not None:
            moved = row.moved > 0 if self.direction > 0 else row.moved < 0 if self.direction < 0 else false()
        conditions: list[ColumnElement[bool]] = [row.type_id.in_(self.types)] if self.types is not None else []
        if not self.has_card_sides:
            conditions += [row.type_id.in_(CARDLESS), moved] if self.direction is not None else [row.type_id.in_(CARDLESS)]
        sides = [(CARD_SIDE, and_(row.id >= start_id, *common, *conditions))]
        loading = [type_id for type_id, load in LOAD_TYPES.items() if self.types is None or load in self.types]
        if self.types is None or loading:
            conditions = [row.type_id.in_(loading)] if self.types is not None else []
            sides.append((LOAD_SIDE, and_(row.id >= start_id - 1, moved, row.type_id.not_in(CARDLESS), *common, *conditions)))
        return sides


def parse_wanted(query: RelatedQuery, default_states: str, **filters: Any) -> Wanted:
    """Return the sides that a query requests, of ``default_states`` by default. Raises a problem that names the parameter."""
    states = parse_states(query.state, default_states)
    return Wanted(None if states == frozenset(State) else states, parse_types(query.type), **filters)


def parse_direction(polarity: str | None) -> int | None:
    """Return the sign of a polarity, 0 for a pending one, None without a polarity. Raises a problem for an unknown name."""
    if not polarity:
        return None
    if polarity not in POLARITIES:
        raise bad_parameter("polarity", f"must be one of {', '.join(POLARITIES)}")
    return DIRECTIONS.get(polarity, 0)


def parse_states(given: str | None, default: str) -> frozenset[int]:
    """Return the numbers of a comma-separated list of states. ``ALL`` means all. Raises a problem for an unknown name."""
    names = [name.strip() for name in (given or default).split(",")]
    if "ALL" in names:
        names = [name for name in names if name != "ALL"] + [state.name for state in State]
    try:
        return frozenset(State[name] for name in names)
    except KeyError as error:
        legal = ", ".join(state.name for state in State)
        raise bad_parameter("state", f"must be a list of {legal} or ALL, not {str(error.args[0])[:60]}") from None


def parse_types(given: str | None) -> frozenset[int] | None:
    """Return the numbers of a comma-separated list of types, None for all. Raises a problem for an unknown name."""
    if not given:
        return None
    names = [name.strip() for name in given.split(",")]
    for name in names:
        if name not in TYPE_NUMBER:
            raise bad_parameter("type", f"is not a transaction type: {name[:60]}")
    return frozenset(TYPE_NUMBER[name] for name in names)


def parse_window(query: RelatedQuery, now: Instant) -> tuple[Instant, Instant | None]:
    """Return the first and the last instant of the requested window, both inclusive. An end date includes its whole day.

    By default, the window begins 30 days ago and has no end. The clock of another host can be ahead. With an end at the present
    time, the list would omit new entries that another process already shows.
    """
    start = _bound("start_date", query.start_date) if query.start_date else now - DEFAULT_WINDOW_DAYS * DAY_MS
    if not query.end_date:
        return start, None
    end = _bound("end_date", query.end_date)
    return start, end + DAY_MS - 1 if is_day(query.end_date) else end


def _bound(name: str, given: str) -> Instant:
    try:
        if not is_day(given[:10]) or given[10:11] not in ("", "T"):
            raise ValueError(given)
        return parse_instant(given)
    except ValueError:
        raise bad_parameter(name, "must be yyyy-MM-dd or yyyy-MM-ddTHH:mm:ss") from None


def parse_order(sort_by: str) -> tuple[ListOrder, bool]:
    """Return the order of a list, and True if the newest entry comes first. Raises a problem for an unknown name."""
    name = sort_by.removeprefix("-")
    if name not in SORTS:
        raise bad_parameter("sort_by", f"must be one of {', '.join(SORTS)}, not {name[:60]}")
    return SORTS[name], sort_by.startswith("-")


def places_of(query: RelatedQuery, now: Instant, *, window: bool) -> Range:
    """Return the part of a list in the window. If ``window`` is False, the default is the whole list."""
    if not window and not query.start_date and not query.end_date:
        return Range(LOWEST, HIGHEST)
    start, end = parse_window(query, now)
    return Range((start, 0), HIGHEST if end is None else (end + 1, 0))


# --- Queries: this resource's SQL ----------------------------------------------------

NEAR = 256
"""Maximum offset of a page that is searched at the list's end, without counts."""

NEAR_ROWS = 1024
"""Rows at the list's end that this search covers."""


@dataclass(frozen=True, slots=True)
class Search:
    """A query for a part of a list: the transactions of a program, or those of accounts if ``by_account`` is set.

    ``only`` is a further condition that few rows meet.
    """

    program_id: int
    order: ListOrder
    descending: bool
    sides: list[tuple[int, ColumnElement[bool]]]
    by_account: AccountTransactions | None = None
    only: ColumnElement[bool] | None = None

    def parts(self) -> list[IndexPart]:
        """Return the indexes for the search; see ``blocks.parts_of``. With ``only``, any index is suitable."""
        only = [] if self.only is None else [self.only]
        if self.by_account is not None:
            # Accounts belong to one program. A condition on it makes SQLite choose the index of all rows of the program.
            return [part._replace(conditions=[*part.conditions, *only]) for part in account_parts(self.by_account, self.order)]
        only.append(transactions.c.program_id == self.program_id)
        if self.only is not None:
            return [IndexPart(transactions.c[self.order.value], transactions.c.id, only)]
        return [part._replace(conditions=[*part.conditions, *only]) for part in parts_of(self.order)]

    def read(self, db: Connection, places: Range, skip: int, take: int) -> list[ListEntry]:
        """Return at most ``take`` entries of a part of the list, after the first ``skip``."""
        is_of_no_account = self.by_account is not None and not self.by_account.holder_ids
        if places.low >= places.high or not self.sides or is_of_no_account:
            return []
        # Each part returns its first rows in order, so the database sorts at most the requested number of rows for each.
        read = [
            self._ordered(
                select(part.time_ms.label("time_ms"), part.id.label("id"), literal(side, SmallInteger).label("side"))
                .where(condition, *part.conditions, *part.within(places)),
                part.time_ms, part.id,
            ).limit(skip + take).subquery()
            for part in self.parts()
            for side, condition in self.sides
        ]  # fmt: skip
        # An asterisk: SQLAlchemy needs as long to derive the names of the columns again as for the rest of the query.
        everything: ColumnElement[Any] = literal_column("*")
        merged = union_all(*(select(everything).select_from(part) for part in read)).subquery()
        query = self._ordered(select(everything).select_from(merged), *(column(name) for name in ListEntry._fields))
        return [ListEntry(*row) for row in db.execute(query.offset(skip).limit(take))]

    def near(self, db: Connection, places: Range) -> Range | None:
        """Return a part at the list's end that has at least NEAR_ROWS rows, None if the whole list has no more."""
        keys = list[Key]()
        for part in self.parts():
            query = select(part.time_ms, part.id).where(*part.conditions, *part.within(places))
            query = self._ordered(query, part.time_ms, part.id)
            if (row := db.execute(query.offset(NEAR_ROWS).limit(1)).one_or_none()) is not None:
                keys.append((row[0], row[1]))
        if not keys:
            return None
        return Range(max(keys), places.high) if self.descending else Range(places.low, min(keys))

    def _ordered(self, query: Any, *keys: ColumnElement[Any]) -> Any:
        return query.order_by(*(key.desc() if self.descending else key.asc() for key in keys))


@dataclass(frozen=True, slots=True)
class Listed:
    """A requested list: its query, its sides and its part. If ``is_countable``, ``ListPositions`` can find positions in it."""

    search: Search
    wanted: Wanted
    places: Range
    is_countable: bool = False


def find_page(call: Call, listed: Listed) -> tuple[list[ListEntry], bool]:
    """Return the requested page, and True if more entries follow.

    The page begins behind the previous page of the same connection, otherwise at its plain offset; see ``kit.bookmarks``. A
    bookmark keeps the window of its list, because the default window begins later for each page.
    """
    page, descending = call.list_page, listed.search.descending
    start, low = page.start(), listed.places.low
    if start.after is None:
        entries = _from(call, listed, listed.places, page.start_index, page.count + 1)
    else:
        *last, low = start.after
        entries = _after(call, listed, Range(low, listed.places.high), ListEntry(*last), page.count + 1)
    shown, is_more = entries[: page.count], len(entries) > page.count
    page.end(start, [(*entry, low) for entry in shown], is_more=is_more, descending=descending)
    return shown, is_more


def _after(call: Call, listed: Listed, places: Range, last: ListEntry, take: int) -> list[ListEntry]:
    """Return the entries behind an entry. The search includes its row, whose other side can follow."""
    descending = listed.search.descending
    if descending:
        places = Range(places.low, min(places.high, (last.time_ms, last.id + 1)))
    else:
        places = Range(max(places.low, (last.time_ms, last.id)), places.high)
    entries = _from(call, listed, places, 0, take + 2)
    return [entry for entry in entries if (entry < last if descending else entry > last)][:take]


def _from(call: Call, listed: Listed, places: Range, skip: int, take: int) -> list[ListEntry]:
    search = listed.search
    if places.low >= places.high:
        # The window ends before it begins.
        return []
    if not listed.is_countable:
        return search.read(call.db, places, skip, take)
    if skip <= NEAR:
        near = search.near(call.db, places)
        entries = search.read(call.db, near or places, skip, take)
        if near is None or len(entries) == take:
            return entries
    position = call.app.list_positions.find(
        call.db, search.program_id, search.order, listed.wanted, listed.wanted.weight, places,
        skip=skip, take=take, descending=search.descending,
    )  # fmt: skip
    if position is None:
        return search.read(call.db, places, skip, take)
    entries, offset = list[ListEntry](), position.skip
    for part in position.ranges:
        entries += search.read(call.db, part, offset, take - len(entries))
        offset = 0
        if len(entries) == take:
            return entries
    if position.is_full:
        # The counts are from a later database transaction. Newer entries are not visible here, so the page continues behind its
        # ranges.
        last = position.ranges[-1]
        rest = Range(places.low, last.low) if search.descending else Range(last.high, places.high)
        entries += search.read(call.db, rest, 0, take - len(entries))
    return entries


def load_rows(db: Connection, entries: list[ListEntry]) -> dict[int, TransactionRow]:
    """Return the rows of a page by id."""
    rows = db.execute(select(transactions).where(transactions.c.id.in_({entry.id for entry in entries})))
    return {row.id: TransactionRow.from_row(row) for row in rows}
