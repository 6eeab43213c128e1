"""Invariants of the books: each is one query or one scan of the rows, run by tests, stress tests and ``verify``.

An invariant only reads. It yields each discrepancy, so it yields nothing on sound books. The first line of its docstring is the
statement in the report.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Table, func, select

from cardwright.kit.masks import mask, redact_mapping
from cardwright.kit.vault import Vault
from cardwright.ledger.invariants.account_lists import listed_is_a_transaction, transaction_is_in_one_list
from cardwright.ledger.invariants.books import (
    approved_has_one_entry,
    balances_are_sums_of_entries,
    chain_shares_its_time,
    chains_add_up,
    declined_moves_nothing,
    deposit_state_matches_transactions,
    deposits_are_what_banks_sent,
    entries_sum_to_zero,
    entry_has_its_transaction,
    fee_waits_for_its_purchase,
    fees_are_what_was_charged,
    funding_is_what_was_moved,
    held_is_open_holds,
    ledger_sums_to_zero,
    open_hold_has_an_end,
    open_purchase_holds_something,
    order_keeps_no_debt,
    settlement_is_what_was_cleared,
    what_is_sent_arrives,
)
from cardwright.ledger.invariants.card_numbers import card_numbers_in_clear
from cardwright.ledger.invariants.references import (
    card_draws_on_its_users_account,
    configuration_has_history,
    controls_match_history,
    facts_match_history,
    message_token_has_its_transaction,
    movement_has_its_transaction,
    notification_has_its_objects,
    programs_stay_apart,
    shadow_hit_has_its_purchase,
    transaction_ids_are_odd,
)
from cardwright.ledger.invariants.scan import Discrepancy
from cardwright.ledger.invariants.secrets import secrets_in_clear
from cardwright.ledger.invariants.transitions import deposit_change_has_its_transition, state_is_that_of_newest_transition
from cardwright.storage.database import Database
from cardwright.storage.tables import (
    auth_controls,
    card_products,
    cards,
    deposit_accounts,
    exempt_mids,
    funding_sources,
    holder_transactions,
    holders,
    journal,
    mcc_groups,
    message_tokens,
    metadata,
    movements,
    outbox,
    shadow_hits,
    transactions,
    users,
    velocity_controls,
)

SHOWN_MAX = 20
"""Maximum number of violations of one invariant in a report; further ones are only counted."""

PROMISES = {
    "P1": "The ledger balances after every commit.",
    "P3": "A request with a given token has one effect.",
    "P4": "No balance and no velocity limit is exceeded.",
    "P5": "The money of an order leaves or reaches its funding source in one entry.",
    "P6": "Each notification arrives at least once, with the same content.",
    "P8": "No card number and no secret is readable in the database.",
    "P9": "A program cannot read or change objects of another program.",
}
"""The promises that invariants check, in words; docs/reference/reliability.md lists all of them."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Discrepancy in a report."""

    name: str
    where: str
    expected: str
    actual: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one invariant: the number of examined rows, the number of violations, and the first ``SHOWN_MAX`` of them."""

    name: str
    promise: str
    says: str
    examined: int
    broken: int
    violations: tuple[Violation, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Report of a check: the results of all invariants."""

    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Return whether no invariant is violated."""
        return not any(finding.broken for finding in self.findings)

    @property
    def violations(self) -> list[Violation]:
        """Return all violations that the report shows."""
        return [violation for finding in self.findings for violation in finding.violations]


@dataclass(frozen=True, slots=True)
class Invariant:
    """Row of the list: the guarantee that it belongs to, the check, and the tables that the check reads.

    The check takes the connection. A check of ``SECRETS`` also takes the vault.
    """

    promise: str
    check: Callable[..., Iterator[Discrepancy]]
    tables: tuple[Table, ...]

    @property
    def name(self) -> str:
        """Return the name of the check function."""
        return self.check.__name__

    @property
    def says(self) -> str:
        """Return the statement that is always true: the first line of the check's docstring."""
        return (self.check.__doc__ or "").splitlines()[0]


def verify(database: Database, *, vault: Vault | None = None) -> Report:
    """Check all invariants on one consistent snapshot of a database, which may be in use.

    With its ``vault``, also search for card numbers and secrets in clear text.
    """
    return Report(tuple(findings(database, vault=vault)))


def findings(database: Database, *, vault: Vault | None = None) -> Iterator[Finding]:
    """Yield the results of ``verify`` one by one, to show progress."""
    with database.read() as db:
        if not database.is_sqlite:
            # One snapshot for all queries: a commit between two of them would look like a discrepancy.
            db.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield from check(db, vault=vault)


