"""The invariants hold on sound books, and each one notices what it is there for: a table of sabotage, on both databases."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from cardwright.ledger.card_numbers import numbers_in, pattern_of
from cardwright.ledger.invariants import INVARIANTS, SECRETS, SHOWN_MAX, findings, verify
from cardwright.outbox.events import Category, outbox_row
from cardwright.storage.database import Database
from cardwright.storage.tables import outbox
from tests.support.world import World, asked, new_world

PURCHASES = 12


def populate(world: World) -> None:
    """Two cardholders on a JIT product, purchases of both, a decline, a chosen token, and news on their way."""
    world.make("fundingsources/program", token="source", name="Source")
    funding = {"program_funding_source": {"enabled": True, "funding_source_token": "source"}}
    config = {"card_life_cycle": {"activate_upon_issue": True}, "jit_funding": funding}
    world.make("cardproducts", token="product", name="Product", start_date="2025-01-01", config=config)
    for name in ("ana", "ben"):
        world.make("users", token=name)
        world.make("cards", token=f"{name}_card", user_token=name, card_product_token="product")
    cards = ("ben_card", "ana_card")
    batch = [asked(world, cards[number % 2], 100 + number, seed=number) for number in range(PURCHASES)]
    batch[3] = asked(world, "ana_card", 500, seed=3, token="chosen")
    batch[4] = replace(batch[4], inline_target=b"sealed")
    declined = asked(world, "ben_card", 700, seed=99, expiration_matches=False)
    world.run([batch[:5], batch[5:], [declined]])
    with world.database.write() as db:
        transition = db.exec_driver_sql("SELECT token FROM card_transitions").scalars().first()
        db.execute(outbox.insert(), [outbox_row(world.program_id, 0, Category.CARD, [transition], target=b"sealed")])


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with new_world(database_url) as world:
        populate(world)
        yield world


def sabotage(database: Database, *statements: str) -> None:
    """Runs statements that no constraint stops, as a bug in the database or a hand on it would."""
    if database.is_sqlite:
        with sqlite3.connect(database.path, isolation_level=None) as db:
            db.execute("PRAGMA ignore_check_constraints = ON")
            triggers = db.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
            for statement in [f"DROP TRIGGER {name}" for (name,) in triggers] + list(statements):
                db.execute(statement)
        return
    with psycopg.connect(database.dsn, autocommit=True) as db:
        db.execute("SET session_replication_role = replica")
        db.execute("ALTER TABLE journal DROP CONSTRAINT ck_journal_balances")
        for statement in statements:
            db.execute(statement.encode())


def broken(database: Database) -> set[str]:
    """The names of the invariants that do not hold."""
    return {finding.name for finding in verify(database, secrets=True).findings if finding.broken}


def test_sound_books_contradict_nothing(world: World) -> None:
    """After purchases and a decline every invariant holds, and none was looked at in vain."""
    report = verify(world.database, secrets=True)
    assert report.is_sound
    assert report.violations == []
    assert [finding.name for finding in report.findings if finding.examined == 0] == []
    assert len(report.findings) == len(INVARIANTS) + len(SECRETS)


def test_empty_database_is_sound(database_url: str) -> None:
    """Nothing is as true of nothing."""
    with new_world(database_url) as world:
        assert verify(world.database, secrets=True).is_sound


ONE_ENTRY = "WHERE id = (SELECT min(id) FROM journal)"
APPROVED = "WHERE id = (SELECT min(id) FROM transactions WHERE impacted IS NOT NULL)"
DECLINED = "WHERE impacted IS NULL"
ZERO_ENTRY = "INSERT INTO journal (id, program_id, holder_id, source_id, currency, booked_ms)"

SABOTAGE: dict[str, tuple[str, set[str]]] = {
    "an entry gains a cent": (
        f"UPDATE journal SET settlement = 1 {ONE_ENTRY}", {"entries_sum_to_zero", "ledger_sums_to_zero"},
    ),
    "two entries are wrong by the same cent": (
        "UPDATE journal SET fees = CASE id WHEN (SELECT min(id) FROM journal) THEN 1 ELSE -1 END"
        " WHERE id IN (SELECT id FROM journal ORDER BY id LIMIT 2)",
        {"entries_sum_to_zero"},
    ),
    "an entry books to another account": (
        f"UPDATE journal SET available = available - 5, transit = transit + 5 {ONE_ENTRY}", {"balances_are_sums_of_entries"},
    ),
    "money is held in the books only": (
        f"UPDATE journal SET available = available - 5, held = held + 5 {ONE_ENTRY}", {"balances_are_sums_of_entries"},
    ),
    "an entry belongs to nobody's account": (
        f"UPDATE journal SET holder_id = 4711 {ONE_ENTRY}",
        {"balances_are_sums_of_entries", "entry_has_its_transaction", "programs_stay_apart"},
    ),
    "a hold is larger than what is held": (
        f"UPDATE transactions SET hold_left = hold_left + 1 {APPROVED}", {"held_is_open_holds"},
    ),
    "an entry is lost": (
        f"DELETE FROM journal {ONE_ENTRY}",
        {"balances_are_sums_of_entries", "approved_has_one_entry", "funding_is_what_was_moved"},
    ),
    "a declined purchase is booked": (
        f"{ZERO_ENTRY} SELECT id, program_id, holder_id, source_id, currency, created_ms FROM transactions {DECLINED}",
        {"approved_has_one_entry"},
    ),
    "an entry without a transaction": (
        f"{ZERO_ENTRY} SELECT 99999, program_id, holder_id, source_id, currency, 0 FROM journal {ONE_ENTRY}",
        {"entry_has_its_transaction"},
    ),
    "an entry forgets its source": (f"UPDATE journal SET source_id = NULL {ONE_ENTRY}", {"entry_has_its_transaction"}),
    "a declined purchase holds money": (
        f"UPDATE transactions SET hold_left = 1 {DECLINED}", {"declined_moves_nothing", "held_is_open_holds"},
    ),
    "a declined purchase is funded": (
        f"UPDATE transactions SET moved = 1 {DECLINED}", {"declined_moves_nothing", "funding_is_what_was_moved"},
    ),
    "an approved purchase is called declined": (
        f"UPDATE transactions SET first_state = 4 {APPROVED}", {"declined_moves_nothing"},
    ),
    "funding books another amount": (
        f"UPDATE journal SET program_funding = program_funding - 1, transit = transit + 1 {ONE_ENTRY}",
        {"funding_is_what_was_moved"},
    ),
    "a transaction takes the id of a load": (f"UPDATE transactions SET id = id + 1 {DECLINED}", {"transaction_ids_are_odd"}),
    "a token points at nothing": (
        "UPDATE message_tokens SET transaction_id = 99999", {"message_token_has_its_transaction"},
    ),
    "a notification tells of an unknown transaction": (
        "UPDATE outbox SET refs = '[99999]' WHERE category = 1", {"notification_has_its_objects"},
    ),
    "a notification tells of an unknown card transition": (
        "UPDATE outbox SET refs = '[\"nothing\"]' WHERE category = 2", {"notification_has_its_objects"},
    ),
    "a notification goes to an unknown webhook": (
        "UPDATE outbox SET webhook_id = 99999", {"notification_has_its_objects"},
    ),
    "a source has no history": ("DELETE FROM config_history WHERE kind = 1", {"configuration_has_history"}),
    "a product has no history": ("DELETE FROM config_history WHERE kind = 2", {"configuration_has_history"}),
    "a user has no history": ("DELETE FROM config_history WHERE kind = 3", {"configuration_has_history"}),
    "a card has no history": ("DELETE FROM config_history WHERE kind = 4", {"configuration_has_history"}),
    "a revision is taken back": ("UPDATE holders SET revision = 1", {"configuration_has_history"}),
    "an account changes hands": ("UPDATE holders SET program_id = 99", {"programs_stay_apart"}),
    "a purchase with an unknown card": (f"UPDATE transactions SET card_id = 99999 {APPROVED}", {"programs_stay_apart"}),
    "a card draws on a stranger's account": (
        "UPDATE cards SET holder_id = (SELECT holder_id FROM users WHERE token = 'ben') WHERE token = 'ana_card'",
        {"card_draws_on_its_users_account"},
    ),
    "a card number in a name": (
        """UPDATE users SET doc = '{"first_name":"1111110000000019"}' WHERE token = 'ana'""", {"card_numbers_stay_sealed"},
    ),
    "a card number in blocks of four": (
        """UPDATE users SET doc = '{"notes":"call 1111 1100 0000 0019 back"}' WHERE token = 'ana'""",
        {"card_numbers_stay_sealed"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("deed", SABOTAGE)
def test_sabotage_is_noticed(deed: str, world: World) -> None:
    """Books that were tampered with break the invariants that are about it, and no others."""
    statement, expected = SABOTAGE[deed]
    sabotage(world.database, statement)
    assert broken(world.database) == expected


def test_forgotten_balance_is_noticed(world: World) -> None:
    """An account whose stored state was wiped no longer agrees with the books."""
    wiped = "X'9180'" if world.database.is_sqlite else "'\\x9180'"
    sabotage(world.database, f"UPDATE holders SET state = {wiped}")
    assert broken(world.database) == {"balances_are_sums_of_entries", "held_is_open_holds"}


def test_every_invariant_is_sabotaged() -> None:
    """The table above leaves none out, so a new invariant comes with its proof."""
    proven = set().union(*(names for _, names in SABOTAGE.values()))
    assert proven == {invariant.name for invariant in (*INVARIANTS, *SECRETS)}


def test_violations_say_where_and_what(world: World) -> None:
    """A report names the row, what it should say and what it says; of many violations it shows some and counts all."""
    sabotage(world.database, "UPDATE journal SET settlement = 1")
    (finding,) = [one for one in verify(world.database).findings if one.name == "entries_sum_to_zero"]
    assert finding.broken == PURCHASES
    assert len(finding.violations) == min(PURCHASES, SHOWN_MAX)
    first = finding.violations[0]
    assert (first.name, first.where, first.expected, first.found) == ("entries_sum_to_zero", "journal 1", "0", "1")


def test_many_violations_are_counted(world: World) -> None:
    """Beyond twenty they are counted but not kept."""
    world.run([[asked(world, "ana_card", 100, seed=number) for number in range(SHOWN_MAX)]])
    sabotage(world.database, "UPDATE journal SET settlement = 1")
    finding = verify(world.database).findings[0]
    assert (finding.broken, len(finding.violations)) == (PURCHASES + SHOWN_MAX, SHOWN_MAX)


def test_books_in_use_are_seen_at_one_instant(world: World) -> None:
    """Purchases that are committed while the books are checked do not look like contradictions."""
    found = []
    for number, finding in enumerate(findings(world.database)):
        world.run([[asked(world, "ana_card", 100, seed=1000 + number)]])
        found.append(finding)
    assert [finding.name for finding in found if finding.broken] == []
    assert verify(world.database).is_sound


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ("1111110000000019", 1),
        ("x1111110000000019x", 1),
        ("991111110000000019", 1),
        (b"\x001111110000000019", 1),
        ("1111-1100-0000-0019", 1),
        ("1111110000000014", 0),
        ("111111______0019", 0),
        ("2111110000000019", 0),
    ],
)
def test_card_number_is_found(value: Any, count: int) -> None:
    """Only a number with our prefix, the full length and a right check digit is one; what stands around it plays no part."""
    assert len(list(numbers_in(value, [pattern_of("111111", 16)]))) == count
