"""Who may buy where: authorization controls, exemptions, groups of merchants and lists of countries, as decisions see them.

The wire reference's "Authorization controls", "MCC groups", "Merchant groups" and "Accepted countries". A decision sees only
what could apply to its card: everything is looked up by the card's user and product, never searched for.
"""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Protocol, TypeVar

import msgspec

from cardwright.kit.clock import Instant

Level = tuple[str, str]
"""Whom a control is for: ``user`` or ``product`` and a token, or everybody."""

PROGRAM_LEVEL: Level = ("program", "")
"""The key of the controls that apply to every card."""

HOLD_DAYS = 7
"""How long a hold lives where no MCC group says otherwise (wire reference, "Expiry"; unverified there)."""


class Associated(Protocol):
    """What a user, the cards of a product, or everybody is subject to."""

    @property
    def user_token(self) -> str | None:
        """The user, if it is for one."""

    @property
    def card_product_token(self) -> str | None:
        """The card product, if it is for the cards of one."""


AnyAssociated = TypeVar("AnyAssociated", bound=Associated)


def level_of(control: Associated) -> Level:
    """The level that a control belongs to."""
    if control.user_token is not None:
        return "user", control.user_token
    return PROGRAM_LEVEL if control.card_product_token is None else ("product", control.card_product_token)


def by_level(controls: Iterable[AnyAssociated]) -> dict[Level, tuple[AnyAssociated, ...]]:
    """Controls by whom they apply to, in their order: looking up what applies costs the same whatever else there is."""
    levels: dict[Level, list[AnyAssociated]] = {}
    for control in controls:
        levels.setdefault(level_of(control), []).append(control)
    return {level: tuple(members) for level, members in levels.items()}


def applying(levels: dict[Level, tuple[AnyAssociated, ...]], user_token: str, product_token: str) -> tuple[AnyAssociated, ...]:
    """What a card is subject to: its user's, its product's, the program's, the oldest first in each."""
    if not levels:
        return ()
    get = levels.get
    users, products, program = get(("user", user_token), ()), get(("product", product_token), ()), get(PROGRAM_LEVEL, ())
    # Usually there is one level only, and then nothing is copied.
    if not users:
        return (*products, *program) if products and program else products or program
    return (*users, *products, *program) if products or program else users


@lru_cache(maxsize=1024)
def expanded(mccs: tuple[str, ...]) -> frozenset[str]:
    """The four-digit codes that single codes and ranges name, both ends of a range included."""
    spans = ((low, high or low) for low, _, high in (code.partition("-") for code in mccs))
    return frozenset(f"{code:04d}" for low, high in spans for code in range(int(low), int(high) + 1))


class IncreaseType(StrEnum):
    """How the value of a hold increase is read (``hold_increase.type``)."""

    AMOUNT = "AMOUNT"
    PERCENT = "PERCENT"
    UP_TO_LIMIT = "UP_TO_LIMIT"


class Increase(msgspec.Struct, frozen=True):
    """What a group adds to a hold. ``value`` in minor units, or in hundredths of a percent."""

    type: IncreaseType
    value: int

    def of(self, amount: int) -> int:
        """By how much a hold of ``amount`` minor units is raised; half a unit is rounded up."""
        match self.type:
            case IncreaseType.AMOUNT:
                return self.value
            case IncreaseType.PERCENT:
                return (amount * self.value + 5_000) // 10_000
            case IncreaseType.UP_TO_LIMIT:
                return max(0, self.value - amount)


class MccGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A named set of merchant category codes; ``mccs`` are single codes and ranges, as they were sent.

    ``codes_revision`` is the program's revision at which these codes were set, or the group was switched on again.
    """

    token: str
    name: str
    mccs: tuple[str, ...]
    increase: Increase | None = None
    hold_days: int | None = None
    codes_revision: int = 0


class Categories(msgspec.Struct, frozen=True):
    """What the MCC groups say of one category code: their names, how they raise holds, how long those live."""

    names: tuple[str, ...] = ()
    increases: tuple[Increase, ...] = ()
    hold_days: int | None = None


NO_CATEGORIES = Categories()


def categories_of(mcc: str, groups: Iterable[MccGroup]) -> Categories:
    """What the groups that hold a code say together: of several lives the shortest counts (a choice)."""
    holding = [group for group in groups if mcc in expanded(group.mccs)]
    if not holding:
        return NO_CATEGORIES
    days = [group.hold_days for group in holding if group.hold_days is not None]
    increases = tuple(group.increase for group in holding if group.increase is not None)
    return Categories(tuple(group.name for group in holding), increases, min(days, default=None))


class Groups(msgspec.Struct, frozen=True):
    """The groups that scopes point at, by token. One that is inactive or missing matches nothing."""

    mccs: dict[str, MccGroup] = {}
    mids: dict[str, frozenset[str]] = {}

    def codes_of(self, token: str) -> tuple[str, ...]:
        """The codes and ranges of an MCC group."""
        group = self.mccs.get(token)
        return () if group is None else group.mccs

    def revision_of(self, token: str) -> int:
        """Return the program's revision at which an MCC group got the codes that it has, or was switched on again."""
        group = self.mccs.get(token)
        return 0 if group is None else group.codes_revision


class MerchantRule(msgspec.Struct, frozen=True, kw_only=True):
    """An authorization control, or an exemption from all of them: for whom, where, and from when to when.

    ``start_ms`` is the first instant at which it is in force, ``end_ms`` the first at which it no longer is. ``mids`` and
    ``codes`` follow from the scope and its groups (``resolved_rule``); None is no limit.
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
        """Whether it is in force for a merchant; ids are compared as they are (``000123`` is not ``123``)."""
        return (
            (self.mids is None or mid in self.mids)
            and (self.codes is None or mcc in self.codes)
            and (self.start_ms is None or self.start_ms <= now)
            and (self.end_ms is None or now < self.end_ms)
        )


def resolved_rule(rule: MerchantRule, groups: Groups) -> MerchantRule:
    """The rule with its scope worked out: it is looked at for every purchase of those whom it is for."""
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
    """A list of countries (ISO 3166 numbers): the only ones that are accepted, or those that are not."""

    token: str
    name: str
    is_whitelist: bool
    country_codes: frozenset[str]

    def accepts(self, numeric: str) -> bool:
        """Whether a merchant in the country may be paid."""
        return (numeric in self.country_codes) is self.is_whitelist


class PreKyc(msgspec.Struct, frozen=True, kw_only=True):
    """What holders of a group may do before they have passed KYC (``pre_kyc_controls``).

    ``balance_max`` is what a load may leave on the account, in whole units of the program's currency; None is no limit.
    """

    cash_access_enabled: bool = False
    international_enabled: bool = False
    balance_max: Decimal | None = None
    enable_non_program_loads: bool = False
    is_reloadable_pre_kyc: bool = False


class Spend(msgspec.Struct, frozen=True):
    """The rules that one decision sees besides velocity controls.

    ``categories`` are of the merchant's code; ``countries`` the product's own list, None where it has a built-in one;
    ``quasi_cash_exempt_mids`` are free of the quasi-cash rule; ``pre_kyc`` is None where the user has passed KYC.
    """

    merchant_blocks: tuple[MerchantRule, ...] = ()
    exemptions: tuple[MerchantRule, ...] = ()
    categories: Categories = NO_CATEGORIES
    countries: CountryList | None = None
    quasi_cash_exempt_mids: frozenset[str] = frozenset()
    pre_kyc: PreKyc | None = None

    def blocking(self, mid: str, mcc: str, now: Instant) -> MerchantRule | None:
        """The first control that refuses a purchase at a merchant; None when there is none, or an exemption overrides them."""
        block = next(self.acting(mid, mcc, now), None)
        return None if block is None or self.exempting(mid, mcc, now) is not None else block

    def acting(self, mid: str, mcc: str, now: Instant) -> Iterator[MerchantRule]:
        """The controls in force for a merchant."""
        return (control for control in self.merchant_blocks if control.acts_on(mid, mcc, now))

    def exempting(self, mid: str, mcc: str, now: Instant) -> MerchantRule | None:
        """The first exemption of a merchant."""
        return next((rule for rule in self.exemptions if rule.acts_on(mid, mcc, now)), None)


NO_SPEND = Spend()
