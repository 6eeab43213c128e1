"""Snapshot: all data of one decision as plain values, that is the configuration of a card and the money of its account."""

from typing import Any

import msgspec

from cardwright.core.enums import TYPE_NUMBER, CardState, HolderStatus, State
from cardwright.core.fee_groups import NO_FEES, RealTimeFee
from cardwright.core.money import fits
from cardwright.core.spend_controls import NO_SPEND, Spend
from cardwright.core.velocity import Control, Usage
from cardwright.kit.clock import Instant


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """Value that decisions and rendering read, decoded from a resource's JSON. Other fields of the resource are ignored."""


class CardFact(Fact, frozen=True, kw_only=True):
    """Card. ``expires_ms`` is the first instant after its validity. ``service_code`` is the one of its issue."""

    token: str
    user_token: str
    card_product_token: str
    state: CardState
    last_four: str
    expiration: str
    expires_ms: int
    service_code: str
    reason_code: str | None = None
    metadata: dict[str, str] = {}


class UserFact(Fact, frozen=True, kw_only=True):
    """Cardholder, or owner of the account that the card draws on."""

    token: str
    status: HolderStatus
    address1: str | None = None
    postal_code: str | None = None
    account_holder_group_token: str = "DEFAULT_AHG"
    metadata: dict[str, str] = {}


class AddressCheck(Fact, frozen=True, kw_only=True):
    """Effect of an address mismatch (``transaction_controls.address_verification``)."""

    validate: bool
    decline_on_address_number_mismatch: bool
    decline_on_postal_code_mismatch: bool


class AddressChecks(Fact, frozen=True, kw_only=True):
    """Address rules for account verifications (amount 0) and for authorizations."""

    av_messages: AddressCheck
    auth_messages: AddressCheck


class TransactionControls(Fact, frozen=True, kw_only=True):
    """Fields of ``config.transaction_controls`` that decisions use."""

    accepted_countries_token: str
    always_require_pin: bool
    always_require_icc: bool
    allow_gpa_auth: bool
    require_card_not_present_card_security_code: bool
    ignore_card_suspended_state: bool
    allow_quasi_cash: bool
    enable_partial_auth_approval: bool
    address_verification: AddressChecks
    quasi_cash_exempt_mids: str = ""
    quasi_cash_exempt_merchant_group_token: str | None = None
    allow_mcc_group_authorization_controls: bool = True


class OtherPoi(Fact, frozen=True, kw_only=True):
    """Field ``config.poi.other``."""

    allow: bool
    card_presence_required: bool
    cardholder_presence_required: bool


class Poi(Fact, frozen=True, kw_only=True):
    """Field ``config.poi``: points of interaction that accept cards of the product."""

    other: OtherPoi
    ecommerce: bool
    atm: bool


class ProgramFunding(Fact, frozen=True, kw_only=True):
    """Field ``config.jit_funding.program_funding_source``: Managed JIT Funding."""

    enabled: bool
    funding_source_token: str = ""
    refunds_destination: str = ""


class JitFunding(Fact, frozen=True, kw_only=True):
    """Field ``config.jit_funding``."""

    program_funding_source: ProgramFunding


class Fulfillment(Fact, frozen=True, kw_only=True):
    """Field ``config.fulfillment``."""

    all_zero_card_security_code: bool
    bin_issue_country: str | None = None


class ClearingAndSettlement(Fact, frozen=True, kw_only=True):
    """Field ``config.clearing_and_settlement``."""

    overdraft_destination: str = "GPA"


class ProductConfig(Fact, frozen=True, kw_only=True):
    """Fields of a card product's ``config`` that decisions use."""

    poi: Poi
    transaction_controls: TransactionControls
    jit_funding: JitFunding
    fulfillment: Fulfillment
    clearing_and_settlement: ClearingAndSettlement = ClearingAndSettlement()


class ProductFact(Fact, frozen=True, kw_only=True):
    """Card product. Dates are ``yyyy-MM-dd``: the first and the last day, in UTC."""

    token: str
    active: bool
    start_date: str
    config: ProductConfig
    end_date: str | None = None


class SourceFact(Fact, frozen=True, kw_only=True):
    """Program funding source, as shown in orders."""

    token: str
    name: str
    active: bool
    created_time: str
    last_modified_time: str


