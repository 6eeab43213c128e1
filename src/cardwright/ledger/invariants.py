"""What is always true of the books: each promise is one query or one walk over the rows, run by tests, storms and ``verify``.

An invariant only reads. It yields what contradicts it and nothing else, so on sound books it yields nothing. Every walk is
streamed, so the memory that it takes does not grow with the database.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from heapq import merge
from itertools import groupby
from operator import add, itemgetter
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, Table, and_, case, func, or_, select

from cardwright.core.snapshot import Account
from cardwright.core.words import State
from cardwright.kit.masks import mask
from cardwright.ledger.card_numbers import card_numbers_in_clear
from cardwright.outbox.events import Category
from cardwright.storage.database import Database, Row
from cardwright.storage.history import Kind
from cardwright.storage.tables import (
    JOURNAL_ACCOUNTS,
    card_products,
    card_transitions,
    cards,
    config_history,
    funding_sources,
    holders,
    journal,
    message_tokens,
    metadata,
    outbox,
    programs,
    transactions,
    user_transitions,
    users,
    webhooks,
)

SHOWN_MAX = 20
"""Violations of one invariant that a report shows; the others are only counted."""

CHUNK = 1_000
"""Rows in memory at a time."""

Break = tuple[str, object, object]
"""A row that contradicts an invariant: where it is, what was expected there, what was found."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A contradiction, as a report shows it."""

    name: str
    where: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one invariant: how many rows it looked at, how many contradict it, and the first twenty of those."""

    name: str
    promise: str
    says: str
    examined: int
    broken: int
    violations: tuple[Violation, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What became of all of them."""

    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing contradicts anything."""
        return not any(finding.broken for finding in self.findings)

    @property
    def violations(self) -> list[Violation]:
        """All that are shown."""
        return [violation for finding in self.findings for violation in finding.violations]


@dataclass(frozen=True, slots=True)
class Invariant:
    """A row of the list: the promise that it is a part of, the check, and the tables whose rows the check looks at."""

    promise: str
    check: Callable[[Connection], Iterator[Break]]
    tables: tuple[Table, ...]

    @property
    def name(self) -> str:
        """The function's name."""
        return self.check.__name__

    @property
    def says(self) -> str:
        """What is always true, in a sentence."""
        return (self.check.__doc__ or "").splitlines()[0]


def verify(database: Database, *, secrets: bool = False) -> Report:
    """Checks everything on one consistent view of a database that may be in use; ``secrets`` also looks for card numbers."""
    return Report(tuple(findings(database, secrets=secrets)))


def findings(database: Database, *, secrets: bool = False) -> Iterator[Finding]:
    """The same, one by one, for those who want to see it go on."""
    with database.read() as db:
        if not database.is_sqlite:
            # One snapshot for all queries: a commit between two of them would look like a contradiction.
            db.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield from check(db, secrets=secrets)


def check(db: Connection, *, secrets: bool = False) -> Iterator[Finding]:
    """What a transaction sees, which should be the same for all its queries."""
    counts = {table: db.scalar(select(func.count()).select_from(table)) or 0 for table in metadata.sorted_tables}
    for invariant in (*INVARIANTS, *(SECRETS if secrets else ())):
        yield _finding(db, invariant, counts)


def _finding(db: Connection, invariant: Invariant, counts: Mapping[Table, int]) -> Finding:
    broken, shown = 0, list[Violation]()
    for where, expected, found in invariant.check(db):
        broken += 1
        if broken <= SHOWN_MAX:
            shown.append(Violation(invariant.name, where, str(expected), str(found)))
    examined = sum(counts[table] for table in invariant.tables)
    return Finding(invariant.name, invariant.promise, invariant.says, examined, broken, tuple(shown))


def _stream(db: Connection, query: Select[Any]) -> Iterator[Row]:
    """The rows of a query, a chunk in memory at a time."""
    yield from db.execute(query, execution_options={"yield_per": CHUNK})


# --- The books balance --------------------------------------------------------------------

_ENTRY_SUM: ColumnElement[int] = reduce(add, (journal.c[account] for account in JOURNAL_ACCOUNTS))


