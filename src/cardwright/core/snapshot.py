"""What a decision sees: the configuration of one card and the money of its account, as plain values."""

from typing import Any

import msgspec

from cardwright.core.enums import TYPE_NUMBER, CardState, HolderStatus, State
from cardwright.core.fee_groups import NO_FEES, RealTimeFee
from cardwright.core.money import fits
from cardwright.core.spend_controls import NO_SPEND, Spend
from cardwright.core.velocity import Control, Usage
from cardwright.kit.clock import Instant


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A value that decisions and renderings read; decoded from the JSON of a resource, whose other fields it ignores."""


class CardFact(Fact, frozen=True, kw_only=True):
    """A card. ``expires_ms`` is the first instant at which it can no longer be used; ``service_code`` is that of its issue."""

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
    """A cardholder or the owner of the account that the card draws on."""

    token: str
    status: HolderStatus
    address1: str | None = None
    postal_code: str | None = None
    account_holder_group_token: str = "DEFAULT_AHG"
    metadata: dict[str, str] = {}


class AddressCheck(Fact, frozen=True, kw_only=True):
    """What an address mismatch does (``transaction_controls.address_verification``)."""

    validate: bool
    decline_on_address_number_mismatch: bool
    decline_on_postal_code_mismatch: bool


class AddressChecks(Fact, frozen=True, kw_only=True):
    """Rules for account verifications (amount 0) and for authorizations."""

    av_messages: AddressCheck
    auth_messages: AddressCheck


class TransactionControls(Fact, frozen=True, kw_only=True):
    """The leaves of ``config.transaction_controls`` that an authorization is decided by."""

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
    """``config.poi.other``."""

    allow: bool
    card_presence_required: bool
    cardholder_presence_required: bool


class Poi(Fact, frozen=True, kw_only=True):
    """``config.poi``: where the cards of the product may be used."""

    other: OtherPoi
    ecommerce: bool
    atm: bool


class ProgramFunding(Fact, frozen=True, kw_only=True):
    """``config.jit_funding.program_funding_source``: Managed JIT Funding."""

    enabled: bool
    funding_source_token: str = ""
    refunds_destination: str = ""


class JitFunding(Fact, frozen=True, kw_only=True):
    """``config.jit_funding``."""

    program_funding_source: ProgramFunding


class Fulfillment(Fact, frozen=True, kw_only=True):
    """``config.fulfillment``."""

    all_zero_card_security_code: bool
    bin_issue_country: str | None = None


class ClearingAndSettlement(Fact, frozen=True, kw_only=True):
    """``config.clearing_and_settlement``."""

    overdraft_destination: str = "GPA"


class ProductConfig(Fact, frozen=True, kw_only=True):
    """The branches of a card product's ``config`` that an authorization is decided by."""

    poi: Poi
    transaction_controls: TransactionControls
    jit_funding: JitFunding
    fulfillment: Fulfillment
    clearing_and_settlement: ClearingAndSettlement = ClearingAndSettlement()


class ProductFact(Fact, frozen=True, kw_only=True):
    """A card product. Dates are ``yyyy-MM-dd``, first and last day in UTC."""

    token: str
    active: bool
    start_date: str
    config: ProductConfig
    end_date: str | None = None


class SourceFact(Fact, frozen=True, kw_only=True):
    """A program funding source, as it appears inside orders."""

    token: str
    name: str
    active: bool
    created_time: str
    last_modified_time: str


class Account(msgspec.Struct, frozen=True, array_like=True):
    """The money of one account holder, and its standing with velocity controls.

    ``balances``: for each currency the ledger balance and the part of it that is on hold, minor units. ``has_history``
    tells whether a control that the account has not met must look back. ``last_ms`` and ``last_id`` are time and id of the
    newest transaction.
    """

    balances: dict[str, tuple[int, int]] = {}
    usages: dict[str, Usage] = {}
    has_history: bool = False
    last_ms: Instant = 0
    last_id: int = 0

    def money(self, currency: str) -> tuple[int, int]:
        """Ledger balance and sum of open holds in a currency."""
        return self.balances.get(currency, (0, 0))

    def moved(self, currency: str, ledger: int, held: int) -> "Account":
        """The account after its ledger balance and holds in a currency have changed by these amounts."""
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
        """Return when the next transaction happens, ``now`` at the earliest.

        An account's transactions are ordered by (time, id), whichever process decides: a clock that lags behind another
        process's must not take the account back into an earlier window of a velocity control.
        """
        return max(now, self.last_ms if row_id > self.last_id else self.last_ms + 1)

    def marked(self, row_id: int, time_ms: Instant) -> "Account":
        """The account after a transaction of this id and time."""
        return Account(self.balances, self.usages, self.has_history, time_ms, row_id)


class Chain(msgspec.Struct, frozen=True):
    """The root of the chain that a message belongs to, and what is still open of it, in minor units.

    ``load_left`` is what JIT Funding brought and would get back (negative: what it got and would give again), ``cleared``
    what has been settled in all (negative: credited), ``increase`` what an MCC group held beyond what the merchant asked
    for. ``type_id`` is the root's type, ``since_ms`` when it was decided, ``due_ms`` when what is left of its hold expires, 0
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
        """The chain after these changes. A hold that is gone closes it; what never held anything stays as it is."""
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
    """All that one decision sees.

    ``source`` is the funding source of the card's product, for a chain that of its root, None without JIT funding. ``chain`` is
    None for a message that begins one. ``velocity_limits`` and ``spend`` hold only the controls of this card's user, product and
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
    """A fact read from a resource's JSON, with fields that only the database knows added."""
    if not extra:
        return msgspec.json.decode(doc, type=kind)
    return msgspec.convert({**msgspec.json.decode(doc), **extra}, kind)
