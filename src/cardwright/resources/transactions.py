"""Transactions: what became of every message, one by one, in lists, and with what belongs together."""

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta
from sqlalchemy import Connection, SmallInteger, and_, literal, or_, select, union_all
from sqlalchemy.sql.elements import ColumnElement

from cardwright.core.movement_docs import account_face_of, render_account_side
from cardwright.core.problems import TRANSACTION_NOT_FOUND, Problem, bad_parameter
from cardwright.core.record import LOAD_SIDE, Recorded, id_and_face_of, token_of
from cardwright.core.render import LOAD_KINDS, Face, SourceFace, details_decoder, face_of, render, render_load, source_face_of
from cardwright.core.snapshot import CardFact, SourceFact, UserFact, fact_from
from cardwright.core.words import TYPE_NUMBER, State
from cardwright.kit.clock import DAY_MS, Instant, parse_instant
from cardwright.kit.page import Page
from cardwright.resources import base
from cardwright.resources.app import Call
from cardwright.resources.route import Paging, Shape, get
from cardwright.storage import history
from cardwright.storage.records import Listing
from cardwright.storage.tables import cards, funding_sources, message_tokens, transactions, users

# --- Shapes: what travels on the wire ------------------------------------------------

CARD_SIDE = 0
DEFAULT_WINDOW_DAYS = 30


class TransactionQuery(Shape, frozen=True, kw_only=True):
    """The filters of a list of transactions; dates are ``yyyy-MM-dd`` or date-times."""

    start_date: str | None = None
    end_date: str | None = None
    type: str | None = None
    user_token: str | None = None
    acting_user_token: str | None = None
    business_token: str | None = None
    card_token: str | None = None
    state: str | None = None
    polarity: str | None = None
    start_identifier: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    version: str | None = None
    verbose: str | None = None


# --- Rules: pure ---------------------------------------------------------------------

PAGING = Paging(count=10, count_max=100, sort_by="-user_transaction_time")

SORTS = {
    "user_transaction_time": "user_time_ms",
    "userTransactionTime": "user_time_ms",
    "created_time": "created_ms",
    "createdTime": "created_ms",
    "last_modified_time": "created_ms",
    "lastModifiedTime": "created_ms",
}


def parse_states(text: str | None, default: str) -> frozenset[int]:
    """The numbers of a comma list of states; ``ALL`` is every one. Raises a problem for an unknown name."""
    names = (text or default).split(",")
    if "ALL" in names:
        return frozenset(State)
    try:
        return frozenset(State[name.strip()] for name in names)
    except KeyError as error:
        legal = ", ".join(state.name for state in State)
        raise bad_parameter("state", f"must be of {legal} or ALL, not {error.args[0]}") from None


def parse_types(text: str | None) -> frozenset[int] | None:
    """The numbers of a comma list of types, None for all. Raises a problem for an unknown name."""
    if not text:
        return None
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in TYPE_NUMBER:
            raise bad_parameter("type", f"is not a transaction type: {name[:60]}")
    return frozenset(TYPE_NUMBER[name] for name in names)


def parse_window(query: TransactionQuery, now: Instant) -> tuple[Instant, Instant]:
    """First and last instant asked for, both inclusive: the last 30 days by default; a plain end date means its whole day."""
    start = _bound("start_date", query.start_date) if query.start_date else now - DEFAULT_WINDOW_DAYS * DAY_MS
    if not query.end_date:
        return start, now
    end = _bound("end_date", query.end_date)
    return start, end + DAY_MS - 1 if base.is_day(query.end_date) else end


def _bound(name: str, text: str) -> Instant:
    try:
        if not base.is_day(text[:10]) or text[10:11] not in ("", "T"):
            raise ValueError(text)
        return parse_instant(text)
    except ValueError:
        raise bad_parameter(name, "must be yyyy-MM-dd or yyyy-MM-ddTHH:mm:ss") from None


# --- Queries: this resource's SQL ----------------------------------------------------


