"""Velocity usage counted a second time, naively: every stored message, every control, every window, from the beginning.

It shares no line with `core/velocity.py` and `core/counting.py`, nor does it read what they noted in a transaction. It is
slow and plain on purpose, and is run after races and storms.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from cardwright.core.render import details_decoder
from cardwright.core.words import TYPE_NUMBER
from cardwright.storage.database import Database
from cardwright.storage.history import Kind
from cardwright.storage.tables import cards, config_history, mcc_groups, transactions, users, velocity_controls

NAMES = {number: name for name, number in TYPE_NUMBER.items()}

PURCHASES = (
    "authorization", "authorization.cashback", "authorization.incremental", "pindebit", "pindebit.authorization",
    "pindebit.cashback", "pindebit.atm.withdrawal",
)  # fmt: skip
AT_ONCE = ("pindebit", "pindebit.cashback", "pindebit.atm.withdrawal")

OVER_AMOUNT, OVER_COUNT = 1834, 1817

IDS_OF_A_PROCESS = 20_000
"""Within one millisecond ids tell the order of one process's decisions, and not that of two."""


@dataclass(frozen=True, slots=True)
class Deed:
    """A message of a card: what it adds to usage, and what it asked for when it was a purchase (0 otherwise)."""

    row_id: int
    at: datetime
    created_ms: int
    revision: int
    product: str
    mid: str
    mcc: str
    sort: str
    currency: str
    is_approved: bool
    code: int
    purchase: int
    cash: int
    uses: int
    is_purchase: bool


@dataclass(frozen=True, slots=True)
class Version:
    """A control as it stood from a revision of its program on; None is one that is off."""

    revision: int
    said: Mapping[str, Any] | None


@dataclass(slots=True)
class Limit:
    """A control and everything that it has said so far."""

    token: str
    created_ms: int
    versions: list[Version] = field(default_factory=list)

    def at(self, revision: int) -> Mapping[str, Any] | None:
        """What it said when the program stood at a revision."""
        known = [version for version in self.versions if version.revision <= revision]
        return known[-1].said if known else None

    @property
    def now(self) -> Mapping[str, Any] | None:
        """What it says."""
        return self.versions[-1].said if self.versions else None


@dataclass(slots=True)
class Verdict:
    """Purchases approved over a limit, and purchases refused by a control though every limit had room: by the controls as
    they stood at the revision that the purchase notes."""

    breaches: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Books:
    """Everything of one program that limits are about: who did what, in the order of the decisions, and the controls."""

    deeds: dict[str, list[Deed]]
    limits: list[Limit]
    mccs: dict[str, set[str]]
    products: dict[str, set[str]]

    def judged(self) -> "Verdict":
        """Every purchase against every limit that was in force when it was decided."""
        whole = Verdict()
        for user, deeds in self.deeds.items():
            # Two processes may decide within one millisecond, and then nothing tells who was first.
            orders = (sorted(deeds, key=key) for key in (_order, _other_order))
            one = min((self._judged(user, order) for order in orders), key=lambda verdict: len(verdict.breaches))
            whole.breaches += one.breaches
        return whole

    def _judged(self, user: str, deeds: Sequence[Deed]) -> "Verdict":
        verdict = Verdict()
        for place, deed in enumerate(deeds):
            if not deed.is_purchase or not (deed.is_approved or deed.code in (OVER_AMOUNT, OVER_COUNT)):
                continue
            verdict.breaches += self._wrong(user, deeds[:place], deed)
        return verdict

    def _wrong(self, user: str, before: Sequence[Deed], deed: Deed) -> list[str]:
        """What is wrong with the decision on a purchase by the limits of the revision that it notes."""
        found = (self._over(limit, limit.at(deed.revision), user, before, deed) for limit in self.limits)
        over = [text for text in found if text is not None]
        if deed.is_approved:
            return over
        return [] if over else [f"{user}: purchase {deed.row_id} was refused with {deed.code}, and every limit had room"]

    def _over(self, limit: Limit, said: Mapping[str, Any] | None, user: str, before: Iterable[Deed], deed: Deed) -> str | None:
        """How a purchase goes over a limit; None when it does not."""
        if said is None or not self._applies(said, user, deed) or (asked := part(said, deed)) == 0:
            return None
        single = said["window"] == "TRANSACTION"
        amount, count = (0, 0) if single else self.usage(limit, said, user, before, deed.at)
        if amount + asked > said["amount_limit"]:
            return f"{user}: {limit.token}: {amount} used and {asked} more by {deed.row_id} go over {said['amount_limit']}"
        if not single and said["usage_limit"] is not None and count + deed.uses > said["usage_limit"]:
            return f"{user}: {limit.token}: used {count} times and once more by {deed.row_id}, allowed {said['usage_limit']}"
        return None

    def usage(self, limit: Limit, said: Mapping[str, Any], user: str, deeds: Iterable[Deed], now: datetime) -> tuple[int, int]:
        """How much and how often a user has used a control's limit in the window that an instant is in."""
        amount = count = 0
        for deed in deeds:
            if said["window"] == "LIFETIME":
                is_inside = deed.created_ms >= limit.created_ms
            else:
                is_inside = window(said["window"], deed.at) == window(said["window"], now)
            counts = deed.is_approved == said.get("approvals_only", True)
            if is_inside and counts and self._applies(said, user, deed) and (moved := part(said, deed)):
                amount += moved
                count += deed.uses
        return max(0, amount), max(0, count)

    def left(self, user: str, now: datetime) -> dict[str, tuple[int, int]]:
        """What each control has left for a user, in minor units and uses (-1: as many as one likes), as the API must say."""
        products = self.products.get(user, ())
        result = dict[str, tuple[int, int]]()
        for limit in self.limits:
            said = limit.now
            if said is None or said["window"] == "TRANSACTION":
                continue
            if said["user_token"] not in (None, user) or said["card_product_token"] not in (None, *products):
                continue
            amount, count = self.usage(limit, said, user, self.deeds.get(user, ()), now)
            uses = -1 if said["usage_limit"] is None else max(0, said["usage_limit"] - count)
            result[limit.token] = (max(0, said["amount_limit"] - amount), uses)
        return result

    def _applies(self, said: Mapping[str, Any], user: str, deed: Deed) -> bool:
        if said["user_token"] not in (None, user) or said["card_product_token"] not in (None, deed.product):
            return False
        if said["currency"] != deed.currency:
            return False
        if said["mid"] is not None:
            return bool(said["mid"] == deed.mid)
        if said["mcc_group"] is not None:
            return deed.mcc in self.mccs.get(said["mcc_group"], ())
        return said["mccs"] is None or deed.mcc in said["mccs"]