def check(db: Connection, *, vault: Vault | None = None) -> Iterator[Finding]:
    """Yield the results of all invariants in a transaction. All its queries must see the same snapshot."""
    counts = {table: db.scalar(select(func.count()).select_from(table)) or 0 for table in metadata.sorted_tables}
    for invariant in INVARIANTS:
        yield _finding(invariant, invariant.check(db), counts)
    for invariant in SECRETS if vault is not None else ():
        yield _finding(invariant, invariant.check(db, vault), counts)


def _finding(invariant: Invariant, discrepancies: Iterator[Discrepancy], counts: Mapping[Table, int]) -> Finding:
    broken, shown = 0, list[Violation]()
    for where, expected, actual in discrepancies:
        broken += 1
        if broken <= SHOWN_MAX:
            # A damaged document may contain a secret.
            shown.append(Violation(invariant.name, where, *(str(redact_mapping(str(part))) for part in (expected, actual))))
    examined = sum(counts[table] for table in invariant.tables)
    return Finding(invariant.name, invariant.promise, invariant.says, examined, broken, tuple(shown))


def card_numbers_stay_sealed(db: Connection, _vault: Vault) -> Iterator[Discrepancy]:
    """No issued card number is stored in clear text."""
    for where, number in card_numbers_in_clear(db):
        yield where, "no card number", mask(number)


def secrets_stay_sealed(db: Connection, vault: Vault) -> Iterator[Discrepancy]:
    """No webhook password, signing secret, custom header or security code is stored in clear text."""
    yield from secrets_in_clear(db, vault)


# --- The list -----------------------------------------------------------------------------

INVARIANTS = (
    Invariant("P1", entries_sum_to_zero, (journal,)),
    Invariant("P1", ledger_sums_to_zero, (journal,)),
    Invariant("P1", balances_are_sums_of_entries, (holders, journal)),
    Invariant("P1", held_is_open_holds, (holders, transactions)),
    Invariant("P1", approved_has_one_entry, (transactions,)),
    Invariant("P1", entry_has_its_transaction, (journal,)),
    Invariant("P1", declined_moves_nothing, (transactions,)),
    Invariant("P1", settlement_is_what_was_cleared, (transactions,)),
    Invariant("P1", fees_are_what_was_charged, (transactions,)),
    Invariant("P1", what_is_sent_arrives, (transactions,)),
    Invariant("P1", deposits_are_what_banks_sent, (transactions,)),
    Invariant("P1", deposit_state_matches_transactions, (transactions,)),
    Invariant("P1", order_keeps_no_debt, (transactions,)),
    Invariant("P1", chains_add_up, (transactions, journal)),
    Invariant("P1", open_purchase_holds_something, (transactions,)),
    Invariant("P1", chain_shares_its_time, (transactions,)),
    Invariant("P1", open_hold_has_an_end, (transactions,)),
    Invariant("P1", fee_waits_for_its_purchase, (transactions,)),
    Invariant("P5", funding_is_what_was_moved, (transactions,)),
    Invariant("P3", transaction_ids_are_odd, (transactions,)),
    Invariant("P3", message_token_has_its_transaction, (message_tokens,)),
    Invariant("P3", movement_has_its_transaction, (movements,)),
    Invariant("P4", shadow_hit_has_its_purchase, (shadow_hits,)),
    Invariant("P6", notification_has_its_objects, (outbox,)),
    Invariant("P6", state_is_that_of_newest_transition, (cards, users, deposit_accounts)),
    Invariant("P6", deposit_change_has_its_transition, (transactions,)),
    Invariant("P1", configuration_has_history, (funding_sources, card_products, users, cards)),
    Invariant("P1", facts_match_history, (users, cards)),
    Invariant("P1", controls_match_history, (velocity_controls, auth_controls, exempt_mids, mcc_groups)),
    Invariant("P3", listed_is_a_transaction, (holder_transactions,)),
    Invariant("P3", transaction_is_in_one_list, (transactions, holders)),
    Invariant("P9", programs_stay_apart, (users, cards, transactions, journal, movements)),
    Invariant("P9", card_draws_on_its_users_account, (cards,)),
)

SECRETS = (
    Invariant("P8", card_numbers_stay_sealed, tuple(metadata.sorted_tables)),
    Invariant("P8", secrets_stay_sealed, tuple(metadata.sorted_tables)),
)
"""The invariants that also take the vault of the database."""
