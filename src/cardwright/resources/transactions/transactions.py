"""Transactions: single transactions, their lists, and the transactions related to one."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, and_, or_, select
from sqlalchemy.sql.elements import ColumnElement

from cardwright.core.problems import TRANSACTION_NOT_FOUND, Problem, bad_parameter
from cardwright.core.render import (
    details_decoder,
)
from cardwright.core.transaction_model import MODELS, as_v2
from cardwright.core.transaction_row import CARD_SIDE, LOAD_SIDE, TransactionRow, id_and_kind_of, token_of
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.route import get
from cardwright.resources.transactions.as_of import TransactionRenderer, has_load_side, owner_id_of
from cardwright.resources.transactions.listing import (
    PAGING,
    Listed,
    RelatedQuery,
    Search,
    SourceQuery,
    TransactionQuery,
    ViewQuery,
    Wanted,
    find_page,
    load_rows,
    parse_direction,
    parse_order,
    parse_wanted,
    places_of,
)
from cardwright.storage.account_transactions import AccountTransactions, find_own
from cardwright.storage.records import Listing
from cardwright.storage.tables import cards, funding_sources, message_tokens, transactions, users

# --- Queries: this resource's SQL ----------------------------------------------------


def get_transaction(db: Connection, program_id: int, token: str) -> tuple[TransactionRow, int]:
    """Return the row and the side (0: card, 1: load) of a token.

    Raises TRANSACTION_NOT_FOUND if the program has no such token.
    """
    claimed = id_and_kind_of(token)
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


def _find_row(db: Connection, program_id: int, row_id: int) -> TransactionRow | None:
    query = select(transactions).where(transactions.c.id == row_id, transactions.c.program_id == program_id)
    row = db.execute(query).one_or_none()
    return None if row is None else TransactionRow.from_row(row)


def find_own_holder(db: Connection, program_id: int, user_token: str) -> int | None:
    """Return the account that a user owns, None for an unknown user and for one who uses a parent's account."""
    query = select(users.c.id, users.c.holder_id).where(users.c.program_id == program_id, users.c.token == user_token)
    row = db.execute(query).one_or_none()
    return row.holder_id if row is not None and owner_id_of(db, row.holder_id) == row.id else None


# --- Actions: what a caller can do with it -------------------------------------------


def get_one(call: Call) -> str:
    """Return a transaction. A JIT load is a transaction too."""
    row, side = get_transaction(call.db, call.program.id, call.token)
    return _shown(call)(row, side)


def list_transactions(call: Call) -> Listing:
    """List transactions. Without filters, these are the PENDING and COMPLETION transactions of the last 30 days."""
    by_account, only = _owned(call, call.query)
    return _page(call, parse_wanted(call.query, "PENDING,COMPLETION"), by_account=by_account, only=only)


def list_related(call: Call) -> Listing:
    """List the other transactions in the chain of a transaction, including its load and its real-time fee."""
    row, side = get_transaction(call.db, call.program.id, call.token)
    root = row.root_id if row.root_id is not None else row.id
    roots = [root] if (fee := details_decoder.decode(row.details).assessed) is None else [root, fee.row_id]
    chain = or_(transactions.c.id.in_(roots), transactions.c.root_id.in_(roots))
    return _page(call, parse_wanted(call.query, "ALL"), only=chain, but=(row.id, side), window=False)


def list_of_source(call: Call) -> Listing:
    """List the transactions of a funding source: money drawn from it and returned to it."""
    source = crud.get_row(call, funding_sources, TRANSACTION_NOT_FOUND, call.path["funding_source_token"])
    direction = parse_direction(call.query.polarity)
    wanted = parse_wanted(call.query, "PENDING,COMPLETION", source_id=source.id, direction=direction, has_card_sides=False)
    return _page(call, wanted)


def _page(
    call: Call, wanted: Wanted, *, by_account: AccountTransactions | None = None, only: ColumnElement[bool] | None = None,
    but: tuple[int, int] | None = None, window: bool = True,
) -> Listing:  # fmt: skip
    query = call.query
    order, descending = parse_order(call.list_page.sort_by)
    show = _shown(call)
    sides = wanted.sides(query.start_identifier or 0)
    if but is not None:
        sides = [
            (side, and_(condition, transactions.c.id != but[0]) if side == but[1] else condition) for side, condition in sides
        ]
    listed = Listed(
        Search(call.program.id, order, descending, sides, by_account, only),
        wanted,
        places_of(query, call.now, window=window),
        is_countable=by_account is None and only is None and not query.start_identifier,
    )
    entries, is_more = find_page(call, listed)
    rows = load_rows(call.db, entries)
    return Listing([show(rows[entry.id], entry.side) for entry in entries], is_more)


def _shown(call: Call) -> Callable[[TransactionRow, int], str]:
    """Return a function that renders a transaction in the requested model, by default in the program's model."""
    model = (call.query.version or call.program.settings.transaction_model).lower()
    if model not in MODELS:
        raise bad_parameter("version", f"must be one of {', '.join(MODELS)}")
    renderer = TransactionRenderer(call.db, call.program.id, masked=call.program.settings.mask_funding_source_tokens)
    if model == "v1":
        return renderer.json
    return lambda row, side: as_v2(renderer.json(row, side), details_decoder.decode(row.details))


def _owned(call: Call, query: TransactionQuery) -> tuple[AccountTransactions | None, ColumnElement[bool] | None]:
    """Return the accounts of the filters, and the condition on their rows. Both are None without filters.

    The list is empty for an unknown token.
    """
    accounts, only, program_id = list[set[int]](), list[ColumnElement[bool]](), call.program.id
    if query.user_token is not None:
        holder_id = find_own_holder(call.db, program_id, query.user_token)
        accounts.append(set() if holder_id is None else {holder_id})
    some = select(cards.c.id, cards.c.holder_id)
    # Accounts have lists of their transactions, and cards have none. A card's transactions are found in its account's.
    if query.acting_user_token is not None:
        user_cards = some.join(users, users.c.id == cards.c.user_id)
        rows = call.db.execute(user_cards.where(users.c.program_id == program_id, users.c.token == query.acting_user_token)).all()
        accounts.append({row.holder_id for row in rows})
        only.append(transactions.c.card_id.in_([row.id for row in rows]))
    if query.card_token is not None:
        rows = call.db.execute(some.where(cards.c.program_id == program_id, cards.c.token == query.card_token)).all()
        accounts.append({row.holder_id for row in rows})
        only.append(transactions.c.card_id.in_([row.id for row in rows]))
    # Cardwright has no objects of these kinds, so the list is empty.
    unknown_owners = (query.business_token, query.account_token, query.merchant_token, query.campaign_token)
    if any(token is not None for token in unknown_owners):
        accounts.append(set())
    if not accounts:
        return None, None
    return find_own(call.db, set.intersection(*accounts)), and_(*only) if only else None


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Transactions"

routes = [
    get("/transactions", list_transactions, dict[str, Any], query=TransactionQuery, paging=PAGING),
    get("/transactions/{token}", get_one, dict[str, Any], query=ViewQuery),
    get("/transactions/{token}/related", list_related, dict[str, Any], query=RelatedQuery, paging=PAGING),
    get(
        "/transactions/fundingsource/{funding_source_token}",
        list_of_source,
        dict[str, Any],
        query=SourceQuery,
        paging=PAGING,
    ),
]
