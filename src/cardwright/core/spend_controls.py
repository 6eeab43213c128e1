"""Spend controls except velocity: authorization controls, exemptions, groups of merchants and lists of countries.

See "Authorization controls", "MCC groups", "Merchant groups" and "Accepted countries" in the wire reference. A decision sees
only the controls that can apply to its card. They are looked up by the card's user and product, so other controls cost no time.
"""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Protocol, TypeVar

import msgspec

from cardwright.kit.clock import Instant

Level = tuple[str, str]
"""Scope of a control: ``user`` or ``product`` and a token, or the whole program."""

PROGRAM_LEVEL: Level = ("program", "")
"""The key of the controls that apply to every card."""

HOLD_DAYS = 7
"""Duration of a hold in days if no MCC group sets one (wire reference, "Expiry"; unverified there)."""


class Associated(Protocol):
    """Control or rule for one user, for the cards of one product, or for the whole program."""

    @property
    def user_token(self) -> str | None:
        """Return the user, or None if it is not for one user."""

    @property
    def card_product_token(self) -> str | None:
        """Return the card product, or None if it is not for one product."""


AnyAssociated = TypeVar("AnyAssociated", bound=Associated)


def level_of(control: Associated) -> Level:
    """Return the level that a control belongs to."""
    if control.user_token is not None:
        return "user", control.user_token
    return PROGRAM_LEVEL if control.card_product_token is None else ("product", control.card_product_token)


def by_level(controls: Iterable[AnyAssociated]) -> dict[Level, tuple[AnyAssociated, ...]]:
    """Return controls by level, in their order. The time of a lookup does not depend on the number of other controls."""
    levels: dict[Level, list[AnyAssociated]] = {}
    for control in controls:
        levels.setdefault(level_of(control), []).append(control)
    return {level: tuple(members) for level, members in levels.items()}


def applying(levels: dict[Level, tuple[AnyAssociated, ...]], user_token: str, product_token: str) -> tuple[AnyAssociated, ...]:
    """Return the controls of a card: its user's, its product's, the program's; within each level the oldest first."""
    if not levels:
        return ()
    get = levels.get
    users, products, program = get(("user", user_token), ()), get(("product", product_token), ()), get(PROGRAM_LEVEL, ())
    # With controls on only one level, the usual case, this copies nothing.
    if not users:
        return (*products, *program) if products and program else products or program
    return (*users, *products, *program) if products or program else users


@lru_cache(maxsize=1024)
def expanded(mccs: tuple[str, ...]) -> frozenset[str]:
    """Return the four-digit codes of single codes and ranges. Ranges include both ends."""
    spans = ((low, high or low) for low, _, high in (code.partition("-") for code in mccs))
    return frozenset(f"{code:04d}" for low, high in spans for code in range(int(low), int(high) + 1))


class IncreaseType(StrEnum):
    """Meaning of the value of a hold increase (``hold_increase.type``)."""

    AMOUNT = "AMOUNT"
    PERCENT = "PERCENT"
    UP_TO_LIMIT = "UP_TO_LIMIT"


class Increase(msgspec.Struct, frozen=True):
    """Increase of a hold by an MCC group. ``value`` is in minor units, or in hundredths of a percent."""

    type: IncreaseType
    value: int

    def of(self, amount: int) -> int:
        """Return the increase of a hold of ``amount`` minor units, rounded half up."""
        match self.type:
            case IncreaseType.AMOUNT:
                return self.value
            case IncreaseType.PERCENT:
                return (amount * self.value + 5_000) // 10_000
            case IncreaseType.UP_TO_LIMIT:
                return max(0, self.value - amount)


class MccGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Named set of merchant category codes. ``mccs`` are single codes and ranges, as in the request.

    ``codes_revision`` is the program's revision at which these codes were set or the group was switched on again.
    """

    token: str
    name: str
    mccs: tuple[str, ...]
    increase: Increase | None = None
    hold_days: int | None = None
    codes_revision: int = 0


class Categories(msgspec.Struct, frozen=True):
    """Rules of the MCC groups for one category code: their names, hold increases, and hold duration in days."""

    names: tuple[str, ...] = ()
    increases: tuple[Increase, ...] = ()
    hold_days: int | None = None


NO_CATEGORIES = Categories()


def categories_of(mcc: str, groups: Iterable[MccGroup]) -> Categories:
    """Return the combined rules of the groups that contain a code. The shortest of several durations applies (a choice)."""
    holding = [group for group in groups if mcc in expanded(group.mccs)]
    if not holding:
        return NO_CATEGORIES
    days = [group.hold_days for group in holding if group.hold_days is not None]
    increases = tuple(group.increase for group in holding if group.increase is not None)
    return Categories(tuple(group.name for group in holding), increases, min(days, default=None))


class Groups(msgspec.Struct, frozen=True):
    """Groups that scopes refer to, by token. An inactive or missing group matches no merchant."""

    mccs: dict[str, MccGroup] = {}
    mids: dict[str, frozenset[str]] = {}

    def codes_of(self, token: str) -> tuple[str, ...]:
        """Return the codes and ranges of an MCC group; empty if it is inactive or missing."""
        group = self.mccs.get(token)
        return () if group is None else group.mccs

    def revision_of(self, token: str) -> int:
        """Return the program's revision at which an MCC group got its codes or was switched on again.

        0 if the group is inactive or missing.
        """
        group = self.mccs.get(token)
        return 0 if group is None else group.codes_revision


class MerchantRule(msgspec.Struct, frozen=True, kw_only=True):
    """Authorization control, or exemption from all of them: its level, its merchants and its period.

    ``start_ms`` is the first instant in force, ``end_ms`` the first instant no longer in force. ``mids`` and ``codes`` follow
    from the scope and its groups (``resolved_rule``); None is no limit.
    """

    id: int
    token: str
    name: str
    user_token: str | None = None
    card_product_token: str | None = None
    mid: str | None = None
    mcc: str | None = None
    mcc_group: str | None = None
    merchant_group: str | None = None
    start_ms: Instant | None = None
    end_ms: Instant | None = None
    mids: frozenset[str] | None = None
    codes: frozenset[str] | None = None

    def acts_on(self, mid: str, mcc: str, now: Instant) -> bool:
        """Return whether it is in force for a merchant. Merchant ids are compared literally (``000123`` is not ``123``)."""
        return (
            (self.mids is None or mid in self.mids)
            and (self.codes is None or mcc in self.codes)
            and (self.start_ms is None or self.start_ms <= now)
            and (self.end_ms is None or now < self.end_ms)
        )


def resolved_rule(rule: MerchantRule, groups: Groups) -> MerchantRule:
    """Return the rule with ``mids`` and ``codes`` computed from its scope, once for all purchases."""
    mids = codes = None
    if rule.mid is not None:
        mids = frozenset((rule.mid,))
    elif rule.merchant_group is not None:
        mids = groups.mids.get(rule.merchant_group, frozenset())
    elif rule.mcc is not None:
        codes = expanded((rule.mcc,))
    elif rule.mcc_group is not None:
        codes = expanded(groups.codes_of(rule.mcc_group))
    return msgspec.structs.replace(rule, mids=mids, codes=codes)


class CountryList(msgspec.Struct, frozen=True, kw_only=True):
    """List of countries (ISO 3166 numbers): those that are accepted, or those that are not."""

    token: str
    name: str
    is_whitelist: bool
    country_codes: frozenset[str]

    def accepts(self, numeric: str) -> bool:
        """Return whether purchases at merchants in the country are accepted."""
        return (numeric in self.country_codes) is self.is_whitelist


class PreKyc(msgspec.Struct, frozen=True, kw_only=True):
    """Rules for the holders of a group before KYC (``pre_kyc_controls``).

    ``balance_max`` is the maximum balance after a load, in whole units of the program's currency; None is no limit.
    """

    cash_access_enabled: bool = False
    international_enabled: bool = False
    balance_max: Decimal | None = None
    enable_non_program_loads: bool = False
    is_reloadable_pre_kyc: bool = False


class Spend(msgspec.Struct, frozen=True):
    """Rules of one decision except velocity controls.

    ``categories`` are the rules for the merchant's code. ``countries`` is the product's own list, None if it has a built-in
    one. The quasi-cash rule does not apply to ``quasi_cash_exempt_mids``. ``pre_kyc`` is None if the user has passed KYC.
    """

    merchant_blocks: tuple[MerchantRule, ...] = ()
    exemptions: tuple[MerchantRule, ...] = ()
    categories: Categories = NO_CATEGORIES
    countries: CountryList | None = None
    quasi_cash_exempt_mids: frozenset[str] = frozenset()
    pre_kyc: PreKyc | None = None

    def blocking(self, mid: str, mcc: str, now: Instant) -> MerchantRule | None:
        """Return the first control that declines a purchase at a merchant; None if there is none or an exemption applies."""
        block = next(self.acting(mid, mcc, now), None)
        return None if block is None or self.exempting(mid, mcc, now) is not None else block

    def acting(self, mid: str, mcc: str, now: Instant) -> Iterator[MerchantRule]:
        """Yield the controls in force for a merchant."""
        return (control for control in self.merchant_blocks if control.acts_on(mid, mcc, now))

    def exempting(self, mid: str, mcc: str, now: Instant) -> MerchantRule | None:
        """Return the first exemption in force for a merchant; None if there is none."""
        return next((rule for rule in self.exemptions if rule.acts_on(mid, mcc, now)), None)


NO_SPEND = Spend()
