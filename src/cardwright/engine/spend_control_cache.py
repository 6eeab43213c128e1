"""Spend control cache: the authorization controls, exemptions, groups and country lists of a program, by lookup key."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from cardwright.core.enums import HolderStatus
from cardwright.core.snapshot import CardFact, TransactionControls, UserFact
from cardwright.core.spend_controls import (
    Categories,
    CountryList,
    Groups,
    Level,
    MerchantRule,
    PreKyc,
    Spend,
    applying,
    by_level,
    categories_of,
)
from cardwright.storage.builtin_resources import BUILT_IN
from cardwright.storage.controls import (
    ActiveControls,
    has_user_controls,
    load_active_controls,
    load_countries,
    load_mcc_groups,
    load_merchant_groups,
    load_pre_kyc,
)
from cardwright.storage.tables import accepted_countries

BUILT_IN_LISTS = BUILT_IN[accepted_countries.name]
NO_MIDS: frozenset[str] = frozenset()


@dataclass(slots=True)
class SpendEntry:
    """The spend controls of a program's revision, without velocity controls.

    Controls of a single user are loaded with the user's first purchase; ``users`` contains these users. Merchant groups and
    country lists are loaded with the first control or product that refers to them. ``is_used`` is False if no purchase has
    anything to look up.
    """

    groups: Groups = field(default_factory=lambda: Groups({}, {}))
    pre_kyc: dict[str, PreKyc] = field(default_factory=dict)
    has_user_controls: bool = False
    controls: dict[Level, tuple[MerchantRule, ...]] = field(default_factory=dict)
    exemptions: dict[Level, tuple[MerchantRule, ...]] = field(default_factory=dict)
    countries: dict[str, CountryList] = field(default_factory=dict)
    users: set[str] = field(default_factory=set)
    categories: dict[str, Categories] = field(default_factory=dict)
    is_used: bool = False

    def of(self, card: CardFact, user: UserFact, rules: TransactionControls, mcc: str) -> Spend:
        """Return the spend controls for a purchase with the card at a merchant of this category."""
        exempt_group = rules.quasi_cash_exempt_merchant_group_token
        return Spend(
            applying(self.controls, card.user_token, card.card_product_token),
            applying(self.exemptions, card.user_token, card.card_product_token),
            self.categories_of(mcc),
            self.countries.get(rules.accepted_countries_token),
            NO_MIDS if exempt_group is None else self.groups.mids.get(exempt_group, NO_MIDS),
            self.pre_kyc_of(user),
        )

    def pre_kyc_of(self, user: UserFact) -> PreKyc | None:
        """Return the pre-KYC controls of the user's group, or None for a user after KYC."""
        if user.status is not HolderStatus.LIMITED:
            return None
        return self.pre_kyc.get(user.account_holder_group_token, PreKyc())

    def categories_of(self, mcc: str) -> Categories:
        """Return the settings of the MCC groups for a category. They are computed once for each category."""
        categories = self.categories.get(mcc)
        if categories is None:
            categories = self.categories[mcc] = categories_of(mcc, self.groups.mccs.values())
        return categories

    def add(self, controls: ActiveControls) -> None:
        """Add controls and exemptions of further levels."""
        self.controls.update(by_level(controls.auth))
        self.exemptions.update(by_level(controls.exempt))
        self.is_used = bool(self.is_used or self.controls)

    def load_groups(self, db: Connection, program_id: int, products: Iterable[TransactionControls]) -> None:
        """Load the merchant groups and country lists that card products refer to."""
        for rules in products:
            if rules.accepted_countries_token not in (*BUILT_IN_LISTS, *self.countries):
                self.countries |= load_countries(db, program_id, [rules.accepted_countries_token])
                self.is_used = True
            if rules.quasi_cash_exempt_merchant_group_token is not None:
                load_merchant_groups(db, program_id, self.groups, [rules.quasi_cash_exempt_merchant_group_token])
                self.is_used = True


def load_spend(db: Connection, program_id: int) -> tuple[SpendEntry, ActiveControls]:
    """Return a program's entry, and its active controls for no single user."""
    groups = Groups(load_mcc_groups(db, program_id), {})
    entry = SpendEntry(groups, load_pre_kyc(db, program_id), has_user_controls(db, program_id), is_used=bool(groups.mccs))
    return entry, load_active_controls(db, program_id, groups, None)
