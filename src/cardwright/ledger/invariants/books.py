"""Invariants of the money: entries, balances, holds, and the open amounts of chains."""

from collections.abc import Iterator
from functools import reduce
from heapq import merge
from itertools import groupby
from operator import add, itemgetter
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, and_, case, func, or_, select

from cardwright.core.enums import TYPE_NUMBER, State
from cardwright.core.movement_types import (
    ANNOUNCED,
    CREDITED,
    DEBITED,
    DEPOSITS_WITHOUT_ENTRY,
    FEE_CHARGE,
    FEE_PENDING,
    FEE_REFUND,
    FEE_REVERSAL,
)
from cardwright.core.snapshot import Account
from cardwright.core.transaction_types import (
    CARD_CREDITS,
    CLEARINGS,
    COMPLETIONS,
    CREDIT_CLEARINGS,
    CREDIT_REVERSALS,
    PENDING_CREDITS,
    PURCHASE_REVERSALS,
    REFUND,
    SETTLED_AT_ONCE,
)
from cardwright.ledger.invariants.scan import Discrepancy, stream, truth, with_entries
from cardwright.storage.tables import JOURNAL_ACCOUNTS, holders, journal, transactions

# --- The books balance --------------------------------------------------------------------

_ENTRY_SUM: ColumnElement[int] = reduce(add, (journal.c[account] for account in JOURNAL_ACCOUNTS))


def entries_sum_to_zero(db: Connection) -> Iterator[Discrepancy]:
    """The legs of every journal entry sum to zero."""
    for row in stream(db, select(journal.c.id, _ENTRY_SUM.label("total")).where(_ENTRY_SUM != 0)):
        yield f"journal {row.id}", 0, row.total


def ledger_sums_to_zero(db: Connection) -> Iterator[Discrepancy]:
    """The journal entries of every program sum to zero in every currency."""
    total = func.sum(_ENTRY_SUM)
    query = select(journal.c.program_id, journal.c.currency, total.label("total"))
    for row in stream(db, query.group_by(journal.c.program_id, journal.c.currency).having(total != 0)):
        yield f"program {row.program_id}, {row.currency}", 0, row.total


def balances_are_sums_of_entries(db: Connection) -> Iterator[Discrepancy]:
    """Every stored balance, and the held part of it, equals the sum of the account's journal entries."""
    total = journal.c.available + journal.c.held
    for holder_id, account, sums in _accounts(db, journal, func.sum(total), func.sum(journal.c.held)):
        for currency in sorted(account.balances.keys() | sums.keys()):
            stored, summed = account.money(currency), sums.get(currency, (0, 0))
            if stored != summed:
                yield f"holder {holder_id}, {currency} (ledger, held)", summed, stored


_HELD: ColumnElement[int] = case((transactions.c.type_id.in_(PENDING_CREDITS), 0), else_=transactions.c.hold_left)
"""The hold of a transaction on its account: 0 for a pending credit."""


def held_is_open_holds(db: Connection) -> Iterator[Discrepancy]:
    """The amount on hold of every account is the sum of its transactions' open holds."""
    for holder_id, account, sums in _accounts(db, transactions, func.sum(_HELD)):
        for currency in sorted(account.balances.keys() | sums.keys()):
            stored, (open_holds,) = account.money(currency)[1], sums.get(currency, (0,))
            if stored != open_holds:
                yield f"holder {holder_id}, {currency} (held)", open_holds, stored


_decode_account = msgspec.msgpack.Decoder(Account).decode


def _accounts(
    db: Connection, table: Table, *sums: ColumnElement[Any]
) -> Iterator[tuple[int, Account, dict[str, tuple[int, ...]]]]:
    """Yield every holder with its stored account and its sums by currency over the table's rows.

    Both queries are in the order of holders and merged, so memory holds one holder at a time.
    """
    states = select(holders.c.id, holders.c.state).order_by(holders.c.id)
    summed = select(table.c.holder_id, table.c.currency, *sums).group_by(table.c.holder_id, table.c.currency)
    streams = (stream(db, states), stream(db, summed.order_by(table.c.holder_id)))
    for holder_id, rows in groupby(merge(*streams, key=itemgetter(0)), key=itemgetter(0)):
        account, by_currency = Account(), dict[str, tuple[int, ...]]()
        for _, first, *rest in rows:
            if rest:
                by_currency[first] = tuple(map(int, rest))
            else:
                account = _decode_account(bytes(first))
        yield holder_id, account, by_currency


