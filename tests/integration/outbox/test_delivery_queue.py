"""Delivery queues on both databases: claims by endpoint, leases, clocks, and their cost with a large backlog."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, event, select, text, update

from cardwright.kit.clock import ProgramClock
from cardwright.outbox import delivery_queue as module
from cardwright.outbox.delivery_queue import (
    CLOSED_MAX,
    RECENT_MS,
    Claim,
    RetryRules,
    Work,
    claim,
    claimable,
    end_leases,
    find_work,
)
from cardwright.outbox.endpoint import endpoint_id_of
from cardwright.outbox.events import Category, Delivery, Target, outbox_row
from cardwright.outbox.room import Endpoints
from cardwright.storage.database import Database
from cardwright.storage.programs import ProgramSettings, insert_program, set_clock
from cardwright.storage.tables import outbox, webhooks

NOW = 1_700_000_000_000
GOOD, DEAD = "http://good.example/hook", "http://dead{}.example/hook"


class Store:
    """A database with a program, and rows of its outbox."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.endpoints = Endpoints(sends_max=64, endpoint_max=8)
        self.program_id = self.program("first")

    def program(self, token: str, clock: ProgramClock = ProgramClock()) -> int:  # noqa: B008
        parts: dict[str, Any] = {"settings": ProgramSettings(), "clock": clock, "now": NOW}
        with self.database.write() as db:
            return insert_program(db, token=token, name=token, short_code="100", **parts)

    def webhook(self, url: str, *, active: bool = True) -> int:
        doc = msgspec.json.encode({"config": {"url": url}}).decode()
        row = {
            "program_id": self.program_id, "token": f"hook {url} {active}", "request_hash": b"", "created_ms": 0,
            "modified_ms": 0, "doc": doc, "active": active, "sealed": b"",
        }  # fmt: skip
        with self.database.write() as db:
            key = db.execute(webhooks.insert().values(row)).inserted_primary_key
        assert key is not None
        return int(key[0])

    def notify(
        self, url: str | int, count: int, *, due_ms: int = NOW, program_id: int | None = None, state: Delivery = Delivery.DUE
    ) -> None:
        """Insert rows for an inline webhook with this URL, or for the registered webhook with this id."""
        program_id = program_id or self.program_id
        fields: dict[str, Any] = {"webhook_id": url}
        if isinstance(url, str):
            fields = {"target": Target(endpoint_id_of(program_id, url), b"sealed")}
        row = outbox_row(program_id, due_ms, Category.TRANSACTION, [1], **fields) | {"state": int(state)}
        with self.database.write() as db:
            db.execute(outbox.insert(), [row] * count)

    def answered(self, url: str) -> None:
        """Let the endpoint answer a post."""
        self.endpoints.begin(endpoint_id_of(self.program_id, url))
        self.endpoints.end(endpoint_id_of(self.program_id, url), has_answered=True)

    def work(self, after: int | None = None, now: int = NOW) -> Work:
        with self.database.read() as db:
            return find_work(db, now, after)

    def claims(self, now: int = NOW) -> list[Claim]:
        """Claim rows and begin their posts."""
        room = self.endpoints.room()
        queues = claimable(self.work(now=now).queues, room)
        with self.database.write() as db:
            claims = claim(db, now, RetryRules(), queues, room)
        for claimed in claims:
            self.endpoints.begin(claimed.endpoint_id)
        return claims


@pytest.fixture
def store(migrated_url: str) -> Iterator[Store]:
    database = Database(migrated_url)
    try:
        yield Store(database)
    finally:
        database.close()


# --- Queues and endpoints -----------------------------------------------------------------


def test_inline_webhooks_with_different_hosts_have_separate_queues(store: Store) -> None:
    """A simulation's endpoint with a large, older backlog leaves the other endpoint its claims."""
    store.answered(GOOD)
    store.notify(DEAD.format(1), 500, due_ms=NOW - 60_000)
    store.notify(GOOD, 3)
    by_endpoint = [claimed.endpoint_id for claimed in store.claims()]
    assert by_endpoint.count(endpoint_id_of(store.program_id, GOOD)) == 3
    assert by_endpoint.count(endpoint_id_of(store.program_id, DEAD.format(1))) == 1