def part(said: Mapping[str, Any], deed: Deed) -> int:
    """How much of a message a control looks at."""

    def wants(name: str, default: bool = True) -> bool:
        return bool(said.get(f"include_{name}", default))

    if deed.sort == "withdrawal":
        return deed.purchase + deed.cash if wants("withdrawals") else 0
    if deed.sort == "credit":
        return deed.purchase + deed.cash if wants("credits", default=False) else 0
    if deed.sort == "transfer":
        return deed.purchase + deed.cash if wants("transfers") else 0
    return (deed.purchase if wants("purchases") else 0) + (deed.cash if wants("cashback") else 0)


def window(name: str, at: datetime) -> tuple[int, ...]:
    """Which calendar window an instant is in, in UTC; weeks begin on Sunday."""
    day = at.date()
    if name == "WEEK":
        day -= timedelta(days=day.isoweekday() % 7)
    return (day.year, day.month) if name == "MONTH" else (day.year, day.month, day.day)


def read(database: Database, program_id: int, only: Collection[str] | None = None) -> Books:
    """The books of a program, of these users alone if any are named."""
    with database.read() as db:
        return Books(
            _deeds(db, program_id, only), _limits(db, program_id, only), _mccs(db, program_id), _products(db, program_id)
        )


def _deeds(db: Connection, program_id: int, only: Collection[str] | None) -> dict[str, list[Deed]]:
    query = (
        select(transactions, cards.c.doc.label("card_doc"), users.c.token.label("user"))
        .join(cards, cards.c.id == transactions.c.card_id)
        .join(users, users.c.id == cards.c.user_id)
        .where(transactions.c.program_id == program_id)
        .order_by(transactions.c.created_ms, transactions.c.id)
    )
    if only is not None:
        query = query.where(users.c.token.in_(only))
    chains, deeds = defaultdict[int, "_Chain"](_Chain), defaultdict[str, list[Deed]](list)
    for row in db.execute(query):
        said = details_decoder.decode(row.details)
        name = NAMES[row.kind]
        chain = chains[row.id if row.root_id is None else row.root_id]
        is_approved = row.impacted is not None
        is_purchase = name in PURCHASES or name == "original.credit.auth_plus_capture"
        if is_purchase:
            amount, cash = row.amount if is_approved else row.request_amount, said.cash_back
            uses = 0 if name == "authorization.incremental" else 1
            if is_approved:
                chain.begin(name, row.amount)
        elif is_approved:
            amount, uses = chain.follow(name, row.amount, is_forced=row.cleared > 0)
            cash = 0
        else:
            continue
        cash = min(cash, max(0, amount))
        deeds[row.user].append(
            Deed(
                row.id, datetime.fromtimestamp(row.created_ms / 1000, UTC), row.created_ms, row.program_revision,
                msgspec.json.decode(row.card_doc)["card_product_token"], said.mid, said.merchant.mcc, said.flow.name.lower(),
                row.currency, is_approved, row.code, amount - cash, cash, uses, is_purchase,
            )
        )  # fmt: skip
    return dict(deeds)


