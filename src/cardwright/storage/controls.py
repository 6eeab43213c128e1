"""Spend controls: queries for active controls, their groups and country lists, and the past that velocity controls count."""

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
"""The separator before and after each member in the column ``members``. A member cannot contain it."""

SHADOW, PROMOTED = 1, 2
"""Values of the column ``shadow`` of a velocity control: a shadow control, and a control that was promoted from one."""

SPEND_CONTROLS = (velocity_controls, auth_controls, exempt_mids)

NO_GROUPS = Groups()


@dataclass(frozen=True, slots=True)
class ActiveControls:
    """Active controls with resolved scopes, oldest first."""

    velocity: list[Control]
    auth: list[MerchantRule]
    exempt: list[MerchantRule]


def load_active_controls(db: Connection, program_id: int, groups: Groups, of_users: Collection[str] | None) -> ActiveControls:
    """Return the active controls of these users; with None, those for no single user.

    Adds the merchant groups that the controls refer to into ``groups``.
    """
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
    """Return True if any active control of the program is for a single user. Such controls are read with the user's purchase."""
    conditions = (
        select(table.c.id).where(table.c.program_id == program_id, table.c.user_token.is_not(None), table.c.active).exists()
        for table in SPEND_CONTROLS
    )
    return bool(db.scalar(select(or_(*conditions))))


def count_program_controls(db: Connection, program_id: int, but: tuple[str, str]) -> int:
    """Return the number of active program-wide controls, without shadow controls and without ``but`` (table name, token)."""
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
    """Return a velocity control from its stored ``fact``, with a resolved scope."""
    return resolved_control(msgspec.convert({**msgspec.json.decode(fact), "id": control_id}, Control), groups)


def rule_from(rule_id: int, fact: str) -> MerchantRule:
    """Return an authorization control or exemption from its stored ``fact``. Its scope is not resolved yet."""
    return msgspec.convert({**msgspec.json.decode(fact), "id": rule_id}, MerchantRule)


def load_mcc_groups(db: Connection, program_id: int) -> dict[str, MccGroup]:
    """Return the program's active MCC groups by token, oldest first."""
    columns = mcc_groups.c
    query = select(columns.fact).where(columns.program_id == program_id, columns.active).order_by(columns.id)
    groups = [msgspec.json.decode(fact, type=MccGroup) for fact in db.scalars(query)]
    return {group.token: group for group in groups}


def load_merchant_groups(db: Connection, program_id: int, groups: Groups, tokens: Iterable[str]) -> None:
    """Add the members of these merchant groups to ``groups.mids``. An inactive group has no members."""
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
    """Return the value of the column ``members`` for these members."""
    return MEMBER_END + "".join(f"{member}{MEMBER_END}" for member in members)


def members_of(text: str) -> frozenset[str]:
    """Return the members that the column ``members`` lists."""
    return frozenset(text.split(MEMBER_END)) - {""}


def has_member(table: Table, member: str) -> ColumnElement[bool]:
    """Return the condition that a group has a member. The comparison is case-sensitive."""
    # Both databases have replace(), which is case-sensitive on both. LIKE is not case-sensitive on SQLite.
    return func.replace(table.c.members, members_text([member]), "") != table.c.members


def load_countries(db: Connection, program_id: int, tokens: Iterable[str]) -> dict[str, CountryList]:
    """Return these country lists by token."""
    columns = accepted_countries.c
    query = select(columns.doc).where(columns.program_id == program_id, columns.token.in_(list(tokens)))
    lists = [msgspec.json.decode(doc, type=CountryList) for doc in db.scalars(query)]
    return {country_list.token: country_list for country_list in lists}


class _Config(msgspec.Struct):
    pre_kyc_controls: PreKyc


class _HolderGroup(msgspec.Struct):
    config: _Config


def pre_kyc_of(doc: str) -> PreKyc:
    """Return the pre-KYC controls from the document of an account holder group."""
    return msgspec.json.decode(doc, type=_HolderGroup).config.pre_kyc_controls


def load_pre_kyc(db: Connection, program_id: int) -> dict[str, PreKyc]:
    """Return the pre-KYC controls of each account holder group by token."""
    columns = account_holder_groups.c
    rows: Any = db.execute(select(columns.token, columns.doc).where(columns.program_id == program_id))
    return {row.token: pre_kyc_of(row.doc) for row in rows}


def load_past(db: Connection, holder_id: int, user_token: str) -> list[Past]:
    """Return the usage changes of a user's transactions on an account, in the order of time and row id."""
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
    """Return the token of a card's product from the card's document."""
    return msgspec.json.decode(card_doc, type=_Card).card_product_token