def entries_sum_to_zero(db: Connection) -> Iterator[Break]:
    """Every journal entry sums to zero."""
    for row in _stream(db, select(journal.c.id, _ENTRY_SUM.label("total")).where(_ENTRY_SUM != 0)):
        yield f"journal {row.id}", 0, row.total


def ledger_sums_to_zero(db: Connection) -> Iterator[Break]:
    """The ledger of every program sums to zero in every currency."""
    total = func.sum(_ENTRY_SUM)
    query = select(journal.c.program_id, journal.c.currency, total.label("total"))
    for row in _stream(db, query.group_by(journal.c.program_id, journal.c.currency).having(total != 0)):
        yield f"program {row.program_id}, {row.currency}", 0, row.total


def balances_are_sums_of_entries(db: Connection) -> Iterator[Break]:
    """Every stored balance is the sum of its account's journal entries: available and held, and held alone."""
    total = journal.c.available + journal.c.held
    for holder_id, account, sums in _accounts(db, journal, func.sum(total), func.sum(journal.c.held)):
        for currency in sorted(account.balances.keys() | sums.keys()):
            stored, summed = account.money(currency), sums.get(currency, (0, 0))
            if stored != summed:
                yield f"holder {holder_id}, {currency} (ledger, held)", summed, stored


def held_is_open_holds(db: Connection) -> Iterator[Break]:
    """What is on hold on an account is what its transactions still hold."""
    for holder_id, account, sums in _accounts(db, transactions, func.sum(transactions.c.hold_left)):
        for currency in sorted(account.balances.keys() | sums.keys()):
            stored, (open_holds,) = account.money(currency)[1], sums.get(currency, (0,))
            if stored != open_holds:
                yield f"holder {holder_id}, {currency} (held)", open_holds, stored


_decode_account = msgspec.msgpack.Decoder(Account).decode


def _accounts(
    db: Connection, table: Table, *sums: ColumnElement[Any]
) -> Iterator[tuple[int, Account, dict[str, tuple[int, ...]]]]:
    """Every holder with its stored account and with sums over the table's rows by currency; in step, so that none is kept."""
    states = select(holders.c.id, holders.c.state).order_by(holders.c.id)
    summed = select(table.c.holder_id, table.c.currency, *sums).group_by(table.c.holder_id, table.c.currency)
    streams = (_stream(db, states), _stream(db, summed.order_by(table.c.holder_id)))
    for holder_id, rows in groupby(merge(*streams, key=itemgetter(0)), key=itemgetter(0)):
        account, by_currency = Account(), dict[str, tuple[int, ...]]()
        for _, first, *rest in rows:
            if rest:
                by_currency[first] = tuple(map(int, rest))
            else:
                account = _decode_account(bytes(first))
        yield holder_id, account, by_currency


def approved_has_one_entry(db: Connection) -> Iterator[Break]:
    """Every approved transaction with an amount has its journal entry, every other transaction has none."""
    moved_money = and_(transactions.c.impacted.is_not(None), transactions.c.amount != 0)
    has_entry = journal.c.id.is_not(None)
    query = select(transactions.c.id, moved_money.label("expected"), has_entry.label("found"))
    query = query.outerjoin_from(transactions, journal, journal.c.id == transactions.c.id)
    for row in _stream(db, query.where(_truth(moved_money) != _truth(has_entry))):
        yield f"transaction {row.id} (has an entry)", bool(row.expected), bool(row.found)