@dataclass(slots=True)
class _Chain:
    """A purchase and what followed it: what is still on hold, and what has been taken for good."""

    held: int = 0
    taken: int = 0

    def begin(self, name: str, amount: int) -> None:
        """A purchase, or more of one."""
        if name in AT_ONCE:
            self.taken += amount
        else:
            self.held += amount

    def follow(self, name: str, amount: int, *, is_forced: bool) -> tuple[int, int]:
        """What follows a purchase: what it adds to the amount used and to the number of uses."""
        if name == "refund":
            return -amount, 0
        if name.startswith("original.credit"):
            return 0, 0
        if ".clearing" in name:
            if is_forced:
                return amount, 1
            from_hold = min(amount, self.held)
            rest = self.held - from_hold if name.startswith("pindebit") else 0
            self.held -= from_hold + rest
            self.taken += amount
            return amount - from_hold - rest, 0
        if name == "pindebit.reversal":
            is_all = 0 < amount == self.taken
            self.taken -= amount
            return -amount, -1 if is_all else 0
        self.held -= amount
        return -amount, -1 if amount and self.held == 0 and not self.taken else 0


def _products(db: Connection, program_id: int) -> dict[str, set[str]]:
    """The card products of each user's cards."""
    found = defaultdict[str, set[str]](set)
    query = select(users.c.token, cards.c.doc).join(cards, cards.c.user_id == users.c.id).where(users.c.program_id == program_id)
    for row in db.execute(query):
        found[row.token].add(msgspec.json.decode(row.doc)["card_product_token"])
    return found


def _limits(db: Connection, program_id: int, only: Collection[str] | None) -> list[Limit]:
    columns = velocity_controls.c
    query = select(columns.id, columns.token, columns.created_ms).where(columns.program_id == program_id).order_by(columns.id)
    if only is not None:
        query = query.where(columns.user_token.is_(None) | columns.user_token.in_(only))
    limits = {row.id: Limit(row.token, row.created_ms) for row in db.execute(query)}
    past = (
        select(config_history)
        .where(config_history.c.program_id == program_id, config_history.c.kind == Kind.VELOCITY_CONTROL)
        .order_by(config_history.c.revision)
    )
    if only is not None:
        past = past.where(config_history.c.object_id.in_(limits))
    for row in db.execute(past):
        if row.object_id in limits:
            limits[row.object_id].versions.append(Version(row.revision, _said(row.doc)))
    return list(limits.values())


def _said(doc: str) -> dict[str, Any] | None:
    said = msgspec.json.decode(doc)
    names = ("user_token", "card_product_token", "mid", "mccs", "mcc_group", "usage_limit")
    return None if said is None else {**dict.fromkeys(names), **said}


def _mccs(db: Connection, program_id: int) -> dict[str, set[str]]:
    """The codes of each active MCC group, as they are now: scopes follow their groups."""
    columns = mcc_groups.c
    query = select(columns.token, columns.doc).where(columns.program_id == program_id, columns.active)
    groups = dict[str, set[str]]()
    for row in db.execute(query):
        codes = groups[row.token] = set()
        for said in msgspec.json.decode(row.doc)["mccs"]:
            first, _, last = said.partition("-")
            codes |= {f"{code:04d}" for code in range(int(first), int(last or first) + 1)}
    return groups


def _order(deed: Deed) -> tuple[int, int, int]:
    return (deed.created_ms, (deed.row_id - 1) // IDS_OF_A_PROCESS, deed.row_id)


def _other_order(deed: Deed) -> tuple[int, int, int]:
    return (deed.created_ms, -((deed.row_id - 1) // IDS_OF_A_PROCESS), deed.row_id)
