"""Invariants: they hold on sound books, and each manipulation breaks exactly the expected ones, on both databases."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection

from cardwright.core.enums import TYPE_NUMBER, State
from cardwright.core.messages import Advice, Clearing, Refund, Reversal
from cardwright.core.movements import Deposit, DepositTransition, FeeCharge, GpaLoad, PeerTransfer, ProgramTransfer, Unload
from cardwright.engine.batch import CardRequest
from cardwright.kit.vault import Vault
from cardwright.ledger.invariants import INVARIANTS, SECRETS, SHOWN_MAX, check, findings, verify
from cardwright.ledger.invariants.card_numbers import numbers_in, pattern_of
from cardwright.outbox.endpoint import TARGET_CONTEXT
from cardwright.outbox.events import Category, Target, outbox_row
from cardwright.resources.analysis import shadow_controls
from cardwright.resources.common.call import Call
from cardwright.resources.controls import velocity_controls
from cardwright.storage.database import Database
from cardwright.storage.programs import get_program
from cardwright.storage.tables import message_tokens, outbox, transactions
from tests.support.databases import chosen_databases, migrated_database
from tests.support.in_process_platform import InProcessPlatform, card_request, movement_request, new_platform
from tests.support.instants import NOON

PURCHASES, FOLLOW_UPS, MOVED = 12, 9, 15
INLINE = '{"endpoint":"http://127.0.0.1:9/","username":"harbor","password":"Harb0r-Inline-Passw0rd!"}'
WITH_FEE, FEES, ENDS = 3, 5, 2


def follow_up(platform: InProcessPlatform, purchases: list[int]) -> None:
    """Send each kind of follow-up: reversals, clearings in part, above the hold and without a hold, an advice and a refund."""

    def after(number: int, kind: type[Any], amount: int, **options: Any) -> CardRequest:
        card = ("ben_card", "ana_card")[number % 2]
        return card_request(platform, card, amount, seed=number, kind=kind, root_id=purchases[number], **options)

    batch = [
        after(0, Reversal, 40), after(0, Clearing, 60), after(1, Reversal, 101), after(2, Clearing, 150), after(3, Advice, 200),
        after(5, Clearing, 50), after(5, Refund, 20), after(6, Clearing, 30, forced=True), after(7, Reversal, 9999),
    ]  # fmt: skip
    platform.run([batch])


def move_money(platform: InProcessPlatform) -> None:
    """Move money without a card: an order with a fee, a partial unload, a fee, a peer transfer and a program transfer."""
    order = movement_request(platform, GpaLoad, ["ana"], 1000, seed=201, fees=[10], source="source")
    (_,) = platform.run([[order]])
    with platform.database.read() as db:
        root = db.exec_driver_sql("SELECT max(id) FROM movements").scalar_one()
    batch = [
        movement_request(platform, Unload, ["ana"], 300, seed=202, source="source", root_id=root),
        movement_request(platform, FeeCharge, ["ana"], 0, seed=203, fees=[20]),
        movement_request(platform, PeerTransfer, ["ana", "ben"], 200, seed=204),
        movement_request(platform, ProgramTransfer, ["ana"], 100, seed=205, fees=[5], source="source"),
    ]
    platform.run([batch])
    send_deposits(platform)


def send_deposits(platform: InProcessPlatform) -> None:
    """Create a settled direct deposit, a pending one, a returned one, and a paid debit."""
    platform.make("depositaccounts", token="account", user_token="ben")
    far, echo = 10**14, {"user_token": "ben", "direct_deposit_account_token": "account"}
    credit, debit = {"is_credit": True, "echoed": echo}, {"is_credit": False, "echoed": echo}
    returned = movement_request(platform, Deposit, ["ben"], 60, seed=301, settles_ms=far, **credit)
    platform.run([[returned]])
    with platform.database.read() as db:
        root = db.exec_driver_sql("SELECT max(id) FROM movements").scalar_one()
    back = {"to": State.CLEARED, "channel": "API", "reason": "Return", "reason_code": "R03"}
    batch = [
        movement_request(platform, DepositTransition, ["ben"], 0, seed=302, root_id=root, **back),
        movement_request(platform, Deposit, ["ben"], 50, seed=303, settles_ms=0, **credit),
        movement_request(platform, Deposit, ["ben"], 20, seed=304, settles_ms=0, **debit),
        movement_request(platform, Deposit, ["ben"], 70, seed=305, settles_ms=far, **credit),
    ]
    platform.run([batch])


def pay_fees(platform: InProcessPlatform) -> None:
    """Create a third cardholder and purchases with a real-time fee. One fee is pending, one charged, one released."""
    attributes = {"fee_attributes": {"transaction_type": "authorization"}, "category": "REALTIME"}
    platform.make("fees", token="fee", name="Fee", amount=0.25, currency_code="USD", **attributes)
    platform.make("realtimefeegroups", token="fees", name="Fees", fee_tokens=("fee",))
    platform.make("accountholdergroups", token="members", config={"real_time_fee_group_token": "fees"})
    platform.make("users", token="cal", account_holder_group_token="members")
    platform.make("cards", token="cal_card", user_token="cal", card_product_token="product")
    _, cleared, undone = platform.run([[card_request(platform, "cal_card", 50, seed=400 + number) for number in range(3)]])
    ends = ((Clearing, cleared), (Reversal, undone))
    platform.run(
        [[card_request(platform, "cal_card", 50, kind=kind, root_id=outcome.row.id, seed=410) for kind, outcome in ends]]
    )


def populate(platform: InProcessPlatform) -> None:
    """Create two cardholders with purchases, a decline, a chosen token, fees, follow-ups, movements and notifications."""
    platform.make("fundingsources/program", token="source", name="Source")
    funding = {"program_funding_source": {"enabled": True, "funding_source_token": "source"}}
    config = {"card_life_cycle": {"activate_upon_issue": True}, "jit_funding": funding}
    platform.make("cardproducts", token="product", name="Product", start_date="2025-01-01", config=config)
    for name in ("ana", "ben"):
        platform.make("users", token=name)
        platform.make("cards", token=f"{name}_card", user_token=name, card_product_token="product")
    with platform.database.write() as db:
        call = Call(platform.app, db, get_program(db, platform.program_id), NOON, {})
        limit = {"token": "quiet", "amount_limit": 6, "velocity_window": "DAY", "currency_code": "USD"}
        shadow_controls.create_shadow(call, msgspec.convert(limit, velocity_controls.VelocityCreate))
    platform.make("velocitycontrols", amount_limit=1000, velocity_window="DAY", currency_code="USD")
    platform.make("mccgroups", token="bars", name="Bars", mccs=("5813",))
    platform.make("authcontrols", name="No bars", merchant_scope={"mcc_group": "bars"})
    platform.make("authcontrols/exemptmids", name="But this", mid="pub")
    cards = ("ben_card", "ana_card")
    batch = [card_request(platform, cards[number % 2], 100 + number, seed=number) for number in range(PURCHASES)]
    batch[3] = card_request(platform, "ana_card", 500, seed=3, token="chosen")
    target = Target(-7, platform.app.vault.seal(INLINE, TARGET_CONTEXT))
    batch[4] = batch[4]._replace(inline_target=target)
    declined = card_request(platform, "ben_card", 700, seed=99, expiration_matches=False)
    first = [result.row.id for result in platform.run([batch[:5], batch[5:], [declined]])]
    pay_fees(platform)
    follow_up(platform, first)
    move_money(platform)
    with platform.database.write() as db:
        transition = db.exec_driver_sql("SELECT token FROM card_transitions").scalars().first()
        db.execute(outbox.insert(), [outbox_row(platform.program_id, 0, Category.CARD, [transition], target=target)])


@pytest.fixture(scope="module", params=chosen_databases())
def sound_platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessPlatform]:
    """Yield a platform for the tests that leave the database unchanged."""
    folder = tmp_path_factory.mktemp("sound")
    with migrated_database(request.param, request, folder) as address, new_platform(address) as platform:
        populate(platform)
        yield platform


@pytest.fixture
def platform(migrated_url: str) -> Iterator[InProcessPlatform]:
    """Yield a platform for a test that writes."""
    with new_platform(migrated_url) as platform:
        populate(platform)
        yield platform


@contextmanager
def unguarded(database: Database) -> Iterator[Connection]:
    """Yield a transaction without constraints, as after a bug or a manual change. It is rolled back at the end."""
    with database.engine.connect() as db:
        if database.is_sqlite:
            triggers = db.exec_driver_sql("SELECT name FROM sqlite_schema WHERE type = 'trigger'").scalars().all()
            unlocked = [f"DROP TRIGGER {name}" for name in triggers]
            db.rollback()
            # SQLite does not change `foreign_keys` inside a transaction.
            for pragma in ("PRAGMA ignore_check_constraints = ON", "PRAGMA foreign_keys = OFF"):
                db.connection.driver_connection.execute(pragma)
        else:
            unlocked = ["SET LOCAL session_replication_role = replica", "ALTER TABLE journal DROP CONSTRAINT ck_journal_balances"]
        for command in unlocked:
            db.exec_driver_sql(command)
        yield db
        db.rollback()
        # The connection must not return to the pool, because its guards are off.
        db.invalidate()


def sabotage(db: Connection, statement: str, vault: Vault) -> set[str]:
    """Return the invariants that a statement on an unguarded connection breaks. The statement is rolled back."""
    savepoint = db.begin_nested()
    db.exec_driver_sql(statement.replace("%", "%%"))
    broken = {finding.name for finding in check(db, vault=vault) if finding.broken}
    savepoint.rollback()
    return broken


def test_sound_books_contradict_nothing(sound_platform: InProcessPlatform) -> None:
    """After purchases, movements and a decline every invariant holds, and each one examined at least one row."""
    report = verify(sound_platform.database, vault=sound_platform.app.vault)
    assert report.is_sound
    assert report.violations == []
    assert [finding.name for finding in report.findings if finding.examined == 0] == []
    assert len(report.findings) == len(INVARIANTS) + len(SECRETS)


def test_empty_database_is_sound(migrated_url: str) -> None:
    """A program without transactions satisfies every invariant."""
    with new_platform(migrated_url) as platform:
        assert verify(platform.database, vault=platform.app.vault).is_sound


ONE_ENTRY = "WHERE id = (SELECT min(id) FROM journal)"
OPEN = "WHERE id = (SELECT max(id) FROM transactions WHERE hold_left > 0 AND card_id IS NOT NULL)"
CLEARED = "WHERE id = (SELECT min(id) FROM transactions WHERE cleared > 0)"
APPROVED = "WHERE id = (SELECT min(id) FROM transactions WHERE impacted IS NOT NULL)"
DECLINED = "WHERE id = (SELECT min(id) FROM transactions WHERE impacted IS NULL AND root_id IS NULL)"
ZERO_ENTRY = "INSERT INTO journal (id, program_id, holder_id, source_id, currency, booked_ms)"

LISTS = {"listed_is_a_transaction", "transaction_is_in_one_list"}
"""The invariants that break if an entry of an account's list does not match its transaction."""

