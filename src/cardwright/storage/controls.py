"""Spend controls and the groups they point at, as decisions see them, and the history that velocity controls look back at."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, func, or_, select
from sqlalchemy.sql.elements import ColumnElement

from cardwright.core.render import details_decoder
from cardwright.core.spend_controls import CountryList, Groups, MccGroup, MerchantRule, PreKyc, resolved_rule
from cardwright.core.transaction_row import TransactionRow
from cardwright.core.velocity import Control, resolved_control
from cardwright.core.velocity_events import ChainParts, Past, event_of
from cardwright.storage.account_transactions import find_own
from cardwright.storage.database import Row
from cardwright.storage.tables import (
    accepted_countries,
    account_holder_groups,
    auth_controls,
    cards,
    exempt_mids,
    mcc_groups,
    merchant_groups,
    transactions,
    users,
    velocity_controls,
)

MEMBER_END = "\n"
"""Stands before and behind every member of a group in ``members``; a member cannot contain it."""

SHADOW, PROMOTED = 1, 2
"""What stands in the column ``shadow`` of a velocity control that is one, and of one that was."""

SPEND_CONTROLS = (velocity_controls, auth_controls, exempt_mids)

NO_GROUPS = Groups()


@dataclass(frozen=True, slots=True)
class ActiveControls:
    """Active controls of some levels, oldest first, with their scopes worked out."""

    velocity: list[Control]
    auth: list[MerchantRule]
    exempt: list[MerchantRule]


def load_active_controls(db: Connection, program_id: int, groups: Groups, of_users: Collection[str] | None) -> ActiveControls:
    """The active controls of these users, or those that are for no user; ``groups`` gains the merchant groups they name."""
    velocity, auth, exempt = (_facts(db, table, program_id, of_users) for table in SPEND_CONTROLS)
    rules, exemptions = ([rule_from(row.id, row.fact) for row in rows] for rows in (auth, exempt))
    named = {rule.merchant_group for rule in (*rules, *exemptions) if rule.merchant_group is not None}
    load_merchant_groups(db, program_id, groups, named)
    return ActiveControls(
        [control_from(row.id, row.fact, groups) for row in velocity],
        [resolved_rule(rule, groups) for rule in rules],
        [resolved_rule(rule, groups) for rule in exemptions],
    )


def _facts(db: Connection, table: Table, program_id: int, of_users: Collection[str] | None) -> list[Row]:
    whose = table.c.user_token.is_(None) if of_users is None else table.c.user_token.in_(of_users)
    query = select(table.c.id, table.c.fact).where(table.c.program_id == program_id, table.c.active, whose)
    return list(db.execute(query.order_by(table.c.id)))


def has_user_controls(db: Connection, program_id: int) -> bool:
    """Whether any control of the program is for a single user: those are read when the user buys something."""
    conditions = (
        select(table.c.id).where(table.c.program_id == program_id, table.c.user_token.is_not(None), table.c.active).exists()
        for table in SPEND_CONTROLS
    )
    return bool(db.scalar(select(or_(*conditions))))


def count_program_controls(db: Connection, program_id: int, but: tuple[str, str]) -> int:
    """How many active spend controls are for the whole program, besides the one of this table with this token."""
    count = 0
    for table in (velocity_controls, auth_controls):
        columns = table.c
        query = select(func.count()).where(
            columns.program_id == program_id, columns.active, columns.user_token.is_(None), columns.card_product_token.is_(None)
        )
        if table is velocity_controls:
            query = query.where(columns.shadow != SHADOW)
        count += db.execute(query.where(columns.token != but[1]) if table.name == but[0] else query).scalar_one()
    return count


def control_from(control_id: int, fact: str, groups: Groups = NO_GROUPS) -> Control:
    """A velocity control from the JSON that is kept of it for decisions."""
    return resolved_control(msgspec.convert({**msgspec.json.decode(fact), "id": control_id}, Control), groups)


def rule_from(rule_id: int, fact: str) -> MerchantRule:
    """An authorization control or exemption from the JSON that is kept of it for decisions; its scope is not worked out yet."""
    return msgspec.convert({**msgspec.json.decode(fact), "id": rule_id}, MerchantRule)


def load_mcc_groups(db: Connection, program_id: int) -> dict[str, MccGroup]:
    """The program's active MCC groups by token, oldest first."""
    columns = mcc_groups.c
    query = select(columns.fact).where(columns.program_id == program_id, columns.active).order_by(columns.id)
    groups = [msgspec.json.decode(fact, type=MccGroup) for fact in db.scalars(query)]
    return {group.token: group for group in groups}


