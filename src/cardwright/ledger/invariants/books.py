"""Invariants of the money: entries, balances, holds, and what a chain of messages still owes."""

from collections.abc import Iterator
from functools import reduce
from heapq import merge
from itertools import groupby
from operator import add, itemgetter
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, and_, case, func, or_, select

from cardwright.core.enums import TYPE_NUMBER, State
from cardwright.core.movement_types import ANNOUNCED, CREDITED, DEBITED, FEE_CHARGE, FEE_PENDING, FEE_REFUND, FEE_REVERSAL, NEWS
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
    """Every journal entry sums to zero."""
    for row in stream(db, select(journal.c.id, _ENTRY_SUM.label("total")).where(_ENTRY_SUM != 0)):
        yield f"journal {row.id}", 0, row.total


def ledger_sums_to_zero(db: Connection) -> Iterator[Discrepancy]:
    """The ledger of every program sums to zero in every currency."""
    total = func.sum(_ENTRY_SUM)
    query = select(journal.c.program_id, journal.c.currency, total.label("total"))
    for row in stream(db, query.group_by(journal.c.program_id, journal.c.currency).having(total != 0)):
        yield f"program {row.program_id}, {row.currency}", 0, row.total


def balances_are_sums_of_entries(db: Connection) -> Iterator[Discrepancy]:
    """Every stored balance is the sum of its account's journal entries: available and held, and held alone."""
    total = journal.c.available + journal.c.held
    for holder_id, account, sums in _accounts(db, journal, func.sum(total), func.sum(journal.c.held)):
        for currency in sorted(account.balances.keys() | sums.keys()):
            stored, summed = account.money(currency), sums.get(currency, (0, 0))
            if stored != summed:
                yield f"holder {holder_id}, {currency} (ledger, held)", summed, stored


_HELD: ColumnElement[int] = case((transactions.c.type_id.in_(PENDING_CREDITS), 0), else_=transactions.c.hold_left)
"""What a transaction holds of its account: nothing where money is only announced."""


def held_is_open_holds(db: Connection) -> Iterator[Discrepancy]:
    """What is on hold on an account is what its transactions still hold."""
    for holder_id, account, sums in _accounts(db, transactions, func.sum(_HELD)):
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
    """Every approved transaction with an effect has its journal entry, every other transaction has none.

    Of a direct deposit only what takes effect, or is undone afterwards, moves money; an announced credit has an effect of 0.
    """
    row = transactions.c
    moved_money = and_(row.impacted.is_not(None), row.impacted != 0, row.type_id.not_in(NEWS))
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
        yield f"journal {row.id}", f"a transaction of the same {', '.join(shared)}", row.transaction_id and "another's"


def declined_moves_nothing(db: Connection) -> Iterator[Discrepancy]:
    """A declined transaction moves and holds nothing, and no other transaction is without an effect."""
    row = transactions.c
    is_declined, is_refused = row.first_state == int(State.DECLINED), row.impacted.is_(None)
    leaves_something = and_(is_declined, or_(row.moved != 0, row.hold_left != 0, row.load_left != 0, row.cleared != 0))
    query = select(row.id, row.first_state, row.impacted, row.moved, row.hold_left)
    for transaction in stream(db, query.where(or_(truth(is_declined) != truth(is_refused), leaves_something))):
        state = State(transaction.first_state).name
        actual = f"{state}, impacted {transaction.impacted}, moved {transaction.moved}, held {transaction.hold_left}"
        yield f"transaction {transaction.id}", "DECLINED and nothing, or an effect", actual


# --- Orders and chains --------------------------------------------------------------------

GPA_CREDIT, PROGRAM_TRANSFER = TYPE_NUMBER["gpa.credit"], TYPE_NUMBER["transfer.program"]

_FUNDED = func.coalesce(journal.c.program_funding, 0)
_CAPTURED: ColumnElement[int] = transactions.c.moved + _FUNDED
"""What a clearing took of the money that its chain had loaded: its order is that and what it loaded itself."""


def funding_is_what_was_moved(db: Connection) -> Iterator[Discrepancy]:
    """What an order moved came out of program funding or went back there, in the same entry; or a clearing took it of a hold."""
    is_clearing = transactions.c.type_id.in_(CLEARINGS)
    # Only a completion gives something of the hold back, so that only there the source can gain.
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
    """Transactions of which an account of the chart has not what they tell."""
    booked = func.coalesce(journal.c[account], 0)
    query = with_entries(transactions.c.id, expected.label("expected"), booked.label("booked")).where(expected != booked)
    for entry in stream(db, query):
        yield f"journal {entry.id} ({account})", entry.expected, entry.booked


