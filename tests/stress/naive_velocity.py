"""Naive velocity: a second, independent count of velocity usage from every stored message, by the documented rules.

It shares no line with `core/velocity.py` and `core/velocity_events.py`. Of the fields that they write into a transaction it
reads only one: the original that a refund names. Races, stress tests and the property in
`tests/properties/test_velocity_windows.py` compare it with the product.

The rules:

* An approved request counts its amount as a *part*: goods, cash, and one use. An increment adds no use.
* A clearing counts the amount beyond its hold as a part. A forced clearing counts its whole amount and one use.
* The parts of one purchase are its *chain*.
* These messages take their amount from the parts of their chain, the newest part first, goods before cash: a reversal, an
  advice, an expiry, and a refund that names an original. The rest of a hold that a final clearing releases is taken too.
* A use is given back if the whole purchase is reversed before any part of it is cleared.
* A refund without an original lowers the usage by its amount. The reversal of such a refund counts its amount again.
* A control counts a part in its current window, if the part's merchant, product and sort match. An amount that is taken from
  such a part lowers the usage. An amount that is taken from another part lowers nothing.
* A control with `approvals_only` false counts only declined requests.
* Usage is never below zero.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, select

from cardwright.core.enums import TYPE_NUMBER
from cardwright.core.render import details_decoder
from cardwright.storage.database import Database
from cardwright.storage.history import Kind
from cardwright.storage.tables import card_products, cards, config_history, mcc_groups, transactions, users, velocity_controls

NAMES = {number: name for name, number in TYPE_NUMBER.items()}

HELD = (
    "authorization", "authorization.cashback", "authorization.incremental", "authorization.atm.withdrawal",
    "authorization.quasi.cash", "account.funding.authorization", "pindebit.authorization", "original.credit.authorization",
)  # fmt: skip
AT_ONCE = (
    "pindebit", "pindebit.cashback", "pindebit.atm.withdrawal", "pindebit.quasi.cash", "account.funding.auth_plus_capture",
    "original.credit.auth_plus_capture",
)  # fmt: skip
"""Requests: those that hold their amount, and those that settle it in one message."""

FINAL_CLEARINGS = (
    "authorization.clearing.atm.withdrawal", "authorization.clearing.quasi.cash", "pindebit.authorization.clearing",
)  # fmt: skip
"""Clearings that release the rest of their hold."""

UNDONE = ("pindebit.reversal", "account.funding.auth_plus_capture.reversal", "original.credit.auth_plus_capture.reversal")
"""Reversals of messages that settled their amount at once."""

REFUNDS = ("refund", "refund.authorization.clearing", "pindebit.refund")
ANNOUNCEMENTS = ("refund.authorization", "refund.authorization.advice", "refund.authorization.reversal")
"""Types of pending refunds, which move no money. The types in ``REFUNDS`` move money."""

OVER_AMOUNT, OVER_COUNT, PARTLY_APPROVED = 1834, 1817, 2

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, eq=False)
class ChainPart:
    """The amount that a message adds to a chain, as goods and cash, and its uses. ``is_approved`` is False for a decline."""

    at_ms: int
    product: str
    mid: str
    mcc: str
    sort: str
    currency: str
    is_approved: bool
    goods: int
    cash: int
    uses: int


class Move(NamedTuple):
    """A change of the usage by a part: signed amounts and uses, negative for a give-back."""

    part: ChainPart
    goods: int
    cash: int
    uses: int


class UsageEvent(NamedTuple):
    """A stored message. ``request`` is the part that it requests, None if it requests nothing."""

    row_id: int
    created_ms: int
    revision: int
    code: int
    is_approved: bool
    request: ChainPart | None
    moves: Sequence[Move]


@dataclass(slots=True)
class Rest:
    """The remaining amounts of a part, which no message has taken yet."""

    part: ChainPart
    goods: int
    cash: int


@dataclass(slots=True)
class Chain:
    """A purchase: its parts in the order in which they were counted, the amount on hold, and the amount that was settled."""

    held: int = 0
    settled: int = 0
    rests: list[Rest] = field(default_factory=list)

    def count(self, part: ChainPart) -> list[Move]:
        """Add a part."""
        self.rests.append(Rest(part, part.goods, part.cash))
        return [Move(part, part.goods, part.cash, part.uses)]

    def give_back(self, amount: int, *, is_undone: bool = False) -> list[Move]:
        """Take an amount from the parts, the newest first, goods before cash. ``is_undone`` gives the uses back too."""
        moves = []
        for rest in reversed(self.rests):
            goods = min(amount, rest.goods)
            cash = min(amount - goods, rest.cash)
            amount -= goods + cash
            rest.goods -= goods
            rest.cash -= cash
            uses = rest.part.uses if is_undone else 0
            if goods or cash or uses:
                moves.append(Move(rest.part, -goods, -cash, -uses))
        return moves


class Version(NamedTuple):
    """The settings of a control from a revision of its program on; None if it is inactive."""

    revision: int
    settings: Mapping[str, Any] | None


@dataclass(slots=True, eq=False)
class Limit:
    """A control and all its versions."""

    token: str
    created_ms: int
    versions: list[Version] = field(default_factory=list)

    def settings_at(self, revision: int) -> Mapping[str, Any] | None:
        """Return the settings at a revision of the program."""
        for version in reversed(self.versions):
            if version.revision <= revision:
                return version.settings
        return None

    @property
    def now(self) -> Mapping[str, Any] | None:
        """The current settings."""
        return self.versions[-1].settings if self.versions else None


@dataclass(slots=True)
class LimitResult:
    """Wrong decisions: purchases approved over a limit, and purchases that a control declined although every limit had room.

    Each is judged by the controls of the revision that the purchase records.
    """

    breaches: list[str] = field(default_factory=list)


class Wording(NamedTuple):
    """A version of a control: its settings, and the codes of its MCC group."""

    limit: Limit
    settings: Mapping[str, Any]
    codes: Collection[str] | None

    def is_same_as(self, other: "Wording | None") -> bool:
        """Return whether the other has the same version of the control and the same codes of the group."""
        return other is not None and other.settings is self.settings and other.codes == self.codes

    def looks_at(self, part: ChainPart, user: str) -> bool:
        """Return whether it applies to the user and to the part's card product, currency and merchant."""
        settings = self.settings
        if settings["user_token"] not in (None, user) or settings["card_product_token"] not in (None, part.product):
            return False
        if settings["currency"] != part.currency:
            return False
        if settings["mid"] is not None:
            return bool(settings["mid"] == part.mid)
        return self.codes is None or part.mcc in self.codes

    def share(self, sort: str, goods: int, cash: int) -> int:
        """Return the included part of an amount."""

        def includes(name: str, default: bool = True) -> bool:
            return bool(self.settings.get(f"include_{name}", default))

        if sort == "withdrawal":
            return goods + cash if includes("withdrawals") else 0
        if sort == "credit":
            return goods + cash if includes("credits", default=False) else 0
        if sort == "transfer":
            return goods + cash if includes("transfers") else 0
        return (goods if includes("purchases") else 0) + (cash if includes("cashback") else 0)

    def window_of(self, at_ms: int) -> object:
        """Return the window of an instant. LIFETIME has one window, which begins with the control."""
        if self.settings["window"] == "LIFETIME":
            return at_ms >= self.limit.created_ms
        return window_on(self.settings["window"], at_ms // DAY_MS)


class Tally:
    """The usage of one control by one user. The count is continued, and restarted if the control or its window has changed."""

    def __init__(self, user: str, usage_events: Sequence[UsageEvent]) -> None:
        self.user, self.usage_events = user, usage_events
        self.wording: Wording | None = None
        self.window: object = None
        self.place = self.amount = self.count = 0

    def usage(self, wording: Wording, now_ms: int, place: int) -> tuple[int, int]:
        """Return amount and count in the window of an instant, after the first ``place`` messages of the user."""
        window = wording.window_of(now_ms)
        if not wording.is_same_as(self.wording) or window != self.window or place < self.place:
            self.wording, self.window = wording, window
            self.place = self.amount = self.count = 0
        for usage_event in self.usage_events[self.place : place]:
            for move in usage_event.moves:
                self._add(wording, move)
        self.place = place
        return self.amount, self.count

    def _add(self, wording: Wording, move: Move) -> None:
        part = move.part
        if part.is_approved != wording.settings.get("approvals_only", True) or not wording.looks_at(part, self.user):
            return
        if wording.window_of(part.at_ms) != self.window or wording.share(part.sort, part.goods, part.cash) == 0:
            return
        self.amount = max(0, self.amount + wording.share(part.sort, move.goods, move.cash))
        self.count = max(0, self.count + move.uses)


@dataclass(slots=True)
class Books:
    """The messages of one program by user, in the order of the decisions, and its velocity controls.

    ``only`` restricts the books to these users. The key of ``limits`` is the user of a control at any time, None for all users.
    """

    program_id: int
    only: Collection[str] | None = None
    usage_events: dict[str, list[UsageEvent]] = field(default_factory=lambda: defaultdict(list))
    limits: dict[str | None, dict[int, Limit]] = field(default_factory=lambda: defaultdict(dict))
    mccs: dict[str, set[str]] = field(default_factory=dict)
    products: dict[str, set[str]] = field(default_factory=dict)
    chains: dict[int, Chain] = field(default_factory=dict)
    roots: dict[int, int] = field(default_factory=dict)
    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)
    judged_of: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    last_id: int = 0
    last_revision: int = 0

    # --- Questions ---------------------------------------------------------------------------

    def judged(self) -> LimitResult:
        """Judge every new purchase by every limit that was active at its decision."""
        return LimitResult([text for user in list(self.usage_events) for text in self.judge(user)])

    def judge(self, user: str) -> list[str]:
        """Return the wrong decisions on a user's new purchases."""
        usage_events, first = self.usage_events[user], self.judged_of[user]
        self.judged_of[user] = len(usage_events)
        return [text for place in range(first, len(usage_events)) for text in self._wrong(user, place, usage_events[place])]

    def _wrong(self, user: str, place: int, usage_event: UsageEvent) -> list[str]:
        """Return the errors of the decision on a purchase, by the limits of the revision that it records."""
        if usage_event.request is None or not (usage_event.is_approved or usage_event.code in (OVER_AMOUNT, OVER_COUNT)):
            return []
        texts = (self._over(limit, user, place, usage_event, usage_event.request) for limit in self._limits_of(user))
        over = [text for text in texts if text is not None]
        if usage_event.is_approved:
            return over
        refusal = f"purchase {usage_event.row_id} was refused with {usage_event.code}"
        return [] if over else [f"{user}: {refusal}, and every limit had room"]

    def _over(self, limit: Limit, user: str, place: int, usage_event: UsageEvent, request: ChainPart) -> str | None:
        """Return how a purchase exceeds a limit, None if it does not."""
        wording = self._wording(limit, limit.settings_at(usage_event.revision))
        if wording is None or not wording.looks_at(request, user):
            return None
        requested = wording.share(request.sort, request.goods, request.cash)
        if requested == 0:
            return None
        settings, single = wording.settings, wording.settings["window"] == "TRANSACTION"
        amount, count = (0, 0) if single else self._tally(user, limit).usage(wording, usage_event.created_ms, place)
        if amount + requested > settings["amount_limit"]:
            usage = f"{amount} used and {requested} more by {usage_event.row_id}"
            return f"{user}: {limit.token}: {usage} go over {settings['amount_limit']}"
        if not single and settings["usage_limit"] is not None and count + request.uses > settings["usage_limit"]:
            usage = f"used {count} times and once more by {usage_event.row_id}"
            return f"{user}: {limit.token}: {usage}, allowed {settings['usage_limit']}"
        return None

    def usages(self, user: str, now: datetime) -> Iterator[tuple[Limit, Mapping[str, Any], int, int]]:
        """Yield each control of a user, its settings, and its amount and count in the window of an instant."""
        products, usage_events, now_ms = self.products.get(user, ()), self.usage_events[user], _ms(now)
        for limit in self._limits_of(user):
            wording = self._wording(limit, limit.now)
            if wording is None or wording.settings["window"] == "TRANSACTION":
                continue
            settings = wording.settings
            if settings["user_token"] not in (None, user) or settings["card_product_token"] not in (None, *products):
                continue
            yield limit, settings, *self._tally(user, limit).usage(wording, now_ms, len(usage_events))

    def left(self, user: str, now: datetime) -> dict[str, tuple[int, int]]:
        """Return the available amount (minor units) and uses (-1: unlimited) of each control, as the API must show them."""
        return {
            limit.token: (
                max(0, settings["amount_limit"] - amount),
                -1 if settings["usage_limit"] is None else max(0, settings["usage_limit"] - count),
            )
            for limit, settings, amount, count in self.usages(user, now)
        }

    def _limits_of(self, user: str) -> Iterator[Limit]:
        yield from self.limits[user].values()
        # A control that was for one user and is for all users now is in both dictionaries.
        yield from (limit for limit_id, limit in self.limits[None].items() if limit_id not in self.limits[user])

    def _wording(self, limit: Limit, settings: Mapping[str, Any] | None) -> Wording | None:
        if settings is None:
            return None
        group = settings["mcc_group"]
        return Wording(limit, settings, settings["mccs"] if group is None else self.mccs.get(group, ()))

    def _tally(self, user: str, limit: Limit) -> Tally:
        key = (user, limit.token)
        if key not in self.tallies:
            self.tallies[key] = Tally(user, self.usage_events[user])
        return self.tallies[key]

    # --- Reading -----------------------------------------------------------------------------

    def read_on(self, db: Connection) -> "Books":
        """Read the messages and controls that were stored since the last call, and the current groups and cards."""
        self._read_messages(db)
        self._read_controls(db)
        self.mccs, self.products = _mccs(db, self.program_id), _products(db, self.program_id)
        return self

    def _read_messages(self, db: Connection) -> None:
        query = (
            select(transactions, card_products.c.token.label("product"), users.c.token.label("user"))
            .join(cards, cards.c.id == transactions.c.card_id)
            .join(card_products, card_products.c.id == cards.c.product_id)
            .join(users, users.c.id == cards.c.user_id)
            .where(transactions.c.program_id == self.program_id, transactions.c.id > self.last_id)
            .order_by(transactions.c.created_ms, transactions.c.id)
        )
        if self.only is not None:
            query = query.where(users.c.token.in_(self.only))
        for row in db.execute(query):
            self.last_id = max(self.last_id, row.id)
            self.roots[row.id] = row.id if row.root_id is None else row.root_id
            self.usage_events[row.user].append(self._usage_event(row))

    def _usage_event(self, row: Any) -> UsageEvent:
        name, is_approved, details = NAMES[row.type_id], row.impacted is not None, details_decoder.decode(row.details)
        is_request = name in HELD or name in AT_ONCE
        amount = row.amount if is_approved else row.request_amount
        # Cash back is paid in full or not at all, so a partial approval contains only goods.
        cash = details.cash_back if is_request and row.code != PARTLY_APPROVED else 0
        first_of_chain = is_request and name != "authorization.incremental"
        is_forced = ".clearing" in name and row.root_id is None
        part = ChainPart(
            row.created_ms,
            row.product,
            details.mid,
            details.merchant.mcc,
            details.velocity_category.name.lower(),
            row.currency,
            is_approved,
            amount - cash,
            cash,
            1 if first_of_chain or is_forced else 0,
        )
        moves = list[Move]()
        if is_request:
            moves = self._request(name, row, part)
        elif is_approved:
            moves = self._follow(name, row, part, getattr(details, "refund_of", None))
        request = part if is_request and amount else None
        return UsageEvent(row.id, row.created_ms, row.program_revision, row.code, is_approved, request, moves)

    def _chain(self, row_id: int) -> Chain:
        """Return the chain of a message."""
        return self.chains.setdefault(self.roots.get(row_id, row_id), Chain())

    def _request(self, name: str, row: Any, part: ChainPart) -> list[Move]:
        """Return the moves of a request: none if it requests nothing."""
        if part.goods + part.cash == 0:
            return []
        if not part.is_approved:
            return [Move(part, part.goods, part.cash, part.uses)]
        chain = self._chain(row.id)
        if name in HELD:
            chain.held += row.amount
        else:
            chain.settled += row.amount
        return chain.count(part)

    def _follow(self, name: str, row: Any, part: ChainPart, refund_of: int | None) -> list[Move]:
        """Return the moves of a message that is not a request."""
        chain, amount = self._chain(row.id), row.amount
        if name in ANNOUNCEMENTS:
            return []
        if refund_of is not None:
            return self._chain(refund_of).give_back(amount)
        if name in REFUNDS:
            return [Move(part, -amount, 0, 0)]
        if name == "pindebit.refund.reversal":
            return chain.count(part)
        if ".clearing" in name:
            return self._clear(name, row, part, chain)
        if name in UNDONE:
            chain.settled -= amount
            return chain.give_back(amount, is_undone=amount > 0 and chain.settled == 0)
        # The amount of an advice is the new total; `impacted` is the part that it releases from the hold.
        amount = row.impacted if name == "authorization.advice" else amount
        chain.held -= amount
        return chain.give_back(amount, is_undone=amount > 0 and chain.held == 0 and chain.settled == 0)

    def _clear(self, name: str, row: Any, part: ChainPart, chain: Chain) -> list[Move]:
        """Return the moves of a clearing: all of a forced one, else the excess over the hold. A final one releases the rest."""
        if row.root_id is None:
            return chain.count(part)
        covered = min(row.amount, chain.held)
        chain.held -= covered
        chain.settled += row.amount
        if excess := row.amount - covered:
            return chain.count(replace(part, goods=excess))
        if name not in FINAL_CLEARINGS:
            return []
        rest, chain.held = chain.held, 0
        return chain.give_back(rest)

    def _read_controls(self, db: Connection) -> None:
        columns = velocity_controls.c
        query = select(columns.id, columns.token, columns.created_ms).where(columns.program_id == self.program_id)
        if self.only is not None:
            query = query.where(columns.user_token.is_(None) | columns.user_token.in_(self.only))
        known = {limit_id: limit for limits in self.limits.values() for limit_id, limit in limits.items()}
        limits = {row.id: known.get(row.id) or Limit(row.token, row.created_ms) for row in db.execute(query)}
        past = (
            select(config_history)
            .where(config_history.c.program_id == self.program_id, config_history.c.kind == Kind.VELOCITY_CONTROL)
            .where(config_history.c.revision > self.last_revision)
            .order_by(config_history.c.revision)
        )
        if self.only is not None:
            past = past.where(config_history.c.object_id.in_(limits))
        for row in db.execute(past):
            self.last_revision = row.revision
            settings = _settings_of(row.doc)
            limits[row.object_id].versions.append(Version(row.revision, settings))
            if settings is not None:
                self.limits[settings["user_token"]][row.object_id] = limits[row.object_id]