def approved_has_one_entry(db: Connection) -> Iterator[Discrepancy]:
    """Every approved transaction with an effect has one journal entry, and every other transaction has none.

    A direct deposit moves money only when it is applied or reversed. A pending credit has an impacted amount of 0.
    """
    row = transactions.c
    moved_money = and_(row.impacted.is_not(None), row.impacted != 0, row.type_id.not_in(DEPOSITS_WITHOUT_ENTRY))
    has_entry = journal.c.id.is_not(None)
    query = select(transactions.c.id, moved_money.label("expected"), has_entry.label("actual"))
    query = query.outerjoin_from(transactions, journal, journal.c.id == transactions.c.id)
    for row in stream(db, query.where(truth(moved_money) != truth(has_entry))):
        yield f"transaction {row.id} (has an entry)", bool(row.expected), bool(row.actual)


def entry_has_its_transaction(db: Connection) -> Iterator[Discrepancy]:
    """Every journal entry belongs to a transaction of the same program, account, funding source and currency."""
    shared = ("program_id", "holder_id", "source_id", "currency")
    query = select(journal.c.id, transactions.c.id.label("transaction_id"))
    query = query.outerjoin_from(journal, transactions, transactions.c.id == journal.c.id)
    differs = [transactions.c[name].is_distinct_from(journal.c[name]) for name in shared]
    for row in stream(db, query.where(or_(transactions.c.id.is_(None), *differs))):
        yield (
            f"journal {row.id}",
            f"a transaction of the same {', '.join(shared)}",
            row.transaction_id and "a transaction of another one",
        )


def declined_moves_nothing(db: Connection) -> Iterator[Discrepancy]:
    """A declined transaction moves and holds no money, and every other transaction has an impacted amount."""
    row = transactions.c
    is_declined, is_refused = row.first_state == int(State.DECLINED), row.impacted.is_(None)
    leaves_something = and_(is_declined, or_(row.moved != 0, row.hold_left != 0, row.load_left != 0, row.cleared != 0))
    query = select(row.id, row.first_state, row.impacted, row.moved, row.hold_left)
    for transaction in stream(db, query.where(or_(truth(is_declined) != truth(is_refused), leaves_something))):
        state = State(transaction.first_state).name
        actual = f"{state}, impacted {transaction.impacted}, moved {transaction.moved}, held {transaction.hold_left}"
        yield f"transaction {transaction.id}", "DECLINED without amounts, or another state with an impacted amount", actual


# --- Orders and chains --------------------------------------------------------------------

GPA_CREDIT, PROGRAM_TRANSFER = TYPE_NUMBER["gpa.credit"], TYPE_NUMBER["transfer.program"]

_FUNDED = func.coalesce(journal.c.program_funding, 0)
_CAPTURED: ColumnElement[int] = transactions.c.moved + _FUNDED
"""The part of a chain's load that a clearing captured: its order is that part and the clearing's own load."""


def funding_is_what_was_moved(db: Connection) -> Iterator[Discrepancy]:
    """The entry of every order has its amount on program_funding, except the part that a clearing captured from a hold."""
    is_clearing = transactions.c.type_id.in_(CLEARINGS)
    # Only a completion releases the rest of a hold, so only its entry can return money to the source.
    gives_nothing_back = transactions.c.type_id.not_in(COMPLETIONS)
    held = func.coalesce(journal.c.held, 0)
    is_wrong = or_(
        and_(~is_clearing, _CAPTURED != 0),
        and_(is_clearing, or_(_CAPTURED < 0, -held < _CAPTURED, and_(gives_nothing_back, _FUNDED > 0))),
    )
    query = with_entries(transactions.c.id, transactions.c.moved, _FUNDED.label("funded"))
    for row in stream(db, query.where(is_wrong)):
        yield f"journal {row.id} (program_funding)", -row.moved, row.funded


def _booked_otherwise(db: Connection, account: str, expected: ColumnElement[int]) -> Iterator[Discrepancy]:
    """Yield each transaction with an amount other than ``expected`` on an account of the chart."""
    booked = func.coalesce(journal.c[account], 0)
    query = with_entries(transactions.c.id, expected.label("expected"), booked.label("booked")).where(expected != booked)
    for entry in stream(db, query):
        yield f"journal {entry.id} ({account})", entry.expected, entry.booked


