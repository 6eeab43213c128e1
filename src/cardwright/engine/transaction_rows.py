"""Transaction rows: the rows of a decision, which are the transaction, its journal entry, its chain's changes and its events."""

from collections.abc import Mapping, Sequence

import msgspec

from cardwright.core.checks import address_verdict
from cardwright.core.decision import Decision
from cardwright.core.enums import TYPES, State
from cardwright.core.messages import STAND_IN_MERCHANT, Authorization, ChainPart, Details, Message
from cardwright.core.render import details_decoder
from cardwright.core.snapshot import Chain, Snapshot
from cardwright.core.transaction_row import TransactionRow, token_of
from cardwright.kit.clock import Instant
from cardwright.outbox.events import Category, Event, Subscription, Target, outbox_row
from cardwright.storage.engine.store import ChainRow

_pack = msgspec.msgpack.encode

CARD_ACCOUNTS = 4
"""Number of chart accounts in the journal entry of most card messages. The other accounts come last in the chart."""


def chain_of(root: TransactionRow) -> Chain:
    """Return the chain of a root row, for a decision."""
    return Chain(
        State(root.state), root.request_amount, root.hold_left, root.load_left, root.cleared,
        max(0, root.amount - root.request_amount), root.type_id, root.due_ms, root.created_ms,
    )  # fmt: skip


def after_chain(root: TransactionRow, chain: Chain) -> TransactionRow:
    """Return the root row of a chain after a decision."""
    return root._replace(
        state=chain.state.value, hold_left=chain.hold_left, load_left=chain.load_left, cleared=chain.cleared, due_ms=chain.due_ms
    )


def chain_row(root: TransactionRow) -> ChainRow:
    """Return the written columns of a changed root."""
    return ChainRow(root.id, root.state, root.hold_left, root.load_left, root.cleared, root.due_ms)


def completed(message: Message, original: TransactionRow) -> Message:
    """Return a message with the missing details of the transaction that it refers to, such as the merchant."""
    new, known = message.details, details_decoder.decode(original.details)
    details = Details(
        mid=new.mid or known.mid,
        merchant=known.merchant if new.merchant == STAND_IN_MERCHANT else new.merchant,
        fees=new.fees,
        # A message that joins no chain, such as a forced clearing, takes only merchant and network of the transaction.
        velocity_category=known.velocity_category if message.follows else new.velocity_category,
        additional_data=new.additional_data,
        root_token=(known.root_token or known.chosen_token) if message.follows else None,
        network=new.network or known.network,
        subnetwork=new.subnetwork if new.network is not None else known.subnetwork,
        card_present=known.card_present if message.follows else None,
        increments=known.increments if message.follows else (),
        assessed=known.assessed if message.follows else None,
        echoed=new.echoed,
    )
    return msgspec.structs.replace(message, details=details)


def with_increment(root: TransactionRow, increment: TransactionRow) -> TransactionRow:
    """Return a chain's root with one more increment in its details."""
    known = details_decoder.decode(root.details)
    chosen = details_decoder.decode(increment.details).chosen_token
    grown = msgspec.structs.replace(known, increments=(*known.increments, (increment.id, chosen or token_of(increment))))
    return root._replace(details=_pack(grown))


def with_parts(root: TransactionRow, parts: tuple[ChainPart, ...]) -> TransactionRow:
    """Return a chain's root with the parts of its chain in its details."""
    known = details_decoder.decode(root.details)
    return root._replace(details=_pack(msgspec.structs.replace(known, parts=parts)))


def closed_increment(row_id: int) -> ChainRow:
    """Return the written columns of an increment when its authorization's hold is closed: the increment is CLEARED too."""
    return ChainRow(row_id, State.CLEARED.value, 0, 0, 0, 0)


def record(
    *,
    row_id: int,
    keys: tuple[int, int, int, int | None],
    revisions: tuple[int, int],
    decision: Decision,
    details: Details,
    root: TransactionRow | None,
    seed: int,
    now: Instant,
    duration_ms: int,
) -> TransactionRow:
    """Return the row of a decided message.

    ``keys`` are the ids of program, account, card and funding source. ``revisions`` are those of program and account. A message
    that follows another has the seed and the begin time of the root.
    """
    ledger, held = decision.account.money(decision.currency)
    program_id, holder_id, card_id, source_id = keys
    return TransactionRow(
        id=row_id,
        program_id=program_id,
        holder_id=holder_id,
        card_id=card_id,
        source_id=source_id,
        type_id=decision.type_id,
        state=decision.state.value,
        first_state=decision.state.value,
        code=decision.reason.number,
        created_ms=now,
        user_time_ms=now if root is None else root.user_time_ms,
        duration_ms=duration_ms,
        currency=decision.currency,
        request_amount=decision.requested,
        amount=decision.amount,
        impacted=decision.impacted,
        moved=decision.moved,
        hold_left=decision.hold_left,
        load_left=decision.load_left,
        cleared=decision.cleared,
        due_ms=decision.due_ms,
        ledger=ledger,
        available=ledger - held,
        root_id=None if root is None else root.id,
        seed=seed if root is None else root.seed,
        program_revision=revisions[0],
        holder_revision=revisions[1],
        details=_pack(details),
    )


def details_of(
    message: Message, snapshot: Snapshot, decision: Decision, chosen_token: str | None, refund_of: int | None
) -> Details:
    """Return the details that a row stores: those of the message, and those that the decision adds."""
    fields: dict[str, object] = {
        "address_verdict": address_verdict(snapshot, message) if isinstance(message, Authorization) else None,
        "order_refused": decision.order_refused,
        "chosen_token": chosen_token,
        "refund_of": refund_of,
        "use": decision.use if decision.use != (0, 0) else None,
        "limited_by": decision.limited_by,
        "released": decision.released,
        "mcc_groups": snapshot.spend.categories.names if isinstance(message, Authorization) else (),
    }
    if decision.unload:
        fields["unload"] = decision.unload
    if decision.left:
        fields["left"] = decision.left
    # Usually the decision adds nothing, and a copy would be the most expensive part of the row.
    return msgspec.structs.replace(message.details, **fields) if any(fields.values()) else message.details


def journal_entry(row: TransactionRow, legs: tuple[int, ...]) -> tuple[object, ...]:
    """Return the journal row of a decision that moved money. It has the transaction's id."""
    return (row.id, row.program_id, row.holder_id, row.source_id, row.currency, row.created_ms, *legs)


def inline_notification(row: TransactionRow, target: Target) -> dict[str, object]:
    """Return the outbox row for the webhook address in the request."""
    return outbox_row(row.program_id, row.created_ms, Category.TRANSACTION, [row.id], target=target)


def events_of(rows: Sequence[TransactionRow], subscriptions: Mapping[int, Sequence[Subscription]]) -> list[Event]:
    """Return the events of transactions, without programs that have no subscription."""
    return [
        Event(row.program_id, row.created_ms, Category.TRANSACTION, f"transaction.{TYPES[row.type_id]}", row.id)
        for row in rows
        if subscriptions[row.program_id]
    ]