@lru_cache(maxsize=100_000)
def window_on(name: str, day: int) -> tuple[int, ...]:
    """Return the calendar window of a day, counted from 1970-01-01, in UTC. Weeks begin on Sunday."""
    on = date(1970, 1, 1) + timedelta(days=day)
    if name == "WEEK":
        on -= timedelta(days=on.isoweekday() % 7)
    if name in ("DAY", "WEEK"):
        return (on.year, on.month, on.day)
    return {"MONTH": (on.year, on.month), "QUARTER": (on.year, (on.month + 2) // 3), "YEAR": (on.year,), "LIFETIME": ()}[name]


def read(database: Database, program_id: int, only: Collection[str] | None = None) -> Books:
    """Return the books of a program, restricted to the users ``only`` if given."""
    with database.read() as db:
        return Books(program_id, only).read_on(db)


def _products(db: Connection, program_id: int) -> dict[str, set[str]]:
    """Return the card products of each user's cards."""
    products = defaultdict[str, set[str]](set)
    query = (
        select(users.c.token, card_products.c.token.label("product"))
        .join(cards, cards.c.user_id == users.c.id)
        .join(card_products, card_products.c.id == cards.c.product_id)
        .where(users.c.program_id == program_id)
    )
    for row in db.execute(query):
        products[row.token].add(row.product)
    return products


def _settings_of(doc: str) -> dict[str, Any] | None:
    settings = msgspec.json.decode(doc)
    names = ("user_token", "card_product_token", "mid", "mccs", "mcc_group", "usage_limit")
    return None if settings is None else {**dict.fromkeys(names), **settings}


def _mccs(db: Connection, program_id: int) -> dict[str, set[str]]:
    """Return the current codes of each active MCC group: a changed group changes the scope of its controls."""
    columns = mcc_groups.c
    query = select(columns.token, columns.doc).where(columns.program_id == program_id, columns.active)
    groups = dict[str, set[str]]()
    for row in db.execute(query):
        codes = groups[row.token] = set()
        for code_range in msgspec.json.decode(row.doc)["mccs"]:
            first, _, last = code_range.partition("-")
            codes |= {f"{code:04d}" for code in range(int(first), int(last or first) + 1)}
    return groups


def _ms(instant: datetime) -> int:
    return round((instant - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)