def load_merchant_groups(db: Connection, program_id: int, groups: Groups, tokens: Iterable[str]) -> None:
    """Adds these merchant groups to those that are known; one that is inactive has no members."""
    missing = {token for token in tokens if token not in groups.mids}
    if not missing:
        return
    columns = merchant_groups.c
    query = select(columns.token, columns.active, columns.members).where(
        columns.program_id == program_id, columns.token.in_(missing)
    )
    for row in db.execute(query):
        groups.mids[row.token] = members_of(row.members) if row.active else frozenset()


def members_text(members: Iterable[str]) -> str:
    """The column ``members`` of a group."""
    return MEMBER_END + "".join(f"{member}{MEMBER_END}" for member in members)


def members_of(text: str) -> frozenset[str]:
    """What the column ``members`` says."""
    return frozenset(text.split(MEMBER_END)) - {""}


def has_member(table: Table, member: str) -> ColumnElement[bool]:
    """The condition that a group has a member, exactly as it is spelt."""
    # Both databases know replace(), and it minds upper and lower case on both, which LIKE does not.
    return func.replace(table.c.members, members_text([member]), "") != table.c.members


def load_countries(db: Connection, program_id: int, tokens: Iterable[str]) -> dict[str, CountryList]:
    """These lists of countries by token."""
    columns = accepted_countries.c
    query = select(columns.doc).where(columns.program_id == program_id, columns.token.in_(list(tokens)))
    lists = [msgspec.json.decode(doc, type=CountryList) for doc in db.scalars(query)]
    return {country_list.token: country_list for country_list in lists}


class _Config(msgspec.Struct):
    pre_kyc_controls: PreKyc


class _HolderGroup(msgspec.Struct):
    config: _Config


def pre_kyc_of(doc: str) -> PreKyc:
    """What an account holder group allows before KYC."""
    return msgspec.json.decode(doc, type=_HolderGroup).config.pre_kyc_controls


def load_pre_kyc(db: Connection, program_id: int) -> dict[str, PreKyc]:
    """What each account holder group allows before KYC, by token."""
    columns = account_holder_groups.c
    rows: Any = db.execute(select(columns.token, columns.doc).where(columns.program_id == program_id))
    return {row.token: pre_kyc_of(row.doc) for row in rows}


def load_past(db: Connection, holder_id: int, user_token: str) -> list[Past]:
    """Return what a user did on an account, as controls count it, in the order of the decisions."""
    query = (
        select(transactions, cards.c.doc.label("card_doc"))
        .join(cards, cards.c.id == transactions.c.card_id)
        .join(users, users.c.id == cards.c.user_id)
        .where(find_own(db, [holder_id]).condition, users.c.token == user_token)
        .order_by(transactions.c.created_ms, transactions.c.id)
    )
    past, chains = [], ChainParts()
    for result in db.execute(query):
        row = TransactionRow.from_row(result)
        details = details_decoder.decode(row.details)
        if changes := chains.changes(row, details, event_of(row, details)):
            past.append(Past(row.created_ms, row.id, product_token_of(result.card_doc), changes))
    return past


class _Card(msgspec.Struct):
    card_product_token: str


def product_token_of(card_doc: str) -> str:
    """The card product that a card belongs to."""
    return msgspec.json.decode(card_doc, type=_Card).card_product_token
