"""Messages that move money, as the engine receives them from any edge."""

from enum import StrEnum
from typing import Any

import msgspec

from cardwright.core.transaction_types import CREDITS, FORCED_CLEARING, REFUND, RequestType
from cardwright.kit.clock import Instant


class VelocityCategory(StrEnum):
    """What a message is to the velocity controls, which say of each whether they count it (``include_purchases`` …)."""

    PURCHASE = "p"
    WITHDRAWAL = "w"
    CREDIT = "c"
    TRANSFER = "t"


CATEGORY_OF = {
    RequestType.WITHDRAWAL: VelocityCategory.WITHDRAWAL, RequestType.ATM_HOLD: VelocityCategory.WITHDRAWAL,
    RequestType.ORIGINAL_CREDIT: VelocityCategory.CREDIT, RequestType.CREDIT_HOLD: VelocityCategory.CREDIT,
}  # fmt: skip
"""The category of a request that is no purchase."""


class Merchant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, cache_hash=True):
    """Where a purchase is made; the defaults are the wire's stand-in merchant. Keys are short because they are stored."""

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
    """A network fee: wire type, amount in minor units, ``C`` or ``D``."""

    type: str
    amount: int
    credit_debit: str


def surcharge_of(fees: tuple[Fee, ...]) -> int:
    """Return the acquirer's surcharge that the cardholder pays with a purchase, in minor units."""
    return sum(fee.amount for fee in fees if fee.type == "ACQUIRER_FEE" and fee.credit_debit == "D")


class Assessed(msgspec.Struct, frozen=True, array_like=True):
    """The real-time fee of a chain, as it was assessed with its first transaction.

    ``row_id`` is the fee's own first transaction, ``amount`` and ``load``, what JIT Funding brought for it, are minor units;
    ``fee`` and ``group`` are JSON.
    """

    row_id: int
    amount: int
    load: int
    fee: str
    group: str


class ChainPart(msgspec.Struct, frozen=True, array_like=True):
    """A part of a chain's amount as velocity controls counted it: a request, or what a clearing took beyond its hold.

    ``purchase`` and ``cash`` are minor units, ``taken`` is what give-backs took of them so far, the purchase first. ``uses``
    is 1 while the part is a use of the card.
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
        """The amount that no give-back took yet."""
        return self.purchase + self.cash - self.taken


class Details(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a message said beyond its amount: kept with the transaction, small, and rendered from again.

    ``cash_back`` is the cash that was asked for; ``record.cash_back_of`` tells how much of it is paid out.
    ``use`` is the change of velocity usage by a message that follows another. ``limited_by`` names the control
    that refused, ``mcc_groups`` those that held the merchant's category. ``user_token`` and ``movement``, a piece of JSON,
    are of a transaction that no card made, whose ``mid`` is empty. ``hold_ms`` is how long a pre-authorization asks to be
    held, ``released`` the rest of a hold that a completion gave back, ``left`` what stays authorized after a reversal or an
    advice, ``unload`` what of announced money is to go back to the funding source, or no longer is. ``increments`` are ids and
    tokens of a chain's increments: of its root, and of what follows. ``parts`` are those of a chain, at its root, None while
    they follow from the root's own columns; they and the increments are all that changes later. ``refund_of`` is the root of
    the chain that a refund names. ``network`` is None for the stand-in network. ``echoed`` is a JSON object of what the
    transaction shows as it was sent. Neither a typed
    security code nor a PIN is in here, only whether it was right (PCI DSS 3.3: not stored after authorization).
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
    """Asks for ``amount`` plus cash back plus acquirer fees, all in minor units of the program's currency.

    ``request_type`` says what for: a hold, more of one, a purchase that is settled at once, cash, a balance, or a credit.
    ``increase`` is what the merchant's MCC groups hold beyond that; the merchant neither asks for it nor knows of it.
    """

    amount: int
    details: Details
    request_type: RequestType = RequestType.PURCHASE
    increase: int = 0

    @property
    def follows(self) -> bool:
        """Whether it adds to an authorization (an increment); every other request begins a chain."""
        return self.request_type is RequestType.INCREMENT

    @property
    def surcharge(self) -> int:
        """The acquirer's surcharge, in minor units; a balance inquiry and a credit pay none."""
        if not self.details.fees or self.request_type is RequestType.BALANCE_INQUIRY or self.request_type in CREDITS:
            return 0
        return surcharge_of(self.details.fees)

    @property
    def requested(self) -> int:
        """The whole request: purchase, cash back and the acquirer's surcharge, which balance inquiries and credits do not pay."""
        if not self.details.fees and not self.details.cash_back:
            return self.amount
        if self.request_type is RequestType.BALANCE_INQUIRY or self.request_type in CREDITS:
            return self.amount
        return self.amount + self.details.cash_back + self.surcharge

    @property
    def wanted(self) -> int:
        """What is to be held in all."""
        return self.requested + self.increase


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """News that an authorization's total is lower now: ``amount`` is the new total."""

    amount: int
    details: Details

    @property
    def follows(self) -> bool:
        """It changes the authorization that it names."""
        return True


class Reversal(msgspec.Struct, frozen=True, kw_only=True):
    """The merchant lets go of ``amount`` of a hold, or undoes as much of a message that was settled at once.

    An advice of it has happened already and is not declined. ``window_days``: how far back the original may lie.
    """

    amount: int
    details: Details
    is_advice: bool = False
    window_days: int | None = None

    @property
    def follows(self) -> bool:
        """It changes the authorization that it names."""
        return True


class Clearing(msgspec.Struct, frozen=True, kw_only=True):
    """The final ``amount``: money leaves, or comes where it was announced.

    A forced one belongs to no authorization, it only borrows card and merchant; ``forced_as`` is the type it is recorded as.
    """

    amount: int
    details: Details
    is_forced: bool = False
    forced_as: int = FORCED_CLEARING

    @property
    def follows(self) -> bool:
        """It uses the hold of the authorization that it names, unless it is forced."""
        return not self.is_forced


class Expiry(msgspec.Struct, frozen=True, kw_only=True):
    """Time is up for what is left of a hold: the platform itself lets go of it."""

    details: Details

    @property
    def follows(self) -> bool:
        """It ends the authorization that it names."""
        return True


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """The merchant gives ``amount`` back, or announces it. ``type_id`` is the transaction's type.

    It begins a new chain: no hold, clearing or state of a purchase that it names changes. Velocity controls alone look
    at that purchase (``Details.refund_of``).
    """

    amount: int
    details: Details
    type_id: int = REFUND

    @property
    def follows(self) -> bool:
        """It only borrows card and merchant from the transaction that it names."""
        return False


Message = Authorization | Advice | Reversal | Clearing | Refund | Expiry
"""Every kind of message that the engine decides."""
