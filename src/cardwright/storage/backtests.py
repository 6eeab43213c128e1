"""Backtests: queries for a program's history, and the storage of progress and results."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, delete, func, select

from cardwright.core.messages import Details
from cardwright.core.render import details_decoder
from cardwright.core.spend_controls import Groups, MccGroup, MerchantRule, resolved_rule
from cardwright.core.timeline import C, Change, Holder, Versions
from cardwright.core.transaction_row import TransactionRow
from cardwright.core.velocity import Control, resolved_control
from cardwright.kit.clock import Instant
from cardwright.storage.account_transactions import find_own
from cardwright.storage.controls import control_from, product_token_of, rule_from
from cardwright.storage.database import Row
from cardwright.storage.history import INACTIVE, Kind
from cardwright.storage.tables import backtest_flips, backtests, cards, config_history, holders, transactions, users

QUEUED, RUNNING, DONE, FAILED = "QUEUED", "RUNNING", "DONE", "FAILED"
UNFINISHED = (QUEUED, RUNNING)
FINISHED = (DONE, FAILED)

ROWS_AT_ONCE = 2_000
"""Rows of the history that are in memory at once."""


class _Merchants(msgspec.Struct, frozen=True):
    """A merchant group as the configuration history stores it."""

    token: str
    mids: tuple[str, ...]


GroupVersions = Sequence[tuple[int, MccGroup | _Merchants | None]]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The task of a backtest: the period from ``start_ms`` to before ``end_ms``, and the changed spend controls.

    New controls have negative ids.
    """

    program_id: int
    start_ms: Instant
    end_ms: Instant
    accounts: int
    velocity: Change[Control] = Change()
    auth: Change[MerchantRule] = Change()
    exempt: Change[MerchantRule] = Change()


class Sums(msgspec.Struct, kw_only=True):
    """The sums of a backtest so far. Amounts are in minor units.

    ``declined_by`` and ``blocked_by`` map the token of a velocity or authorization control to a number of purchases and their
    amount.
    """

    accounts: int = 0
    purchases: int = 0
    approved_before: int = 0
    amount_before: int = 0
    approved_after: int = 0
    amount_after: int = 0
    to_declined: int = 0
    to_declined_amount: int = 0
    to_approved: int = 0
    to_approved_amount: int = 0
    flips: int = 0
    declined_by: dict[str, tuple[int, int]] = {}
    blocked_by: dict[str, tuple[int, int]] = {}
    error: str | None = None

    def add(self, other: "Sums") -> None:
        """Add the sums of further accounts."""
        for name in self.__struct_fields__:
            sum_of = getattr(self, name)
            if isinstance(sum_of, int):
                setattr(self, name, sum_of + getattr(other, name))
        for mine, others in ((self.declined_by, other.declined_by), (self.blocked_by, other.blocked_by)):
            for token, counts in others.items():
                count_in(mine, token, *counts)


def count_in(counts: dict[str, tuple[int, int]], token: str, purchases: int, amount: int) -> None:
    """Add declined purchases and their amount to the counts of a control."""
    before = counts.get(token, (0, 0))
    counts[token] = (before[0] + purchases, before[1] + amount)


# --- History ------------------------------------------------------------------------------


def load_versions(db: Connection, program_id: int) -> Versions:
    """Return all versions of the program's controls and exemptions.

    A shadow control counts as absent, because it declines nothing. A change of a group is also a change of each control that
    refers to the group.
    """
    groups = _Groups(db, program_id)
    velocity, auth, exempt = (
        _load_docs(db, program_id, kind) for kind in (Kind.VELOCITY_CONTROL, Kind.AUTH_CONTROL, Kind.EXEMPTION)
    )
    return Versions(
        {key: _resolved_versions(key, docs, groups, _control, resolved_control) for key, docs in velocity.items()},
        {key: _resolved_versions(key, docs, groups, rule_from, resolved_rule) for key, docs in auth.items()},
        {key: _resolved_versions(key, docs, groups, rule_from, resolved_rule) for key, docs in exempt.items()},
    )


def _control(control_id: int, fact: str) -> Control | None:
    control = control_from(control_id, fact)
    return None if control.shadow else control


