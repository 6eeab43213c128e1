"""Messages that move money, as the engine receives them from any edge."""

from enum import StrEnum
from typing import Any

import msgspec

from cardwright.core.transaction_types import CREDITS, FORCED_CLEARING, REFUND, RequestType
from cardwright.kit.clock import Instant


class VelocityCategory(StrEnum):
    """Category of a message for velocity controls; each control includes or excludes it (``include_purchases`` and others)."""

    PURCHASE = "p"
    WITHDRAWAL = "w"
    CREDIT = "c"
    TRANSFER = "t"


CATEGORY_OF = {
    RequestType.WITHDRAWAL: VelocityCategory.WITHDRAWAL, RequestType.ATM_HOLD: VelocityCategory.WITHDRAWAL,
    RequestType.ORIGINAL_CREDIT: VelocityCategory.CREDIT, RequestType.CREDIT_HOLD: VelocityCategory.CREDIT,
}  # fmt: skip
"""The category of a request that is not a purchase."""


class Merchant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, cache_hash=True):
    """Merchant of a purchase. The defaults are the wire's stand-in merchant. Stored keys are short to save space."""

    mcc: str = msgspec.field(default="6411", name="c")
    name: str = msgspec.field(default="Marqeta Storefront", name="n")
    address: str = msgspec.field(default="330 Central Ave. St.", name="a")
    city: str = msgspec.field(default="St. Petersburg", name="i")
    state: str = msgspec.field(default="CA", name="s")
    postal_code: str = msgspec.field(default="33705", name="z")
    country: str = msgspec.field(default="USA", name="u")
    partial_approval_capable: bool = msgspec.field(default=True, name="p")
    security_level: str | None = msgspec.field(default=None, name="e")
    phone: str | None = msgspec.field(default=None, name="t")
    url: str | None = msgspec.field(default=None, name="w")
    customer_service_phone: str | None = msgspec.field(default=None, name="h")


STAND_IN_MERCHANT = Merchant()


class Fee(msgspec.Struct, frozen=True, array_like=True):
    """Network fee: wire type, amount in minor units, ``C`` (credit) or ``D`` (debit)."""

    type: str
    amount: int
    credit_debit: str


def surcharge_of(fees: tuple[Fee, ...]) -> int:
    """Return the acquirer's surcharge that the cardholder pays with a purchase, in minor units."""
    return sum(fee.amount for fee in fees if fee.type == "ACQUIRER_FEE" and fee.credit_debit == "D")


class Assessed(msgspec.Struct, frozen=True, array_like=True):
    """Real-time fee of a chain, assessed with its first transaction.

    ``row_id`` is the first transaction of the fee. ``amount`` is the fee, ``load`` its JIT load, both in minor units. ``fee``
    and ``group`` are JSON.
    """

    row_id: int
    amount: int
    load: int
    fee: str
    group: str


class ChainPart(msgspec.Struct, frozen=True, array_like=True):
    """Part of a chain's amount that velocity controls counted: a request, or the amount of a clearing beyond its hold.

    ``purchase`` and ``cash`` are minor units. ``taken`` is the amount of both that give-backs have removed, the purchase first.
    ``uses`` is 1 while the part counts as a use of the card.
    """

    time_ms: Instant
    mid: str
    mcc: str
    velocity_category: VelocityCategory
    purchase: int
    cash: int
    uses: int
    taken: int = 0

    @property
    def left(self) -> int:
        """Return the amount that no give-back has removed yet, in minor units."""
        return self.purchase + self.cash - self.taken