def test_webhooks_of_one_host_share_an_endpoint(store: Store) -> None:
    """Two registered webhooks and an inline one with the same host have the posts of one endpoint, and take turns."""
    hooks = [store.webhook("http://good.example/a"), store.webhook("http://good.example/b")]
    for age, url in enumerate((*hooks, GOOD)):
        store.notify(url, 5, due_ms=NOW - age)
    owners = list[int | None]()
    for _ in range(15):
        (claimed,) = store.claims()
        assert claimed.endpoint_id == endpoint_id_of(store.program_id, GOOD)
        store.endpoints.end(claimed.endpoint_id, has_answered=False)
        owners.append(claimed.webhook_id)
    assert owners == [None] * 5 + [hooks[1]] * 5 + [hooks[0]] * 5


def test_a_changed_url_is_another_endpoint_at_once(store: Store) -> None:
    """After a change of its URL, the old rows of a webhook no longer wait for the silent endpoint."""
    hook = store.webhook(DEAD.format(1))
    store.notify(hook, 20)
    (claimed,) = store.claims()
    store.endpoints.end(claimed.endpoint_id, has_answered=False)
    store.answered(GOOD)
    with store.database.write() as db:
        db.execute(update(webhooks).values(doc=msgspec.json.encode({"config": {"url": GOOD}}).decode()))
    assert {claimed.endpoint_id for claimed in store.claims()} == {endpoint_id_of(store.program_id, GOOD)}


def test_programs_do_not_share_an_endpoint(store: Store) -> None:
    """Two programs with the same host have separate endpoints, so none waits for the rows of the other."""
    other = store.program("second")
    store.notify(GOOD, 100, due_ms=NOW - 60_000, program_id=other)
    store.notify(GOOD, 1)
    assert sorted(claimed.program_id for claimed in store.claims()) == [store.program_id, other]


def test_a_thousand_dead_endpoints_leave_room(store: Store) -> None:
    """Beside 1,200 silent endpoints with due rows, an answering one gets eight claims, and a new one its first."""
    for number in range(1_200):
        endpoint_id = endpoint_id_of(store.program_id, DEAD.format(number))
        store.endpoints.begin(endpoint_id)
        store.endpoints.end(endpoint_id, has_answered=False)
    rows = [
        outbox_row(
            store.program_id, NOW - 60_000, Category.TRANSACTION, [1],
            target=Target(endpoint_id_of(store.program_id, DEAD.format(number)), b"sealed"),
        )
        for number in range(1_200)
    ]  # fmt: skip
    with store.database.write() as db:
        db.execute(outbox.insert(), rows * 2)
    store.answered(GOOD)
    new = "http://new.example/"
    store.notify(GOOD, 50)
    store.notify(new, 50)
    wanted = [endpoint_id_of(store.program_id, url) for url in (GOOD, new)]
    counts, after, looks = dict.fromkeys(wanted, 0), None, 0
    while looks == 0 or after is not None:
        work, looks = store.work(after), looks + 1
        after, room = work.after, store.endpoints.room()
        with store.database.write() as db:
            claims = claim(db, NOW, RetryRules(), claimable(work.queues, room), room)
        for claimed in claims:
            store.endpoints.begin(claimed.endpoint_id)
            if claimed.endpoint_id in counts:
                counts[claimed.endpoint_id] += 1
    assert looks == 2
    assert list(counts.values()) == [8, 1]
    assert store.endpoints.posts.total() == 64 + 8 + 1


def test_every_silent_endpoint_gets_its_turn(store: Store) -> None:
    """A hundred silent endpoints have a post each before one of them has two."""
    urls = [DEAD.format(number) for number in range(100)]
    for url in urls:
        store.notify(url, 5)
    first = list[int]()
    while len(first) < 100:
        claims = [claimed.endpoint_id for claimed in store.claims()]
        assert claims
        first += claims
        for endpoint_id in claims:
            store.endpoints.end(endpoint_id, has_answered=False)
    assert len(set(first[:100])) == 100