def _resolved_versions(
    control_id: int, docs: list[tuple[int, str]], groups: "_Groups", parse: Callable[[int, str], C | None],
    resolve: Callable[[C, Groups], C],
) -> list[tuple[int, C | None]]:  # fmt: skip
    """Return a control's versions with resolved scopes. Each change of a group that the control refers to adds a version."""
    versions: list[tuple[int, C | None]] = []
    ends: list[int | None] = [*(revision for revision, _ in docs[1:]), None]
    for (revision, fact), end in zip(docs, ends, strict=True):
        control = None if fact == INACTIVE else parse(control_id, fact)
        if control is None:
            versions.append((revision, None))
            continue
        regroupings = {start for start in groups.changes(control) if start > revision and (end is None or start < end)}
        versions += [(start, resolve(control, groups.groups_at(control, start))) for start in sorted({revision} | regroupings)]
    return versions


class _Groups:
    """The versions of a program's groups by token, each with its first revision.

    A version is None while the group is inactive.
    """

    def __init__(self, db: Connection, program_id: int) -> None:
        mccs = _load_docs(db, program_id, Kind.MCC_GROUP), msgspec.json.Decoder(MccGroup)
        mids = _load_docs(db, program_id, Kind.MERCHANT_GROUP), msgspec.json.Decoder(_Merchants)
        self._mccs, self._mids = _by_token(*mccs), _by_token(*mids)

    def changes(self, control: Control | MerchantRule) -> list[int]:
        """Return the revisions at which the groups of a control changed."""
        return [revision for versions in self._pointed_at(control) for revision, _ in versions]

    def groups_at(self, control: Control | MerchantRule, revision: int) -> Groups:
        """Return the groups of a control at a revision, without those that were inactive or absent."""
        mccs, mids = (
            next((group for start, group in reversed(versions) if start <= revision), None)
            for versions in self._pointed_at(control)
        )
        return Groups(
            {mccs.token: mccs} if isinstance(mccs, MccGroup) else {},
            {mids.token: frozenset(mids.mids)} if isinstance(mids, _Merchants) else {},
        )

    def _pointed_at(self, control: Control | MerchantRule) -> tuple[GroupVersions, GroupVersions]:
        merchant_group = control.merchant_group if isinstance(control, MerchantRule) else None
        return self._mccs.get(control.mcc_group or "", ()), self._mids.get(merchant_group or "", ())


def _by_token(docs_by_object: dict[int, list[tuple[int, str]]], decoder: msgspec.json.Decoder[Any]) -> dict[str, GroupVersions]:
    groups_by_token = dict[str, GroupVersions]()
    for docs in docs_by_object.values():
        groups = [(revision, None if doc == INACTIVE else decoder.decode(doc)) for revision, doc in docs]
        # A group that was never active matches no merchant, like a group that does not exist.
        tokens = (group.token for _, group in groups if group is not None)
        if (token := next(tokens, None)) is not None:
            groups_by_token[token] = groups
    return groups_by_token


def _load_docs(db: Connection, program_id: int, kind: Kind) -> dict[int, list[tuple[int, str]]]:
    """Return the versions of each object of a kind: first revision and document, by object id."""
    columns = config_history.c
    query = select(columns.object_id, columns.revision, columns.doc).where(columns.program_id == program_id, columns.kind == kind)
    docs: dict[int, list[tuple[int, str]]] = {}
    for row in db.execute(query.order_by(columns.object_id, columns.revision)):
        docs.setdefault(row.object_id, []).append((row.revision, row.doc))
    return docs


def count_accounts(db: Connection, program_id: int) -> int:
    """Return the number of accounts that a backtest of the program replays."""
    return db.scalar(select(func.count()).select_from(holders).where(holders.c.program_id == program_id)) or 0


def next_accounts(db: Connection, program_id: int, after: int, count: int) -> list[int]:
    """Return at most ``count`` account ids of the program above ``after``, in ascending order."""
    query = select(holders.c.id).where(holders.c.program_id == program_id, holders.c.id > after)
    return list(db.scalars(query.order_by(holders.c.id).limit(count)))


class CardOf(NamedTuple):
    """A card's token, and the tokens of its user, account owner and product."""

    token: str
    holder: Holder