def settlement_is_what_was_cleared(db: Connection) -> Iterator[Discrepancy]:
    """The debt to the network is the sum of settlements minus credits and reversals."""
    row = transactions.c
    gives = CLEARINGS | (SETTLED_AT_ONCE - CARD_CREDITS) | CREDIT_REVERSALS
    takes = CARD_CREDITS | CREDIT_CLEARINGS | PURCHASE_REVERSALS | {REFUND}
    owed = case((row.impacted.is_(None), 0), (row.type_id.in_(gives), row.amount), (row.type_id.in_(takes), -row.amount), else_=0)
    return _booked_otherwise(db, "settlement", owed)


def fees_are_what_was_charged(db: Connection) -> Iterator[Discrepancy]:
    """The program's fee income is the sum of charged fees minus refunded and reversed fees."""
    row = transactions.c
    # The reversal of a pending fee releases its hold; only the reversal of a charged fee returns income.
    given_back = -row.amount - func.coalesce(journal.c.held, 0)
    earned = case(
        (row.type_id == FEE_CHARGE, row.amount), (row.type_id == FEE_REFUND, -row.amount),
        (row.type_id == FEE_REVERSAL, given_back),
        else_=0,
    )  # fmt: skip
    return _booked_otherwise(db, "fees", earned)


def deposits_are_what_banks_sent(db: Connection) -> Iterator[Discrepancy]:
    """The money that banks sent is the sum of credited direct deposits minus debited and reversed ones."""
    row = transactions.c
    came, went = (CREDITED.applied, DEBITED.reversal), (DEBITED.applied, CREDITED.reversal)
    sent = case((row.type_id.in_(came), -row.amount), (row.type_id.in_(went), row.amount), else_=0)
    return _booked_otherwise(db, "deposits", sent)


def deposit_state_matches_transactions(db: Connection) -> Iterator[Discrepancy]:
    """A direct deposit has the state of its latest transaction, and at most one transaction of each type."""
    row, later = transactions.c, transactions.alias("later").c
    newest_first = select(later.type_id).where(later.root_id == row.id).order_by(later.id.desc())
    last_kind = newest_first.limit(1).correlate(transactions).scalar_subquery()
    expected = case(
        (last_kind.in_((CREDITED.applied, DEBITED.applied)), int(State.COMPLETION)),
        (last_kind.in_((CREDITED.rejected, DEBITED.rejected)), int(State.DECLINED)),
        (last_kind.is_not(None), int(State.CLEARED)),
        else_=int(State.PENDING),
    )
    query = select(row.id, row.state, expected.label("expected")).where(row.type_id.in_(ANNOUNCED), row.state != expected)
    for transaction in stream(db, query):
        yield f"transaction {transaction.id} (deposit)", State(transaction.expected).name, State(transaction.state).name
    count = func.count()
    twice = select(row.root_id, row.type_id, count.label("times")).where(row.type_id.in_((*CREDITED, *DEBITED)))
    for repeat in stream(db, twice.where(row.root_id.is_not(None)).group_by(row.root_id, row.type_id).having(count > 1)):
        yield f"transaction {repeat.root_id} (deposit)", "each type once", f"type {repeat.type_id}, {repeat.times} times"


def what_is_sent_arrives(db: Connection) -> Iterator[Discrepancy]:
    """The two sides of every transfer cancel out: no money stays in transit."""
    root, between = func.coalesce(transactions.c.root_id, transactions.c.id), func.sum(journal.c.transit)
    query = with_entries(root.label("root"), between.label("between"))
    for chain in stream(db, query.where(journal.c.transit != 0).group_by(root).having(between != 0)):
        yield f"transfer {chain.root} (in transit)", 0, int(chain.between)


def order_keeps_no_debt(db: Connection) -> Iterator[Discrepancy]:
    """The unloads of an order are at most its load."""
    row = transactions.c
    for transaction in stream(db, select(row.id, row.load_left).where(row.load_left < 0, row.type_id == GPA_CREDIT)):
        yield f"transaction {transaction.id} (left to unload)", "0 or more", transaction.load_left