def _truth(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """A condition as a number: the two databases compare conditions differently."""
    return case((condition, 1), else_=0)


def entry_has_its_transaction(db: Connection) -> Iterator[Break]:
    """Every journal entry belongs to a transaction of the same program, account, funding source and currency."""
    shared = ("program_id", "holder_id", "source_id", "currency")
    query = select(journal.c.id, transactions.c.id.label("transaction_id"))
    query = query.outerjoin_from(journal, transactions, transactions.c.id == journal.c.id)
    differs = [transactions.c[name].is_distinct_from(journal.c[name]) for name in shared]
    for row in _stream(db, query.where(or_(transactions.c.id.is_(None), *differs))):
        yield f"journal {row.id}", f"a transaction of the same {', '.join(shared)}", row.transaction_id and "another's"


def declined_moves_nothing(db: Connection) -> Iterator[Break]:
    """A declined transaction moves and holds nothing, and no other transaction is without an effect."""
    row = transactions.c
    is_declined, is_refused = row.first_state == int(State.DECLINED), row.impacted.is_(None)
    leaves_something = and_(is_declined, or_(row.moved != 0, row.hold_left != 0))
    query = select(row.id, row.first_state, row.impacted, row.moved, row.hold_left)
    for one in _stream(db, query.where(or_(_truth(is_declined) != _truth(is_refused), leaves_something))):
        found = f"{State(one.first_state).name}, impacted {one.impacted}, moved {one.moved}, held {one.hold_left}"
        yield f"transaction {one.id}", "DECLINED and nothing, or an effect", found


def funding_is_what_was_moved(db: Connection) -> Iterator[Break]:
    """What Just-in-Time Funding moved onto an account came out of program funding, in the same entry."""
    funded = func.coalesce(journal.c.program_funding, 0)
    query = select(transactions.c.id, transactions.c.moved, funded.label("funded"))
    query = query.outerjoin_from(transactions, journal, journal.c.id == transactions.c.id)
    for row in _stream(db, query.where(transactions.c.moved != -funded)):
        yield f"journal {row.id} (program_funding)", -row.moved, row.funded


# --- Everything that is pointed at is there -----------------------------------------------


def transaction_ids_are_odd(db: Connection) -> Iterator[Break]:
    """Every transaction has an odd id: the even one after it is its load side's."""
    for row in _stream(db, select(transactions.c.id).where(transactions.c.id % 2 == 0)):
        yield f"transaction {row.id}", "an odd id", row.id


def message_token_has_its_transaction(db: Connection) -> Iterator[Break]:
    """Every token that a sender chose points at a transaction of its program."""
    key = message_tokens.c
    join = and_(transactions.c.id == key.transaction_id, transactions.c.program_id == key.program_id)
    query = select(key.token, key.transaction_id).outerjoin_from(message_tokens, transactions, join)
    for row in _stream(db, query.where(transactions.c.id.is_(None))):
        yield f"message token {row.token}", "a transaction of its program", f"transaction {row.transaction_id}"


def notification_has_its_objects(db: Connection) -> Iterator[Break]:
    """Every notification on its way tells of objects of its program that are there, to a webhook that is there."""
    query = select(outbox.c.id, outbox.c.program_id, outbox.c.category, outbox.c.refs, outbox.c.webhook_id)
    join = and_(webhooks.c.id == outbox.c.webhook_id, webhooks.c.program_id == outbox.c.program_id)
    orphans = query.outerjoin_from(outbox, webhooks, join).where(outbox.c.webhook_id.is_not(None), webhooks.c.id.is_(None))
    for row in _stream(db, orphans):
        yield f"outbox {row.id}", "a webhook of its program", f"webhook {row.webhook_id}"
    for rows in db.execute(query, execution_options={"yield_per": CHUNK}).partitions():
        for category in Category:
            yield from _missing_objects(db, category, [row for row in rows if row.category == category])


_KEYS = {
    Category.TRANSACTION: transactions.c.id, Category.CARD: card_transitions.c.token, Category.USER: user_transitions.c.token,
}  # fmt: skip
"""The columns that the refs of a notification name."""


def _missing_objects(db: Connection, category: Category, rows: list[Row]) -> Iterator[Break]:
    key = _KEYS[category]
    refs = {row.id: msgspec.json.decode(row.refs) for row in rows}
    wanted = sorted({ref for named in refs.values() for ref in named})
    present = set[tuple[int, Any]]()
    for start in range(0, len(wanted), CHUNK):
        found = select(key.table.c.program_id, key).where(key.in_(wanted[start : start + CHUNK]))
        present |= {(row[0], row[1]) for row in db.execute(found)}
    for row in rows:
        for ref in refs[row.id]:
            if (row.program_id, ref) not in present:
                yield f"outbox {row.id}", f"{key.table.name} of its program", ref


# What the history remembers, and the object whose revision counts the changes: the account drawn on, or the program.
_REMEMBERED = (
    (Kind.FUNDING_SOURCE, funding_sources, programs, funding_sources.c.program_id),
    (Kind.CARD_PRODUCT, card_products, programs, card_products.c.program_id),
    (Kind.USER, users, holders, users.c.holder_id),
    (Kind.CARD, cards, holders, cards.c.holder_id),
)


def configuration_has_history(db: Connection) -> Iterator[Break]:
    """The history knows every funding source, card product, user and card, up to a revision that has been reached."""
    for kind, table, owner, owner_id in _REMEMBERED:
        newest = select(func.max(config_history.c.revision)).where(
            config_history.c.program_id == table.c.program_id,
            config_history.c.kind == int(kind),
            config_history.c.object_id == table.c.id,
        )
        known = newest.scalar_subquery()
        query = select(table.c.id, known.label("known"), owner.c.revision).join_from(table, owner, owner.c.id == owner_id)
        for row in _stream(db, query.where(or_(known.is_(None), known > owner.c.revision))):
            yield f"{table.name} {row.id}", f"a word of the history up to revision {row.revision}", row.known


# --- Programs stay apart ------------------------------------------------------------------

_POINTERS = (
    (users, users.c.holder_id, holders), (users, users.c.parent_id, users), (cards, cards.c.holder_id, holders),
    (cards, cards.c.user_id, users), (cards, cards.c.product_id, card_products),
    (transactions, transactions.c.holder_id, holders), (transactions, transactions.c.card_id, cards),
    (transactions, transactions.c.source_id, funding_sources), (journal, journal.c.holder_id, holders),
)  # fmt: skip


def programs_stay_apart(db: Connection) -> Iterator[Break]:
    """Every user, card, transaction and entry points at objects of its own program only."""
    for table, pointer, pointed in _POINTERS:
        target = pointed.alias("target")
        query = select(table.c.id, pointer.label("target_id"), table.c.program_id, target.c.program_id.label("other"))
        query = query.outerjoin_from(table, target, target.c.id == pointer).where(pointer.is_not(None))
        for row in _stream(db, query.where(target.c.program_id.is_distinct_from(table.c.program_id))):
            yield f"{table.name} {row.id}, {pointed.name} {row.target_id}", f"program {row.program_id}", f"program {row.other}"


def card_draws_on_its_users_account(db: Connection) -> Iterator[Break]:
    """Every card draws on the account that its user draws on."""
    query = select(cards.c.id, cards.c.holder_id, users.c.holder_id.label("users")).join(users, users.c.id == cards.c.user_id)
    for row in _stream(db, query.where(cards.c.holder_id != users.c.holder_id)):
        yield f"card {row.id}", f"holder {row.users}", f"holder {row.holder_id}"


# --- Card numbers stay in -----------------------------------------------------------------

def card_numbers_stay_sealed(db: Connection) -> Iterator[Break]:
    """No card number of ours stands anywhere in clear."""
    for where, number in card_numbers_in_clear(db):
        yield where, "no card number", mask(number)


# --- The list -----------------------------------------------------------------------------

INVARIANTS = (
    Invariant("P1", entries_sum_to_zero, (journal,)),
    Invariant("P1", ledger_sums_to_zero, (journal,)),
    Invariant("P1", balances_are_sums_of_entries, (holders, journal)),
    Invariant("P1", held_is_open_holds, (holders, transactions)),
    Invariant("P1", approved_has_one_entry, (transactions,)),
    Invariant("P1", entry_has_its_transaction, (journal,)),
    Invariant("P1", declined_moves_nothing, (transactions,)),
    Invariant("P5", funding_is_what_was_moved, (transactions,)),
    Invariant("P3", transaction_ids_are_odd, (transactions,)),
    Invariant("P3", message_token_has_its_transaction, (message_tokens,)),
    Invariant("P6", notification_has_its_objects, (outbox,)),
    Invariant("P1", configuration_has_history, (funding_sources, card_products, users, cards)),
    Invariant("P9", programs_stay_apart, (users, cards, transactions, journal)),
    Invariant("P9", card_draws_on_its_users_account, (cards,)),
)

SECRETS = (Invariant("P8", card_numbers_stay_sealed, tuple(metadata.sorted_tables)),)