@pytest.mark.parametrize(("age_ms", "count"), [(RECENT_MS, 8), (RECENT_MS + 1, 1)])
def test_a_new_process_knows_which_endpoints_answer(store: Store, age_ms: int, count: int) -> None:
    """After a restart an endpoint with a recent delivery gets its posts beside any number of new ones, which may be dead."""
    store.notify(GOOD, 1, due_ms=NOW - age_ms - 5, state=Delivery.DELIVERED)
    store.notify(GOOD, 1, due_ms=NOW - age_ms, state=Delivery.DELIVERED)
    store.notify(DEAD.format(1), 1, due_ms=NOW, state=Delivery.DELIVERED)
    store.notify(GOOD, 20)
    assert len(store.claims()) == count
    store.endpoints = Endpoints(sends_max=64, endpoint_max=8)
    for number in range(100, 200):
        store.endpoints.begin(number)
    assert len(store.claims()) == (min(count, 20 - count) if count > 1 else 0)


# --- Clocks, leases and closed webhooks ---------------------------------------------------


def test_rows_are_due_by_the_clock_of_their_program(store: Store) -> None:
    """A frozen program does not delay others, and its rows are claimed when its clock has moved."""
    frozen = store.program("frozen", ProgramClock(frozen_ms=NOW - 10_000))
    store.notify(GOOD, 2, due_ms=NOW - 5_000, program_id=frozen)
    store.notify(GOOD, 1, due_ms=NOW)
    assert [claimed.program_id for claimed in store.claims()] == [store.program_id]
    with store.database.write() as db:
        set_clock(db, frozen, ProgramClock(frozen_ms=NOW - 5_000))
    assert [claimed.program_id for claimed in store.claims()] == [frozen]


def test_expired_leases_return_to_their_queues(store: Store) -> None:
    """A row with an expired lease is due again, and is claimed with the room of its endpoint. A valid lease is left alone."""
    store.notify(GOOD, 3)
    (claimed,) = store.claims()
    assert not store.work(now=claimed.lease_ms - 1).has_expired
    assert store.work(now=claimed.lease_ms).has_expired
    with store.database.write() as db:
        assert end_leases(db, claimed.lease_ms - 1) == 0
        assert end_leases(db, claimed.lease_ms) == 1
        assert set(db.scalars(select(outbox.c.state))) == {Delivery.DUE}
    assert store.claims() == [], "the post of this process is still in progress"
    store.endpoints.end(claimed.endpoint_id, has_answered=True)
    assert len(store.claims(claimed.lease_ms)) == 3


@pytest.mark.parametrize("exists", [True, False])
def test_rows_of_a_closed_webhook_need_no_room(store: Store, exists: bool) -> None:
    """Rows of an inactive or missing webhook are claimed in large numbers, because they are not posted."""
    hook = store.webhook(DEAD.format(1), active=False) if exists else 4711
    store.notify(hook, CLOSED_MAX + 5)
    room = store.endpoints.room()
    for count in (CLOSED_MAX, 5):
        with store.database.write() as db:
            assert len(claim(db, NOW, RetryRules(), claimable(store.work().queues, room), room)) == count


def test_two_processes_claim_different_rows(store: Store, migrated_url: str) -> None:
    """While a claim is not committed, another process skips its rows on PostgreSQL. Afterwards both skip them."""
    store.answered(GOOD)
    store.notify(GOOD, 10)
    if not store.database.is_sqlite:
        other = Database(migrated_url)
        room = store.endpoints.room()
        queues = claimable(store.work().queues, room)
        with store.database.write() as db:
            first = claim(db, NOW, RetryRules(), queues, room)
            with other.write() as second_db:
                second = claim(second_db, NOW, RetryRules(), queues, store.endpoints.room())
        other.close()
        assert (len(first), len(second)) == (8, 2)
        assert {claimed.id for claimed in first}.isdisjoint(claimed.id for claimed in second)
    else:
        assert len(store.claims()) == 8
        store.endpoints = Endpoints(sends_max=64, endpoint_max=8)
        assert len(store.claims()) == 1