def load_cards_of(db: Connection, holder_ids: Sequence[int]) -> dict[int, CardOf]:
    """Return the cards of accounts by id."""
    first = select(users.c.holder_id, func.min(users.c.id).label("owner_id")).where(users.c.holder_id.in_(holder_ids))
    owners = first.group_by(users.c.holder_id).subquery()
    owner = users.alias()
    query = (
        select(cards.c.id, cards.c.token, cards.c.doc, users.c.token.label("user_token"), owner.c.token.label("owner_token"))
        .join(users, users.c.id == cards.c.user_id)
        .join(owners, owners.c.holder_id == cards.c.holder_id)
        .join(owner, owner.c.id == owners.c.owner_id)
        .where(cards.c.holder_id.in_(holder_ids))
    )
    return {
        row.id: CardOf(row.token, Holder(row.user_token, row.owner_token, product_token_of(row.doc))) for row in db.execute(query)
    }


def history_of(
    db: Connection, holder_ids: Sequence[int], start_ms: Instant, end_ms: Instant
) -> Iterator[tuple[TransactionRow, Details]]:
    """Yield the transactions of accounts in the order of account id and time."""
    query = (
        select(transactions)
        .where(find_own(db, holder_ids).condition, transactions.c.created_ms < end_ms)
        .where(transactions.c.created_ms >= start_ms)
        .order_by(transactions.c.holder_id, transactions.c.created_ms, transactions.c.id)
    )
    decode, make = details_decoder.decode, TransactionRow._make
    for rows in db.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}).partitions():
        for values in rows:
            row = make(values)
            yield row, decode(row.details)


# --- Progress -----------------------------------------------------------------------------


class Claimed(NamedTuple):
    """A backtest that this process has claimed."""

    id: int
    program_id: int
    job: Job
    cursor: int
    sums: Sums


def claim(db: Connection, real_ms: Instant, lease_ms: int) -> Claimed | None:
    """Claim the oldest unfinished backtest without a valid lease, for ``lease_ms`` milliseconds. Return None if there is none."""
    columns = backtests.c
    query = select(backtests).where(columns.state.in_(UNFINISHED), columns.lease_ms < real_ms).order_by(columns.id).limit(1)
    row = db.execute(query.with_for_update(skip_locked=True)).one_or_none()
    if row is None:
        return None
    db.execute(backtests.update().where(columns.id == row.id).values(state=RUNNING, lease_ms=real_ms + lease_ms))
    job = msgspec.json.decode(row.job, type=Job)
    return Claimed(row.id, row.program_id, job, row.cursor, msgspec.json.decode(row.sums, type=Sums))


def is_idle(db: Connection, real_ms: Instant) -> bool:
    """Return True if there is no backtest to claim."""
    columns = backtests.c
    return db.scalar(select(columns.id).where(columns.state.in_(UNFINISHED), columns.lease_ms < real_ms).limit(1)) is None


def save_progress(db: Connection, claimed: Claimed, cursor: int, flips: Sequence[str], **columns: Any) -> bool:
    """Store the progress from the claimed cursor to the next one. Return False if this process has lost the claim."""
    mine = (backtests.c.id == claimed.id, backtests.c.state == RUNNING, backtests.c.cursor == claimed.cursor)
    if db.execute(backtests.update().where(*mine).values(cursor=cursor, **columns)).rowcount == 0:
        return False
    first = claimed.sums.flips - len(flips)
    if flips:
        rows = [
            {"program_id": claimed.program_id, "backtest_id": claimed.id, "number": first + number, "doc": doc}
            for number, doc in enumerate(flips, 1)
        ]
        db.execute(backtest_flips.insert(), rows)
    return True


def remove(db: Connection, row: Row) -> None:
    """Delete a backtest and its flips. A process that works on it fails to save progress and stops."""
    db.execute(delete(backtest_flips).where(backtest_flips.c.backtest_id == row.id))
    db.execute(delete(backtests).where(backtests.c.id == row.id))


def count_unfinished(db: Connection, program_id: int) -> int:
    """Return the number of queued and running backtests of the program."""
    query = select(func.count()).select_from(backtests)
    return db.scalar(query.where(backtests.c.program_id == program_id, backtests.c.state.in_(UNFINISHED))) or 0


def list_flips(db: Connection, backtest_id: int, start: int, count: int) -> list[str]:
    """Return at most ``count`` flips after the first ``start`` ones."""
    columns = backtest_flips.c
    query = select(columns.doc).where(columns.backtest_id == backtest_id, columns.number > start)
    return list(db.scalars(query.order_by(columns.number).limit(count)))