class Details(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Data of a message without its amount. It is stored with the transaction, and responses are rendered from it.

    ``cash_back`` is the requested cash; ``transaction_row.cash_back_of`` returns the part that is paid out. ``use`` is the
    change of velocity usage by a message that follows another. ``limited_by`` names the control that declined the message.
    ``mcc_groups`` are the MCC groups of the merchant's category.

    ``user_token`` and ``movement``, a JSON fragment, belong to transactions without a card; their ``mid`` is empty. ``hold_ms``
    is the requested duration of a pre-authorization's hold. ``released`` is the rest of a hold that a completion returned.
    ``left`` is the amount that stays authorized after a reversal or an advice. ``unload`` is the part of a pending credit that
    its clearing will return to the funding source, or after a release no longer will.

    ``increments`` are the ids and tokens of a chain's increments, in the root and in later messages. ``parts`` are the chain's
    parts, at its root; None while they follow from the columns of the root. Only ``parts`` and ``increments`` change later.

    ``refund_of`` is the root of the chain that a refund names. ``network`` is None for the stand-in network. ``echoed`` is a
    JSON object of request fields that the transaction repeats. A typed security code or PIN is never stored, only its
    comparison result (PCI DSS 3.3: not stored after authorization).
    """

    mid: str = msgspec.field(name="m")
    merchant: Merchant = msgspec.field(default=STAND_IN_MERCHANT, name="a")
    cash_back: int = msgspec.field(default=0, name="b")
    fees: tuple[Fee, ...] = msgspec.field(default=(), name="f")
    is_pre_auth: bool = msgspec.field(default=False, name="p")
    card_present: bool | None = msgspec.field(default=None, name="r")
    expiration_matches: bool | None = msgspec.field(default=None, name="x")
    security_code_matches: bool | None = msgspec.field(default=None, name="v")
    pin_matches: bool | None = msgspec.field(default=None, name="n")
    typed_street: str | None = msgspec.field(default=None, name="s")
    typed_postal_code: str | None = msgspec.field(default=None, name="z")
    network_metadata: dict[str, Any] | None = msgspec.field(default=None, name="w")
    additional_data: str | None = msgspec.field(default=None, name="d")
    address_verdict: str | None = msgspec.field(default=None, name="y")
    order_refused: bool = msgspec.field(default=False, name="o")
    unload: int = msgspec.field(default=0, name="un")
    chosen_token: str | None = msgspec.field(default=None, name="k")
    root_token: str | None = msgspec.field(default=None, name="q")
    use: tuple[int, int] | None = msgspec.field(default=None, name="u")
    limited_by: str | None = msgspec.field(default=None, name="l")
    velocity_category: VelocityCategory = msgspec.field(default=VelocityCategory.PURCHASE, name="j")
    mcc_groups: tuple[str, ...] = msgspec.field(default=(), name="g")
    network: str | None = msgspec.field(default=None, name="nw")
    subnetwork: str | None = msgspec.field(default=None, name="sn")
    pan_entry_mode: str | None = msgspec.field(default=None, name="pe")
    hold_ms: int | None = msgspec.field(default=None, name="t")
    from_account: str | None = msgspec.field(default=None, name="fa")
    original_credit: dict[str, Any] | None = msgspec.field(default=None, name="oc")
    echoed: str | None = msgspec.field(default=None, name="ec")
    released: int = msgspec.field(default=0, name="e")
    left: int = msgspec.field(default=0, name="lf")
    increments: tuple[tuple[int, str], ...] = msgspec.field(default=(), name="i")
    parts: tuple[ChainPart, ...] | None = msgspec.field(default=None, name="cp")
    refund_of: int | None = msgspec.field(default=None, name="ro")
    assessed: Assessed | None = msgspec.field(default=None, name="rf")
    user_token: str | None = msgspec.field(default=None, name="us")
    movement: str | None = msgspec.field(default=None, name="mo")


class Authorization(msgspec.Struct, frozen=True, kw_only=True):
    """Request of ``amount`` plus cash back plus acquirer fees, in minor units of the program's currency.

    ``request_type`` is a hold, an increment, a purchase settled at once, cash, a balance or a credit. ``increase`` is the
    amount that the merchant's MCC groups hold beyond the request; the merchant does not see it.
    """

    amount: int
    details: Details
    request_type: RequestType = RequestType.PURCHASE
    increase: int = 0

    @property
    def follows(self) -> bool:
        """Return whether it is an increment. Every other request begins a chain."""
        return self.request_type is RequestType.INCREMENT

    @property
    def surcharge(self) -> int:
        """Return the acquirer's surcharge, in minor units; 0 for a balance inquiry and a credit."""
        if not self.details.fees or self.request_type is RequestType.BALANCE_INQUIRY or self.request_type in CREDITS:
            return 0
        return surcharge_of(self.details.fees)

    @property
    def requested(self) -> int:
        """Return the whole request in minor units: purchase, cash back and surcharge.

        Balance inquiries and credits have only an amount.
        """
        if not self.details.fees and not self.details.cash_back:
            return self.amount
        if self.request_type is RequestType.BALANCE_INQUIRY or self.request_type in CREDITS:
            return self.amount
        return self.amount + self.details.cash_back + self.surcharge

    @property
    def wanted(self) -> int:
        """Return the amount to hold, in minor units: the request and the increase."""
        return self.requested + self.increase


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """Report of a lower total of an authorization. ``amount`` is the new total in minor units."""

    amount: int
    details: Details

    @property
    def follows(self) -> bool:
        """Return True: an advice changes the authorization that it names."""
        return True


class Reversal(msgspec.Struct, frozen=True, kw_only=True):
    """Release by the merchant of ``amount`` minor units of a hold, or undoing of as much of a message that was settled at once.

    An advice of a reversal reports a past event and is not declined for its amount. ``window_days`` is the maximum age of the
    original in days.
    """

    amount: int
    details: Details
    is_advice: bool = False
    window_days: int | None = None

    @property
    def follows(self) -> bool:
        """Return True: a reversal changes the authorization that it names."""
        return True


class Clearing(msgspec.Struct, frozen=True, kw_only=True):
    """Final ``amount`` in minor units. Money leaves the account, or a pending credit arrives.

    A forced clearing takes only card and merchant from the message that it names. ``forced_as`` is its stored type.
    """

    amount: int
    details: Details
    is_forced: bool = False
    forced_as: int = FORCED_CLEARING

    @property
    def follows(self) -> bool:
        """Return whether it uses the hold of the authorization that it names: False if it is forced."""
        return not self.is_forced


class Expiry(msgspec.Struct, frozen=True, kw_only=True):
    """Release of the rest of a hold by the platform when the hold is due."""

    details: Details

    @property
    def follows(self) -> bool:
        """Return True: an expiry ends the authorization that it names."""
        return True


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """Refund of ``amount`` minor units by the merchant, or a pending refund. ``type_id`` is the transaction's type.

    It begins a new chain and changes no hold, clearing or state of a purchase that it names. Only velocity controls use that
    purchase (``Details.refund_of``).
    """

    amount: int
    details: Details
    type_id: int = REFUND

    @property
    def follows(self) -> bool:
        """Return False: a refund takes only card and merchant from the transaction that it names."""
        return False


Message = Authorization | Advice | Reversal | Clearing | Refund | Expiry
"""All message types that the engine decides."""