def test_a_cut_look_continues_behind_its_last_queue(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more queues than a look covers, the next looks find the others, also behind queues that are not due."""
    monkeypatch.setattr(module, "QUEUES_MAX", 4)
    for number in range(10):
        store.notify(DEAD.format(number), 1, due_ms=NOW + (number % 2))
    ids, after, looks = list[int](), None, 0
    while looks == 0 or after is not None:
        work, looks = store.work(after), looks + 1
        ids += [queue.id for queue in work.queues]
        after = work.after
    assert looks == 3
    assert sorted(ids) == sorted(endpoint_id_of(store.program_id, DEAD.format(number)) for number in range(0, 10, 2))


# --- Cost ---------------------------------------------------------------------------------


def cost_of(database: Database, work: Callable[[Any], object]) -> int:
    """Return the cost of statements: tens of SQLite instructions, or buffers that PostgreSQL reads for its queries."""
    statements: list[tuple[str, Any]] = []
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    if database.is_sqlite:
        with database.write() as db:
            raw: Any = db.connection.dbapi_connection
            raw.set_progress_handler(count, 10)
            work(db)
            raw.set_progress_handler(None, 0)
        return steps
    event.listen(database.engine, "before_cursor_execute", note)
    try:
        with database.write() as db:
            work(db)
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    with database.write() as db:
        db.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
        for statement, parameters in statements:
            if statement.lstrip().startswith(("SELECT", "WITH")):
                plan = db.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters).scalar_one()
                steps += plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
    return steps


@pytest.mark.parametrize("is_analyzed", [False, True])
def test_a_backlog_does_not_make_claims_more_expensive(store: Store, is_analyzed: bool) -> None:
    """With 20,000 due rows of dead endpoints, a look and a claim for the good one cost about as much as with 40.

    The statistics may be those of the small outbox, as before the first ANALYZE of a new backlog.
    """
    store.answered(GOOD)
    costs = list[int]()

    def deliver(db: Any) -> None:
        room = store.endpoints.room()
        queues = [queue for queue in find_work(db, NOW, None).queues if queue.endpoint_id == endpoint_id_of(1, GOOD)]
        assert len(claim(db, NOW, RetryRules(), queues, room)) == 1

    for rows in (2, 1_000):
        for number in range(20):
            store.notify(DEAD.format(number), rows, due_ms=NOW - 60_000)
        if not store.database.is_sqlite and (is_analyzed or not costs):
            with store.database.engine.connect() as db:
                db.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM ANALYZE")
        store.notify(GOOD, 1)
        costs.append(cost_of(store.database, deliver))
    assert costs[1] <= 3 * costs[0] + 100, costs


def entries_read(db: Connection) -> int:
    """Return the rows of scans of the outbox and the entries of its indexes that this transaction has read on PostgreSQL."""
    scanned = "SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'outbox'"
    entries = "SELECT sum(pg_stat_get_xact_tuples_returned(indexrelid)) FROM pg_stat_user_indexes WHERE relname = 'outbox'"
    return int(db.execute(text(f"SELECT ({scanned}) + ({entries})")).scalar_one())


@pytest.mark.parametrize("state", [None, Delivery.DUE, Delivery.DELIVERED])
def test_plans_do_not_depend_on_statistics(migrated_postgres_url: str, state: Delivery | None) -> None:
    """With plans and statistics of an outbox with one queue or none, PostgreSQL reads few entries for twenty other queues."""
    database = Database(migrated_postgres_url)
    store = Store(database)
    if state is not None:
        store.notify(GOOD, 20_000, due_ms=NOW + 1, state=state)
    with database.engine.connect() as db:
        db.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM ANALYZE")
    # psycopg prepares a statement at its sixth execution, and PostgreSQL may keep a plan after five more.
    for _ in range(20):
        assert store.claims() == []
    for number in range(20):
        store.notify(DEAD.format(number), 1_000)
    with database.write() as db:
        queues = find_work(db, NOW, None).queues
        assert len(claim(db, NOW, RetryRules(), queues, store.endpoints.room())) == 20
        assert 0 < entries_read(db) < 500
    database.close()