def settlement_is_what_was_cleared(db: Connection) -> Iterator[Discrepancy]:
    """What is owed to the network is what was settled, less what was credited or undone."""
    row = transactions.c
    gives = CLEARINGS | (SETTLED_AT_ONCE - CARD_CREDITS) | CREDIT_REVERSALS
    takes = CARD_CREDITS | CREDIT_CLEARINGS | PURCHASE_REVERSALS | {REFUND}
    owed = case((row.impacted.is_(None), 0), (row.type_id.in_(gives), row.amount), (row.type_id.in_(takes), -row.amount), else_=0)
    return _booked_otherwise(db, "settlement", owed)


def fees_are_what_was_charged(db: Connection) -> Iterator[Discrepancy]:
    """What the program earned in fees is what was charged, less what was refunded or given back with its purchase."""
    row = transactions.c
    # A fee that was only held is let go of, one that was charged is given back.
    given_back = -row.amount - func.coalesce(journal.c.held, 0)
    earned = case(
        (row.type_id == FEE_CHARGE, row.amount), (row.type_id == FEE_REFUND, -row.amount),
        (row.type_id == FEE_REVERSAL, given_back),
        else_=0,
    )  # fmt: skip
    return _booked_otherwise(db, "fees", earned)


def deposits_are_what_banks_sent(db: Connection) -> Iterator[Discrepancy]:
    """What banks sent is what was credited by direct deposit, less what was debited or undone."""
    row = transactions.c
    came, went = (CREDITED.applied, DEBITED.reversal), (DEBITED.applied, CREDITED.reversal)
    sent = case((row.type_id.in_(came), -row.amount), (row.type_id.in_(went), row.amount), else_=0)
    return _booked_otherwise(db, "deposits", sent)


def deposit_ends_as_it_was_told(db: Connection) -> Iterator[Discrepancy]:
    """A direct deposit is in the state that its latest transaction says, and moves money at most once each way."""
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
    """What a transfer takes from one account it gives to another: nothing stays in transit."""
    root, between = func.coalesce(transactions.c.root_id, transactions.c.id), func.sum(journal.c.transit)
    query = with_entries(root.label("root"), between.label("between"))
    for chain in stream(db, query.where(journal.c.transit != 0).group_by(root).having(between != 0)):
        yield f"transfer {chain.root} (in transit)", 0, int(chain.between)


def order_keeps_no_debt(db: Connection) -> Iterator[Discrepancy]:
    """No more is unloaded of an order than it loaded."""
    row = transactions.c
    for transaction in stream(db, select(row.id, row.load_left).where(row.load_left < 0, row.type_id == GPA_CREDIT)):
        yield f"transaction {transaction.id} (left to unload)", "nothing or more", transaction.load_left


def chains_add_up(db: Connection) -> Iterator[Discrepancy]:
    """A chain still holds, still has loaded and has settled what its messages say, all of them together.

    An order is such a chain: what it loaded is what can still be unloaded. So is a fee, which a refund clears.
    """
    row = transactions.c
    root = func.coalesce(row.root_id, row.id)
    loaded = case(
        (row.type_id.in_(CLEARINGS), -_CAPTURED),
        (row.type_id.in_((REFUND, PROGRAM_TRANSFER, *CREDIT_CLEARINGS)), 0),
        # What an order loads for its fees is spent at once.
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
    """A transaction that begins a chain is PENDING exactly as long as it holds something, or is a deposit before its day."""
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
    """A transaction that follows none was made when it began, and what follows a purchase began when that did.

    What follows an order, an unload or a refunded fee, is a movement by itself and does not change the order's state.
    """
    row, root = transactions.c, transactions.alias("root").c
    query = select(row.id, row.created_ms, row.user_time_ms)
    for transaction in stream(db, query.where(row.root_id.is_(None), row.created_ms != row.user_time_ms)):
        yield f"transaction {transaction.id} (began)", transaction.created_ms, transaction.user_time_ms
    query = select(row.id, root.user_time_ms.label("began"), row.user_time_ms).where(row.root_id == root.id)
    for transaction in stream(db, query.where(row.card_id.is_not(None), row.user_time_ms != root.user_time_ms)):
        yield f"transaction {transaction.id} (began)", transaction.began, transaction.user_time_ms


def open_hold_has_an_end(db: Connection) -> Iterator[Discrepancy]:
    """A transaction has a time at which its hold expires exactly as long as it holds something.

    So has a deposit that was announced, as long as it is PENDING. A real-time fee ends with its purchase.
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
    """A real-time fee is held as long as its purchase holds something of which nothing was cleared, and no longer.

    Its first transaction has the id after the purchase's.
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
