"""Configuration as of a decision: the card, user, product, controls and fees that the decision on a row used.

The backtest worker imports this module, and the start of the worker is part of the time of a backtest. Therefore the module
imports no part of the server.
"""

import msgspec
from sqlalchemy import Connection, select

from cardwright.core.enums import HolderStatus, State
from cardwright.core.fee_groups import NO_FEES, RealTimeFee, by_token, fees_by_holder_group
from cardwright.core.render import details_decoder
from cardwright.core.snapshot import Account, CardFact, Chain, ProductFact, Snapshot, UserFact, fact_from
from cardwright.core.spend_controls import (
    CountryList,
    Groups,
    MccGroup,
    MerchantRule,
    PreKyc,
    Spend,
    applying,
    by_level,
    categories_of,
    resolved_rule,
)
from cardwright.core.transaction_row import TransactionRow
from cardwright.core.velocity import Control
from cardwright.resources.transactions.as_of import facts_as_of, source_as_of
from cardwright.storage import history
from cardwright.storage.controls import control_from, pre_kyc_of, rule_from
from cardwright.storage.history import Kind
from cardwright.storage.tables import card_products


def configuration_as_of(db: Connection, row: TransactionRow) -> Snapshot:
    """Return the snapshot of the decision on a row, without balances, usages and velocity controls."""
    card, user, owner = facts_as_of(db, row)
    product_of_card = select(card_products.c.id).where(
        card_products.c.program_id == row.program_id, card_products.c.token == card.card_product_token
    )
    product_id = db.execute(product_of_card).scalar_one()
    doc = history.doc_as_of(db, row.program_id, Kind.CARD_PRODUCT, product_id, row.program_revision)
    product: ProductFact = fact_from(ProductFact, doc)
    source = source_as_of(db, row) if row.source_id is not None else None
    spend = spend_as_of(db, row, card, user, product, groups_as_of(db, row))
    # The decision on an increment is repeated only if its authorization still had a hold.
    chain = Chain(State.PENDING, 0, 1, 0, 0) if row.root_id is not None else None
    fees = fees_as_of(db, row, user)
    return Snapshot(row.currency, card, user, owner, product, source, Account(), chain, spend=spend, fees=fees)


def docs_as_of(db: Connection, row: TransactionRow, kind: Kind) -> list[tuple[int, str]]:
    """Return the id and the JSON of each active object of a kind at the time of the decision."""
    return history.docs_as_of(db, row.program_id, kind, row.program_revision)


def groups_as_of(db: Connection, row: TransactionRow) -> Groups:
    """Return the MCC groups and merchant groups at the time of the decision."""
    groups = [msgspec.json.decode(doc, type=MccGroup) for _, doc in docs_as_of(db, row, Kind.MCC_GROUP)]
    merchants = [msgspec.json.decode(doc) for _, doc in docs_as_of(db, row, Kind.MERCHANT_GROUP)]
    return Groups({group.token: group for group in groups}, {group["token"]: frozenset(group["mids"]) for group in merchants})


def controls_as_of(db: Connection, row: TransactionRow, card: CardFact, groups: Groups) -> tuple[Control, ...]:
    """Return the velocity controls that applied, in the order of their evaluation, shadow controls included."""
    controls = (control_from(key, fact, groups) for key, fact in docs_as_of(db, row, Kind.VELOCITY_CONTROL))
    return applying(by_level(controls), card.user_token, card.card_product_token)


def rules_as_of(db: Connection, row: TransactionRow, card: CardFact, groups: Groups, kind: Kind) -> tuple[MerchantRule, ...]:
    """Return the authorization controls or the exemptions that applied, in the order of their evaluation."""
    rules = (resolved_rule(rule_from(key, fact), groups) for key, fact in docs_as_of(db, row, kind))
    return applying(by_level(rules), card.user_token, card.card_product_token)


def spend_as_of(
    db: Connection, row: TransactionRow, card: CardFact, user: UserFact, product: ProductFact, groups: Groups
) -> Spend:
    """Return the merchant blocks, exemptions, country list and other merchant rules that applied."""
    rules = product.config.transaction_controls
    lists = (msgspec.json.decode(doc, type=CountryList) for _, doc in docs_as_of(db, row, Kind.ACCEPTED_COUNTRIES))
    pre_kyc = None
    if user.status is HolderStatus.LIMITED:
        docs = (doc for _, doc in docs_as_of(db, row, Kind.ACCOUNT_HOLDER_GROUP))
        holder_groups = (doc for doc in docs if msgspec.json.decode(doc)["token"] == user.account_holder_group_token)
        pre_kyc = next(map(pre_kyc_of, holder_groups), PreKyc())
    mcc = details_decoder.decode(row.details).merchant.mcc
    categories = categories_of(mcc, groups.mccs.values())
    return Spend(
        rules_as_of(db, row, card, groups, Kind.AUTH_CONTROL),
        rules_as_of(db, row, card, groups, Kind.EXEMPTION),
        categories,
        next((country_list for country_list in lists if country_list.token == rules.accepted_countries_token), None),
        groups.mids.get(rules.quasi_cash_exempt_merchant_group_token or "", frozenset()),
        pre_kyc,
    )


def fees_as_of(db: Connection, row: TransactionRow, user: UserFact) -> tuple[RealTimeFee, ...]:
    """Return the real-time fees of the user's account holder group at the time of the decision."""
    groups = [doc for _, doc in docs_as_of(db, row, Kind.REAL_TIME_FEE_GROUP)]
    if not groups:
        return NO_FEES
    holder_groups = [doc for _, doc in docs_as_of(db, row, Kind.ACCOUNT_HOLDER_GROUP)]
    fees = by_token(doc for _, doc in docs_as_of(db, row, Kind.FEE))
    fees_by_group = fees_by_holder_group(holder_groups, by_token(groups), fees, row.currency)
    return fees_by_group.get(user.account_holder_group_token, NO_FEES)