PENDING = TYPE_NUMBER["directdeposit.credit.pending"]

SABOTAGE: dict[str, tuple[str, set[str]]] = {
    "an entry gains a cent": (
        f"UPDATE journal SET fees = 1 {ONE_ENTRY}",
        {"entries_sum_to_zero", "ledger_sums_to_zero", "fees_are_what_was_charged"},
    ),
    "two entries are wrong by the same cent": (
        "UPDATE journal SET fees = CASE id WHEN (SELECT min(id) FROM journal) THEN 1 ELSE -1 END"
        " WHERE id IN (SELECT id FROM journal ORDER BY id LIMIT 2)",
        {"entries_sum_to_zero", "fees_are_what_was_charged"},
    ),
    "an entry books to another account": (
        f"UPDATE journal SET available = available - 5, transit = transit + 5 {ONE_ENTRY}",
        {"balances_are_sums_of_entries", "what_is_sent_arrives"},
    ),
    "money is held in the books only": (
        f"UPDATE journal SET available = available - 5, held = held + 5 {ONE_ENTRY}",
        {"balances_are_sums_of_entries", "chains_add_up"},
    ),
    "an entry belongs to nobody's account": (
        f"UPDATE journal SET holder_id = 4711 {ONE_ENTRY}",
        {"balances_are_sums_of_entries", "entry_has_its_transaction", "programs_stay_apart"},
    ),
    "a hold is larger than what is held": (
        f"UPDATE transactions SET hold_left = hold_left + 1 {OPEN}", {"held_is_open_holds", "chains_add_up"},
    ),
    "an entry is lost": (
        f"DELETE FROM journal {ONE_ENTRY}",
        {"balances_are_sums_of_entries", "approved_has_one_entry", "funding_is_what_was_moved", "chains_add_up"},
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
        f"UPDATE transactions SET hold_left = 1 {DECLINED}",
        {
            "declined_moves_nothing", "held_is_open_holds", "chains_add_up", "open_purchase_holds_something",
            "open_hold_has_an_end",
        },
    ),
    "a declined purchase is funded": (
        f"UPDATE transactions SET moved = 1 {DECLINED}",
        {"declined_moves_nothing", "funding_is_what_was_moved", "chains_add_up"},
    ),
    "an approved purchase is called declined": (
        f"UPDATE transactions SET first_state = 4 {APPROVED}", {"declined_moves_nothing"},
    ),
    "funding books another amount": (
        f"UPDATE journal SET program_funding = program_funding - 1, transit = transit + 1 {ONE_ENTRY}",
        {"funding_is_what_was_moved", "what_is_sent_arrives"},
    ),
    "a hold is forgotten by its purchase": (
        f"UPDATE transactions SET state = 2 {OPEN}", {"open_purchase_holds_something"},
    ),
    "a transaction was made before it began": (
        f"UPDATE transactions SET created_ms = created_ms + 1 {DECLINED}", {"chain_shares_its_time"},
    ),
    "a clearing is of another day": (
        "UPDATE transactions SET user_time_ms = user_time_ms - 1 WHERE root_id IS NOT NULL",
        {"chain_shares_its_time", *LISTS},
    ),
    "a hold never ends": (f"UPDATE transactions SET due_ms = 0 {OPEN}", {"open_hold_has_an_end"}),
    "a chain forgets what was cleared": (f"UPDATE transactions SET cleared = cleared - 1 {CLEARED}", {"chains_add_up"}),
    "a chain believes in more loaded money": (f"UPDATE transactions SET load_left = load_left + 1 {OPEN}", {"chains_add_up"}),
    "a message changes its chain": (
        "UPDATE transactions SET root_id = (SELECT max(id) FROM transactions WHERE hold_left > 0)"
        " WHERE id = (SELECT max(id) FROM transactions WHERE type_id = 12 AND root_id IS NOT NULL)",
        {"chains_add_up"},
    ),
    "a message follows nothing": (
        "UPDATE transactions SET root_id = 99999 WHERE id = (SELECT min(id) FROM transactions WHERE root_id IS NOT NULL"
        " AND first_state = 4)",
        {"programs_stay_apart"},
    ),
    "the network is owed less": (
        "UPDATE journal SET settlement = settlement - 5, transit = transit + 5 WHERE id = (SELECT min(id) FROM journal"
        " WHERE settlement > 0)",
        {"settlement_is_what_was_cleared", "what_is_sent_arrives", "chains_add_up"},
    ),
    "a clearing draws on funding twice": (
        "UPDATE journal SET program_funding = program_funding - 5, transit = transit + 5 WHERE id = (SELECT max(id) FROM journal"
        " WHERE settlement > 0)",
        {"funding_is_what_was_moved", "chains_add_up", "what_is_sent_arrives"},
    ),
    "a fee is earned by nobody": (
        "UPDATE journal SET fees = fees - 5, settlement = settlement + 5 WHERE id = (SELECT min(id) FROM journal WHERE fees > 0)",
        {"chains_add_up", "fees_are_what_was_charged", "settlement_is_what_was_cleared"},
    ),
    "a real-time fee waits for a purchase that is over": (
        "UPDATE transactions SET cleared = 50 WHERE id = (SELECT max(id) - 2 FROM transactions WHERE type_id = "
        f"{TYPE_NUMBER['fee.charge.pending']} AND hold_left > 0)",
        {"fee_waits_for_its_purchase", "chains_add_up"},
    ),
    "money is lost between two accounts": (
        "UPDATE journal SET transit = transit - 5, settlement = settlement + 5 WHERE id = (SELECT min(id) FROM journal"
        " WHERE transit > 0)",
        {"chains_add_up", "what_is_sent_arrives", "settlement_is_what_was_cleared"},
    ),
    "a deposit comes from nowhere": (
        "UPDATE journal SET deposits = deposits - 5, transit = transit + 5 WHERE id = (SELECT min(id) FROM journal"
        " WHERE deposits < 0)",
        {"deposits_are_what_banks_sent", "what_is_sent_arrives"},
    ),
    "a deposit is said to have been refused": (
        f"UPDATE transactions SET state = 4 WHERE type_id = {PENDING} AND state = 3", {"deposit_state_matches_transactions"},
    ),
    "a deposit waits for ever": (
        f"UPDATE transactions SET due_ms = 0 WHERE type_id = {PENDING} AND state = 1",
        {"open_purchase_holds_something", "open_hold_has_an_end"},
    ),
    "more is unloaded than was loaded": (
        "UPDATE transactions SET load_left = -1 WHERE id = (SELECT min(id) FROM movements)",
        {"order_keeps_no_debt", "chains_add_up"},
    ),
    "an order forgets that it was unloaded": (
        "UPDATE transactions SET load_left = load_left + 300 WHERE id = (SELECT min(id) FROM movements)", {"chains_add_up"},
    ),
    "an order has no transaction": (
        "UPDATE movements SET id = 99999 WHERE id = (SELECT min(id) FROM movements)", {"movement_has_its_transaction"},
    ),
    "a deposit's transition is lost": (
        "DELETE FROM movements WHERE kind = 8 AND id = (SELECT max(id) FROM movements)", {"deposit_change_has_its_transition"},
    ),
    "a deposit's transition tells another state": (
        "UPDATE movements SET doc = replace(doc, '\"state\":\"REVERSED\"', '\"state\":\"REJECTED\"') WHERE kind = 8",
        {"deposit_change_has_its_transition"},
    ),
    "a card is suspended without a transition": (
        "UPDATE cards SET doc = replace(doc, '\"state\":\"ACTIVE\"', '\"state\":\"SUSPENDED\"') WHERE token = 'ana_card'",
        {"state_is_that_of_newest_transition"},
    ),
    "a card is shown without a transition": (
        "UPDATE cards SET doc = replace(doc, 'ISSUED', 'DIGITALLY_PRESENTED') WHERE token = 'ana_card'",
        {"state_is_that_of_newest_transition"},
    ),
    "a user's transitions are lost": (
        "DELETE FROM user_transitions WHERE user_id = (SELECT id FROM users WHERE token = 'ana')",
        {"state_is_that_of_newest_transition"},
    ),
    "a deposit account's transition is lost": (
        "DELETE FROM deposit_account_transitions", {"state_is_that_of_newest_transition"},
    ),
    "an order belongs to nobody": ("UPDATE movements SET holder_id = 99999", {"programs_stay_apart"}),
    "a transaction takes the id of a load": (
        f"UPDATE transactions SET id = id + 1 {DECLINED}", {"transaction_ids_are_odd", *LISTS},
    ),
    "an account's list loses a transaction": (
        "DELETE FROM holder_transactions WHERE id = (SELECT max(id) FROM holder_transactions)", {"transaction_is_in_one_list"},
    ),
    "an account's list has a transaction twice": (
        "INSERT INTO holder_transactions SELECT program_id, holder_id, user_time_ms + 1, id FROM holder_transactions",
        {"listed_is_a_transaction"},
    ),
    "a transaction is in a stranger's list": (
        "UPDATE holder_transactions SET holder_id = holder_id + 1 WHERE id = (SELECT max(id) FROM holder_transactions)", LISTS,
    ),
    "an account forgets its newest transaction": (
        "UPDATE holders SET recent = substr(recent, 9) WHERE length(recent) > 0", {"transaction_is_in_one_list"},
    ),
    "an account names a stranger's newest transactions": (
        "UPDATE holders SET recent = (SELECT recent FROM holders WHERE length(recent) > 0 ORDER BY id LIMIT 1)",
        {"transaction_is_in_one_list"},
    ),
    "a token points at nothing": (
        "UPDATE message_tokens SET transaction_id = 99999", {"message_token_has_its_transaction"},
    ),
    "a shadow would have declined nothing": (
        "UPDATE shadow_hits SET transaction_id = 99999 WHERE transaction_id = (SELECT max(transaction_id) FROM shadow_hits)",
        {"shadow_hit_has_its_purchase"},
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
    "a user has no history": (
        "DELETE FROM config_history WHERE kind = 3", {"configuration_has_history", "facts_match_history"},
    ),
    "a card has no history": (
        "DELETE FROM config_history WHERE kind = 4", {"configuration_has_history", "facts_match_history"},
    ),
    "a card is thought to be what it is not": (
        "UPDATE cards SET fact = replace(fact, 'ACTIVE', 'SUSPENDED')", {"facts_match_history"},
    ),
    "a control is not what it was said to be": (
        "UPDATE velocity_controls SET fact = replace(fact, '1000', '2000')", {"controls_match_history"},
    ),
    "a control is switched off in silence": ("UPDATE auth_controls SET active = false", {"controls_match_history"}),
    "an exemption has no history": ("DELETE FROM config_history WHERE kind = 11", {"controls_match_history"}),
    "a group grows in silence": (
        "UPDATE mcc_groups SET fact = replace(fact, '5813', '5814')", {"controls_match_history"},
    ),
    "a revision is taken back": ("UPDATE holders SET revision = 1", {"configuration_has_history"}),
    "an account changes hands": ("UPDATE holders SET program_id = 99", {"programs_stay_apart"}),
    "a purchase with an unknown card": (f"UPDATE transactions SET card_id = 99999 {APPROVED}", {"programs_stay_apart"}),
    "a card draws on a stranger's account": (
        "UPDATE cards SET holder_id = (SELECT holder_id FROM users WHERE token = 'ben') WHERE token = 'ana_card'",
        {"card_draws_on_its_users_account"},
    ),
    "a card number in a name": (
        """UPDATE users SET doc = '{"status":"ACTIVE","first_name":"1111110000000019"}' WHERE token = 'ana'""",
        {"card_numbers_stay_sealed"},
    ),
    "a card number in blocks of four": (
        """UPDATE users SET doc = '{"status":"ACTIVE","notes":"call 1111 1100 0000 0019 back"}' WHERE token = 'ana'""",
        {"card_numbers_stay_sealed"},
    ),
    "a password in a name": (
        """UPDATE users SET doc = '{"status":"ACTIVE","notes":"try Harb0r-Inline-Passw0rd! there"}' WHERE token = 'ana'""",
        {"secrets_stay_sealed"},
    ),
}  # fmt: skip


def test_sabotage_is_noticed(sound_platform: InProcessPlatform) -> None:
    """Each manipulation breaks exactly the expected invariants."""
    with unguarded(sound_platform.database) as db:
        vault = sound_platform.app.vault
        broken = {name: sabotage(db, statement, vault) for name, (statement, _) in SABOTAGE.items()}
    assert broken == {name: expected for name, (_, expected) in SABOTAGE.items()}
    assert verify(sound_platform.database).is_sound


def test_many_secrets_are_searched_for_in_parts(sound_platform: InProcessPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    """If there are more secrets than fit into memory, each part is searched for."""
    monkeypatch.setattr("cardwright.ledger.invariants.secrets.AT_ONCE", 1)
    statement, expected = SABOTAGE["a password in a name"]
    with unguarded(sound_platform.database) as db:
        assert sabotage(db, statement, sound_platform.app.vault) == expected
        assert sabotage(db, "SELECT 1", sound_platform.app.vault) == set()


def test_an_envelope_of_another_key_is_reported(sound_platform: InProcessPlatform) -> None:
    """A webhook that the master key does not open is a violation, because its secrets cannot be searched for."""
    with unguarded(sound_platform.database) as db:
        statement = "UPDATE outbox SET target = {} WHERE target IS NOT NULL"
        damaged = "X'0102'" if sound_platform.database.is_sqlite else "'\\x0102'"
        assert sabotage(db, statement.format(damaged), sound_platform.app.vault) == {"secrets_stay_sealed"}


def test_forgotten_balance_is_noticed(sound_platform: InProcessPlatform) -> None:
    """An account with an erased state contradicts the books."""
    wiped = "X'9180'" if sound_platform.database.is_sqlite else "'\\x9180'"
    with unguarded(sound_platform.database) as db:
        broken = sabotage(db, f"UPDATE holders SET state = {wiped}", sound_platform.app.vault)
    assert broken == {"balances_are_sums_of_entries", "held_is_open_holds"}


def test_every_invariant_is_sabotaged() -> None:
    """The table covers every invariant, so a new invariant needs a row."""
    proven = set().union(*(names for _, names in SABOTAGE.values()))
    assert proven == {invariant.name for invariant in (*INVARIANTS, *SECRETS)}


def test_violations_say_where_and_what(platform: InProcessPlatform) -> None:
    """A report names the row, the expected and the actual value. Above 20 violations of one invariant it only counts."""
    platform.run([[card_request(platform, "ana_card", 100, seed=number) for number in range(SHOWN_MAX)]])
    with platform.database.write() as db:
        db.execute(message_tokens.update().values(transaction_id=99999))
        approvals = transactions.c.impacted.is_not(None), transactions.c.type_id == TYPE_NUMBER["authorization"]
        db.execute(transactions.update().values(moved=1).where(*approvals))
    report = verify(platform.database)
    assert not report.is_sound
    by_name = {finding.name: finding for finding in report.findings}
    funding, approved = by_name["funding_is_what_was_moved"], PURCHASES + WITH_FEE + SHOWN_MAX
    examined = approved + 1 + FOLLOW_UPS + MOVED + FEES + ENDS
    assert (funding.examined, funding.broken, len(funding.violations)) == (examined, approved, SHOWN_MAX)
    (token,) = by_name["message_token_has_its_transaction"].violations
    assert token.where == "message token chosen"
    assert (token.expected, token.actual) == ("a transaction of its program", "transaction 99999")


def test_books_in_use_are_seen_at_one_instant(platform: InProcessPlatform) -> None:
    """Purchases that are committed during a verification cause no violation."""
    all_findings = []
    for number, finding in enumerate(findings(platform.database)):
        platform.run([[card_request(platform, "ana_card", 100, seed=1000 + number)]])
        all_findings.append(finding)
    assert [finding.name for finding in all_findings if finding.broken] == []
    assert verify(platform.database).is_sound


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
    """Only a number with the given prefix, the full length and a valid check digit counts. Adjacent characters are ignored."""
    assert len(list(numbers_in(value, [pattern_of("111111", 16)]))) == count