def get_transaction(db: Connection, program_id: int, token: str) -> tuple[Recorded, int]:
    """The row and the side (0 the card's, 1 the load's) that a token names. Raises TRANSACTION_NOT_FOUND."""
    claimed = id_and_face_of(token)
    if claimed is not None:
        row_id, side = claimed
        row = _find_row(db, program_id, row_id)
        has_side = row is not None and (side == CARD_SIDE or (side == LOAD_SIDE and has_load_side(row)))
        if row is not None and has_side and token_of(row, side) == token:
            return row, side
    key = message_tokens.c
    chosen_id = db.scalar(select(key.transaction_id).where(key.program_id == program_id, key.token == token))
    row = _find_row(db, program_id, chosen_id) if chosen_id is not None else None
    if row is None:
        raise Problem(TRANSACTION_NOT_FOUND)
    return row, CARD_SIDE


def has_load_side(row: Recorded) -> bool:
    """Whether the row is two transactions on the wire; without a card the order is the transaction itself."""
    return row.moved != 0 and row.card_id is not None


def _find_row(db: Connection, program_id: int, row_id: int) -> Recorded | None:
    query = select(transactions).where(transactions.c.id == row_id, transactions.c.program_id == program_id)
    found = db.execute(query).one_or_none()
    return None if found is None else recorded(found)


def recorded(row: Any) -> Recorded:
    """A selected row of ``transactions`` as a value."""
    return Recorded(*row[: len(Recorded._fields)])


def list_sides(
    db: Connection, page: Page, card_side: ColumnElement[bool] | None, load_side: ColumnElement[bool] | None
) -> list[tuple[Recorded, int]]:
    """One more than a page of transactions: card sides that fulfil one condition, load sides that fulfil the other."""
    name = page.sort_by.removeprefix("-")
    if name not in SORTS:
        raise bad_parameter("sort_by", f"must be one of {', '.join(SORTS)}, not {name[:60]}")
    descending = page.sort_by.startswith("-")
    # Each side brings its own first rows in order, so the database never sorts more than what is asked for.
    enough = page.start_index + page.count + 1
    parts = []
    for side, condition in ((CARD_SIDE, card_side), (LOAD_SIDE, load_side)):
        if condition is None:
            continue
        keys = [transactions.c[SORTS[name]], transactions.c.id]
        order = [key.desc() if descending else key.asc() for key in keys]
        part = select(transactions, literal(side, SmallInteger).label("side")).where(condition)
        parts.append(select(part.order_by(*order).limit(enough).subquery()))
    both = union_all(*parts).subquery()
    both_keys: list[ColumnElement[Any]] = [both.c[column] for column in (SORTS[name], "id", "side")]
    order = [key.desc() if descending else key.asc() for key in both_keys]
    rows = db.execute(select(both).order_by(*order).offset(page.start_index).limit(page.count + 1)).all()
    return [(recorded(row), row.side) for row in rows]


def find_own_holder(db: Connection, program_id: int, user_token: str) -> int | None:
    """The account that the user owns; None for an unknown user and for one who uses a parent's account."""
    query = select(users.c.id, users.c.holder_id).where(users.c.program_id == program_id, users.c.token == user_token)
    row = db.execute(query).one_or_none()
    return row.holder_id if row is not None and owner_id_of(db, row.holder_id) == row.id else None


def owner_id_of(db: Connection, holder_id: int) -> int:
    """The user whose account it is: the first one; those who share it came later."""
    query = select(users.c.id).where(users.c.holder_id == holder_id).order_by(users.c.id).limit(1)
    return int(db.execute(query).scalar_one())


class Faces:
    """Renders rows as of their own day: the configuration that was in force when each was decided."""

    def __init__(self, db: Connection, program_id: int, *, masked: bool) -> None:
        self._db, self._program_id, self._masked = db, program_id, masked
        self._faces: dict[tuple[int, int], Face] = {}
        self._account_faces: dict[tuple[int, str, int], Face] = {}
        self._sources: dict[tuple[int, int], SourceFace] = {}

    def json(self, row: Recorded, side: int = CARD_SIDE, state: int | None = None) -> str:
        """One side of a row as JSON."""
        if row.card_id is None:
            return render_account_side(row, self.account_face(row), state)
        face, source = self.face(row), self.source(row)
        return render_load(row, face, source) if side == LOAD_SIDE else render(row, face, source, state)

    def face(self, row: Recorded) -> Face:
        """The card, its user and the owner of its account at the row's revision."""
        assert row.card_id is not None
        key = (row.card_id, row.holder_revision)
        if key not in self._faces:
            self._faces[key] = face_of(*facts_as_of(self._db, row))
        return self._faces[key]

    def account_face(self, row: Recorded) -> Face:
        """The user whom a row without a card names, and the owner of the account, at the row's revision."""
        token = details_decoder.decode(row.details).user_token
        assert token is not None
        key = (row.holder_id, token, row.holder_revision)
        if key not in self._account_faces:
            self._account_faces[key] = account_face_of(*people_as_of(self._db, row, token))
        return self._account_faces[key]

    def source(self, row: Recorded) -> SourceFace | None:
        """The funding source at the row's revision."""
        if row.source_id is None:
            return None
        key = (row.source_id, row.program_revision)
        if key not in self._sources:
            self._sources[key] = source_face_of(source_as_of(self._db, row), masked=self._masked)
        return self._sources[key]