def chains_add_up(db: Connection) -> Iterator[Discrepancy]:
    """The open hold, open load and settled amount of every chain are the sums over its messages.

    An order is such a chain: its load is the amount that can still be unloaded. A fee is one too; a refund clears it.
    """
    row = transactions.c
    root = func.coalesce(row.root_id, row.id)
    loaded = case(
        (row.type_id.in_(CLEARINGS), -_CAPTURED),
        (row.type_id.in_((REFUND, PROGRAM_TRANSFER, *CREDIT_CLEARINGS)), 0),
        # The load for the fees of an order is spent at once.
        (row.type_id == GPA_CREDIT, row.request_amount),
        else_=row.moved,
    )
    cleared = case(
        (row.type_id == FEE_REFUND, row.amount),
        (row.type_id == FEE_REVERSAL, -func.coalesce(journal.c.fees, 0)),
        else_=func.coalesce(journal.c.settlement, 0),
    )
    kept = (func.sum(_HELD), func.sum(row.load_left), func.sum(row.cleared))
    expected = (func.sum(func.coalesce(journal.c.held, 0)), func.sum(loaded), func.sum(cleared))
    differs = or_(*(kept_sum != expected_sum for kept_sum, expected_sum in zip(kept, expected, strict=True)))
    for chain in stream(db, with_entries(root, *kept, *expected).group_by(root).having(differs)):
        root_id, *sums = map(int, chain)
        yield f"chain of transaction {root_id} (holds, has loaded, has settled)", tuple(sums[3:]), tuple(sums[:3])


def open_purchase_holds_something(db: Connection) -> Iterator[Discrepancy]:
    """The root of a chain is PENDING exactly while it has an open hold, or is a deposit before its due time."""
    row = transactions.c
    waits = and_(row.type_id.in_(ANNOUNCED), row.due_ms > 0)
    differs = truth(row.state == int(State.PENDING)) != truth(or_(row.hold_left > 0, waits))
    for transaction in stream(db, select(row.id, row.state, row.hold_left).where(row.root_id.is_(None), differs)):
        yield (
            f"transaction {transaction.id}",
            "PENDING and a hold, or neither",
            f"{State(transaction.state).name}, held {transaction.hold_left}",
        )


def chain_shares_its_time(db: Connection) -> Iterator[Discrepancy]:
    """A root starts at its creation, and the follow-ups of a purchase have the start time of their root.

    An unload and the refund of a fee follow a root too. They are separate movements and have their own start time.
    """
    row, root = transactions.c, transactions.alias("root").c
    query = select(row.id, row.created_ms, row.user_time_ms)
    for transaction in stream(db, query.where(row.root_id.is_(None), row.created_ms != row.user_time_ms)):
        yield f"transaction {transaction.id} (began)", transaction.created_ms, transaction.user_time_ms
    query = select(row.id, root.user_time_ms.label("began"), row.user_time_ms).where(row.root_id == root.id)
    for transaction in stream(db, query.where(row.card_id.is_not(None), row.user_time_ms != root.user_time_ms)):
        yield f"transaction {transaction.id} (began)", transaction.began, transaction.user_time_ms


def open_hold_has_an_end(db: Connection) -> Iterator[Discrepancy]:
    """A transaction has an expiry exactly while it has an open hold.

    A deposit has an expiry while it is PENDING. The pending fee of a purchase has no expiry: it ends with the purchase.
    """
    row = transactions.c
    waits = and_(row.type_id.in_(ANNOUNCED), row.state == int(State.PENDING))
    differs = truth(row.due_ms > 0) != truth(or_(and_(row.hold_left > 0, row.type_id != FEE_PENDING), waits))
    for transaction in stream(db, select(row.id, row.due_ms, row.hold_left).where(differs)):
        yield (
            f"transaction {transaction.id}",
            "an end and a hold, or neither",
            f"end {transaction.due_ms}, held {transaction.hold_left}",
        )


def fee_waits_for_its_purchase(db: Connection) -> Iterator[Discrepancy]:
    """A real-time fee is on hold exactly while its purchase has an open hold and no clearing.

    Its first transaction has the next id after the purchase's, that is 2 more.
    """
    row, purchase = transactions.c, transactions.alias("purchase").c
    query = select(row.id, row.hold_left, purchase.hold_left.label("open"), purchase.cleared)
    query = query.where(row.type_id == FEE_PENDING, purchase.id == row.id - 2)
    waits = and_(purchase.hold_left > 0, purchase.cleared == 0)
    for transaction in stream(db, query.where(truth(row.hold_left > 0) != truth(waits))):
        yield (
            f"transaction {transaction.id} (real-time fee, held)",
            f"as its purchase: {transaction.open}, cleared {transaction.cleared}",
            transaction.hold_left,
        )