class Account(msgspec.Struct, frozen=True, array_like=True):
    """Money of one account holder, and its usage of velocity controls.

    ``balances`` has for each currency the ledger balance and the part of it on hold, in minor units. ``has_history`` is True if
    a control without a usage must read past messages. ``last_ms`` and ``last_id`` are time and id of the newest transaction.
    """

    balances: dict[str, tuple[int, int]] = {}
    usages: dict[str, Usage] = {}
    has_history: bool = False
    last_ms: Instant = 0
    last_id: int = 0

    def money(self, currency: str) -> tuple[int, int]:
        """Return ledger balance and sum of open holds in a currency, in minor units."""
        return self.balances.get(currency, (0, 0))

    def moved(self, currency: str, ledger: int, held: int) -> "Account":
        """Return the account after changes of its ledger balance and holds in a currency by these amounts."""
        if not ledger and not held:
            return self
        before = self.money(currency)
        balances = {**self.balances, currency: (before[0] + ledger, before[1] + held)}
        return Account(balances, self.usages, self.has_history, self.last_ms, self.last_id)

    def has_room(self, currency: str, amount: int) -> bool:
        """Return whether a message of ``amount`` minor units keeps the limits of an amount and of a balance."""
        return fits(*self.money(currency), amount)

    def after(self, usages: dict[str, Usage], row_id: int, time_ms: Instant) -> "Account":
        """Return the account with these usages after a card's transaction of this id and time."""
        return Account(self.balances, usages, True, time_ms, row_id)

    def using(self, usages: dict[str, Usage]) -> "Account":
        """Return the account with other usages, after its history was read."""
        return Account(self.balances, usages, True, self.last_ms, self.last_id)

    def time_of(self, row_id: int, now: Instant) -> Instant:
        """Return the time of the next transaction: ``now`` or later.

        An account's transactions are ordered by (time, id) across processes. Without this rule a process with a slow clock
        could put a transaction into an earlier window of a velocity control.
        """
        return max(now, self.last_ms if row_id > self.last_id else self.last_ms + 1)

    def marked(self, row_id: int, time_ms: Instant) -> "Account":
        """Return the account after a transaction of this id and time."""
        return Account(self.balances, self.usages, self.has_history, time_ms, row_id)


class Chain(msgspec.Struct, frozen=True):
    """Root of the chain that a message belongs to, and the chain's open amounts, in minor units.

    ``load_left`` is the JIT money that a release would return to the source (negative: money that the source would give again).
    ``cleared`` is the total of settlements (negative: credits). ``increase`` is the amount that an MCC group held beyond the
    request. ``type_id`` is the root's type, ``since_ms`` the time of its decision. ``due_ms`` is the expiry of the open hold, 0
    without one.
    """

    state: State
    requested: int
    hold_left: int
    load_left: int
    cleared: int
    increase: int = 0
    type_id: int = TYPE_NUMBER["authorization"]
    due_ms: int = 0
    since_ms: int = 0

    def after(self, *, hold: int = 0, load: int = 0, cleared: int = 0) -> "Chain":
        """Return the chain after these changes.

        It closes when its hold reaches 0. A chain that never had a hold keeps its state.
        """
        hold_left = self.hold_left + hold
        closes = hold != 0 and hold_left == 0
        return msgspec.structs.replace(
            self,
            state=State.CLEARED if closes else self.state,
            hold_left=hold_left,
            load_left=self.load_left + load,
            cleared=self.cleared + cleared,
            due_ms=0 if closes else self.due_ms,
        )


class Snapshot(msgspec.Struct, frozen=True):
    """All data of one decision.

    ``source`` is the funding source of the card's product, or of the chain's root; None without JIT Funding. ``chain`` is None
    for a message that begins one. ``velocity_limits`` and ``spend`` hold only the controls of this card's user, product and
    program. ``strictest_limits`` are the strictest of ``velocity_limits``, or None: when these pass, all pass. ``fees`` are the
    real-time fees of the user's account holder group.
    """

    currency: str
    card: CardFact
    user: UserFact
    owner: UserFact
    product: ProductFact
    source: SourceFact | None
    account: Account
    chain: Chain | None = None
    velocity_limits: tuple[Control, ...] = ()
    spend: Spend = NO_SPEND
    strictest_limits: tuple[Control, ...] | None = None
    fees: tuple[RealTimeFee, ...] = NO_FEES


def fact_from(kind: type[Any], doc: str | bytes, **extra: Any) -> Any:
    """Return a fact read from a resource's JSON. ``extra`` adds fields that only the database has."""
    if not extra:
        return msgspec.json.decode(doc, type=kind)
    return msgspec.convert({**msgspec.json.decode(doc), **extra}, kind)