def facts_as_of(db: Connection, row: Recorded) -> tuple[CardFact, UserFact, UserFact]:
    """Card, user and account owner as they were when the row was decided."""
    assert row.card_id is not None
    card = fact_from(
        CardFact, history.doc_as_of(db, row.program_id, history.Kind.CARD, row.card_id, row.holder_revision)
    )
    return (card, *people_as_of(db, row, card.user_token))


def people_as_of(db: Connection, row: Recorded, user_token: str) -> tuple[UserFact, UserFact]:
    """User and account owner as they were when the row was decided."""
    by_token = select(users.c.id).where(users.c.program_id == row.program_id, users.c.token == user_token)
    ids = (db.execute(by_token).scalar_one(), owner_id_of(db, row.holder_id))
    docs = [history.doc_as_of(db, row.program_id, history.Kind.USER, one, row.holder_revision) for one in ids]
    user, owner = (fact_from(UserFact, doc) for doc in docs)
    return user, owner


def source_as_of(db: Connection, row: Recorded) -> SourceFact:
    """The row's funding source as it was when the row was decided."""
    assert row.source_id is not None
    doc = history.doc_as_of(db, row.program_id, history.Kind.FUNDING_SOURCE, row.source_id, row.program_revision)
    fact: SourceFact = fact_from(SourceFact, doc)
    return fact


def render_first_states(db: Connection, program_id: int, row_ids: Sequence[int], *, masked: bool) -> list[str]:
    """Transactions as their notifications tell them: in the state that they were first in, in the order of the ids."""
    found = db.execute(select(transactions).where(transactions.c.id.in_(row_ids), transactions.c.program_id == program_id))
    rows = {row.id: recorded(row) for row in found}
    faces = Faces(db, program_id, masked=masked)
    return [faces.json(rows[row_id], state=rows[row_id].first_state) for row_id in row_ids]


# --- Actions: what one can do with it ------------------------------------------------


def get_one(call: Call) -> str:
    """Returns a transaction: the card's side or the load's."""
    row, side = get_transaction(call.db, call.program.id, call.token)
    return _faces(call).json(row, side)


def list_transactions(call: Call) -> Listing:
    """Lists transactions; without filters those of the last 30 days that are PENDING or COMPLETION."""
    owner = _owner_condition(call, call.query)
    return _list(call, owner, "PENDING,COMPLETION")


def list_related(call: Call) -> Listing:
    """Lists the other transactions of the chain that a transaction belongs to, its load among them."""
    row, side = get_transaction(call.db, call.program.id, call.token)
    root = row.root_id if row.root_id is not None else row.id
    chain = or_(transactions.c.id == root, transactions.c.root_id == root)
    itself = transactions.c.id != row.id
    card_side, load_side = _conditions(call, chain, "ALL", window=False)
    if card_side is not None and side == CARD_SIDE:
        card_side = and_(card_side, itself)
    if load_side is not None and side == LOAD_SIDE:
        load_side = and_(load_side, itself)
    return _page(call, card_side, load_side)


def list_of_source(call: Call) -> Listing:
    """Lists what was drawn from and returned to a funding source."""
    source = base.get_row(call, funding_sources, TRANSACTION_NOT_FOUND, call.path["funding_source_token"])
    polarity = call.query.polarity
    if polarity not in (None, "CREDIT", "DEBIT", "PENDING_CREDIT", "PENDING_DEBIT"):
        raise bad_parameter("polarity", "must be CREDIT, DEBIT, PENDING_CREDIT or PENDING_DEBIT")
    card_side, load_side = _conditions(call, transactions.c.source_id == source.id, "PENDING,COMPLETION")
    by_order: list[ColumnElement[bool]] = [transactions.c.card_id.is_(None)]
    if polarity is not None:
        direction = transactions.c.moved > 0 if polarity.endswith("CREDIT") else transactions.c.moved < 0
        by_order, load_side = [*by_order, direction], and_(load_side, direction) if load_side is not None else None
    return _page(call, and_(card_side, *by_order) if card_side is not None else None, load_side)


def _faces(call: Call) -> Faces:
    return Faces(call.db, call.program.id, masked=call.program.settings.mask_funding_source_tokens)


def _list(call: Call, condition: ColumnElement[bool], states: str) -> Listing:
    return _page(call, *_conditions(call, condition, states))


def _page(call: Call, card_side: ColumnElement[bool] | None, load_side: ColumnElement[bool] | None) -> Listing:
    if card_side is None and load_side is None:
        return Listing([], False)
    rows = list_sides(call.db, call.list_page, card_side, load_side)
    faces = _faces(call)
    return Listing([faces.json(row, side) for row, side in rows[: call.list_page.count]], len(rows) > call.list_page.count)


def _conditions(
    call: Call, condition: ColumnElement[bool], states: str, *, window: bool = True
) -> tuple[ColumnElement[bool] | None, ColumnElement[bool] | None]:
    """What the card's side and the load's side of a row must fulfil; None when no row of that side can."""
    query, row = call.query, transactions.c
    common = [row.program_id == call.program.id, condition]
    wanted = parse_states(query.state, states)
    if wanted != frozenset(State):
        common.append(row.state.in_(wanted))
    if window or query.start_date or query.end_date:
        start, end = parse_window(query, call.now)
        common += [row.user_time_ms >= start, row.user_time_ms <= end]
    types = parse_types(query.type)
    start = query.start_identifier if query.start_identifier is not None else 0
    # The load's side of a row has the identifier after the card's.
    has_load_side = and_(row.moved != 0, row.card_id.is_not(None))
    card_side, load_side = and_(row.id >= start, *common), and_(row.id + 1 >= start, has_load_side, *common)
    if types is None:
        return card_side, load_side
    loading = [kind for kind, load_kind in LOAD_KINDS.items() if load_kind in types]
    return and_(card_side, row.kind.in_(types)), and_(load_side, row.kind.in_(loading)) if loading else None


def _owner_condition(call: Call, query: TransactionQuery) -> ColumnElement[bool]:
    """Whose transactions; an unknown token has none."""
    found, program_id = list[ColumnElement[bool]](), call.program.id
    if query.user_token is not None:
        found.append(transactions.c.holder_id == (find_own_holder(call.db, program_id, query.user_token) or -1))
    if query.acting_user_token is not None:
        acting = select(cards.c.id).join(users, users.c.id == cards.c.user_id)
        acting = acting.where(users.c.program_id == program_id, users.c.token == query.acting_user_token)
        found.append(transactions.c.card_id.in_(acting.scalar_subquery()))
    if query.card_token is not None:
        card = call.db.execute(
            select(cards.c.id, cards.c.holder_id).where(cards.c.program_id == program_id, cards.c.token == query.card_token)
        ).one_or_none()
        holder_id, card_id = (card.holder_id, card.id) if card is not None else (-1, -1)
        # The account leads to its few transactions; a card has no index of its own.
        found += [transactions.c.holder_id == holder_id, transactions.c.card_id == card_id]
    if query.business_token is not None:
        found.append(transactions.c.id == -1)
    return and_(transactions.c.program_id == program_id, *found)


# --- Routes: parse, act, view --------------------------------------------------------

routes = [
    get("/transactions", list_transactions, dict[str, Any], query=TransactionQuery, paging=PAGING),
    get("/transactions/{token}", get_one, dict[str, Any]),
    get("/transactions/{token}/related", list_related, dict[str, Any], query=TransactionQuery, paging=PAGING),
    get(
        "/transactions/fundingsource/{funding_source_token}",
        list_of_source,
        dict[str, Any],
        query=TransactionQuery,
        paging=PAGING,
    ),
]
