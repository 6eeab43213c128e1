"""Lists of transactions: every page equals that of a naive list, pages follow one another, and their cost is bounded."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from typing import Any

import pytest
from sqlalchemy import Connection, event, select, update

from cardwright.core.enums import TYPES, State
from cardwright.core.transaction_row import LOAD_SIDE
from cardwright.core.transaction_types import LOAD_TYPES
from cardwright.kit.bookmarks import Bookmarks
from cardwright.kit.page import Page
from cardwright.resources.common.call import Call
from cardwright.resources.transactions.listing import (
    NEAR,
    Listed,
    Search,
    TransactionQuery,
    find_page,
    parse_order,
    parse_wanted,
    places_of,
)
from cardwright.storage.account_transactions import NOTHING_RECENT, find_own, with_newest
from cardwright.storage.programs import get_program
from cardwright.storage.tables import holder_transactions, holders, transactions
from cardwright.storage.transaction_lists import positions
from cardwright.storage.transaction_lists.blocks import HIGHEST, LOWEST, ListOrder, Range
from cardwright.storage.transaction_lists.positions import ListPositions
from tests.support import past
from tests.support.in_process_platform import InProcessPlatform, new_platform
from tests.support.instants import NOON

BEGIN = NOON - 30 * past.DAY_MS
SORTS = ("user_transaction_time", "-user_transaction_time", "created_time", "-created_time")
FILTERS: tuple[dict[str, str], ...] = (
    {}, {"state": "ALL"}, {"state": "PENDING"}, {"state": "DECLINED"}, {"state": "ERROR"},
    {"state": "ALL", "type": "refund"}, {"state": "ALL", "type": "gpa.credit.authorization"},
    {"state": "CLEARED", "type": "authorization"},
    {"state": "ALL", "start_date": "2025-12-05", "end_date": "2025-12-07"},
    {"state": "ALL", "start_date": "2025-12-10", "end_date": "2025-12-05"},
)  # fmt: skip


@pytest.fixture
def platform(migrated_url: str) -> Iterator[InProcessPlatform]:
    with new_platform(migrated_url) as platform:
        yield platform


def call_of(
    platform: InProcessPlatform,
    db: Connection,
    query: dict[str, Any],
    sort_by: str,
    start: int,
    count: int,
    kept: Bookmarks | None = None,
) -> Call:
    """Return the call of a connection with these bookmarks, by default with none."""
    page = Page(count, start, sort_by, kept or Bookmarks())
    return Call(platform.app, db, get_program(db, platform.program_id), NOON, {}, query=TransactionQuery(**query), page=page)


def listed_of(call: Call, holder_id: int | None = None) -> Listed:
    """Return the list that a call requests, of the whole program or of one account."""
    order, descending = parse_order(call.list_page.sort_by)
    wanted = parse_wanted(call.query, "PENDING,COMPLETION")
    account_transactions = None if holder_id is None else find_own(call.db, [holder_id])
    search = Search(call.program.id, order, descending, wanted.sides(), account_transactions)
    return Listed(search, wanted, places_of(call.query, NOON, window=True), is_countable=account_transactions is None)


def page_of(
    platform: InProcessPlatform, query: dict[str, Any], sort_by: str, start: int, count: int, holder_id: int | None = None
) -> list[tuple[int, int]]:
    """Return row id and side of a page's entries, found without bookmarks."""
    with platform.database.read() as db:
        call = call_of(platform, db, query, sort_by, start, count)
        return [(entry.id, entry.side) for entry in find_page(call, listed_of(call, holder_id))[0]]


def naive(platform: InProcessPlatform, rows: list[dict[str, Any]], query: dict[str, Any], sort_by: str) -> list[tuple[int, int]]:
    """Return the whole list from a loop over all rows."""
    states = {"PENDING", "COMPLETION"} if "state" not in query else set(query["state"].split(","))
    key = "created_ms" if "created" in sort_by else "user_time_ms"
    with platform.database.read() as db:
        places = places_of(TransactionQuery(**query), NOON, window=True)
        assert get_program(db, platform.program_id).id == 1
    matches = []
    for row, side in itertools.product(rows, (0, LOAD_SIDE)):
        kind = TYPES[row["type_id"] if side == 0 else LOAD_TYPES[row["type_id"]]]
        fits = row["program_id"] == 1 and ("ALL" in states or State(row["state"]).name in states)
        fits = fits and query.get("type", kind) == kind and (side == 0 or row["moved"] != 0)
        if fits and places.low <= (row[key], row["id"]) < places.high:
            matches.append((row[key], row["id"], side))
    return [(row_id, side) for _, row_id, side in sorted(matches, reverse=sort_by.startswith("-"))]


def check(platform: InProcessPlatform, rows: list[dict[str, Any]], drawn: random.Random) -> None:
    """Compare pages at the beginning, in the middle, at the end and behind the end of every list."""
    for query, sort_by in itertools.product(FILTERS, SORTS):
        whole = naive(platform, rows, query, sort_by)
        for start in {0, 3, drawn.randrange(len(whole) + 1), len(whole) // 2, max(0, len(whole) - 4), len(whole) + NEAR + 1}:
            assert page_of(platform, query, sort_by, start, 7) == whole[start : start + 7], (query, sort_by, start)


def test_every_page_is_the_one_that_counting_finds(platform: InProcessPlatform) -> None:
    """Pages of any filter, order and offset equal the naive list, even after new rows have arrived and closed old holds."""
    drawn = random.Random(5)
    rows = past.some_rows(drawn, 6000, first_id=1, begin_ms=BEGIN)
    with platform.database.write() as db:
        past.write(db, rows)
        if not platform.database.is_sqlite:
            db.exec_driver_sql("SELECT setval('transaction_blocks', 1)")
    check(platform, rows, drawn)
    for first_id in (12_001, 12_401):
        fresh = past.some_rows(drawn, 150, first_id=first_id, begin_ms=NOON - past.DAY_MS, days=1)
        roots = [row for row in rows if row["root_id"] is None and row["program_id"] == 1]
        late = [past.follower(drawn, drawn.choice(roots), first_id + 300 + 2 * number, NOON - 5) for number in range(40)]
        with platform.database.write() as db:
            past.write(db, [*fresh, *late])
            for late_row in late:
                root = next(root for root in roots if root["id"] == late_row["root_id"])
                db.execute(update(transactions).where(transactions.c.id == root["id"]).values(state=root["state"]))
        rows += [*fresh, *late]
        check(platform, rows, drawn)


def test_a_late_commit_is_not_missed(migrated_postgres_url: str) -> None:
    """Rows that are committed after rows with higher ids are in the pages from their commit on."""
    rows = [past.row(row_id, NOON - 9000 + row_id) for row_id in range(1, 4001, 2)]
    early = [past.row(row_id, NOON - 9000 + row_id - 4000) for row_id in range(4001, 4201, 2)]
    late = [past.row(row_id, NOON - 9000 + row_id - 4000) for row_id in range(4201, 4301, 2)]
    oldest, query = "user_transaction_time", {"state": "ALL"}
    with new_platform(migrated_postgres_url) as platform:

        def check_page(known: list[dict[str, Any]]) -> None:
            assert page_of(platform, query, oldest, 3000, 5) == naive(platform, known, query, oldest)[3000:3005]

        with platform.database.write() as db:
            db.exec_driver_sql("SELECT setval('transaction_blocks', 2)")
            past.write(db, rows)
        check_page(rows)
        with platform.database.engine.connect() as slow, slow.begin():
            past.write(slow, early)
            with platform.database.write() as db:
                past.write(db, late)
            for _ in range(3):
                check_page(rows + late)
        for _ in range(3):
            check_page(rows + late + early)


def test_a_late_commit_with_a_higher_number_is_not_missed(migrated_postgres_url: str) -> None:
    """Rows appear from their commit on, even if the later of two active transactions draws lower ids and ends last."""
    rows = [past.row(row_id, NOON - 9000 + row_id) for row_id in range(1, 4001, 2)]
    early = [past.row(row_id, NOON - 9000 + row_id - 4000) for row_id in range(4001, 4201, 2)]
    late = [past.row(row_id, NOON - 9000 + row_id - 4000) for row_id in range(4201, 4301, 2)]
    oldest, query = "user_transaction_time", {"state": "ALL"}
    with new_platform(migrated_postgres_url) as platform:

        def check_page(known: list[dict[str, Any]]) -> None:
            assert page_of(platform, query, oldest, 3000, 5) == naive(platform, known, query, oldest)[3000:3005]

        with platform.database.write() as db:
            db.exec_driver_sql("SELECT setval('transaction_blocks', 2)")
            past.write(db, rows)
        check_page(rows)
        with platform.database.engine.connect() as slow, slow.begin():
            with platform.database.write() as db:
                past.write(db, late)
                past.write(slow, early)
            for _ in range(3):
                check_page(rows + late)
        for _ in range(3):
            check_page(rows + late + early)


def test_counting_begins_without_waiting(migrated_postgres_url: str) -> None:
    """While a writing transaction is active, pages are plain offsets. The first page after its end uses counts."""
    rows = [past.row(row_id, NOON - 9000 + row_id) for row_id in range(1, 4001, 2)]
    late = [past.row(row_id, NOON - 9000 + row_id) for row_id in range(4001, 4101, 2)]
    newest, query = "-user_transaction_time", {"state": "ALL"}
    with new_platform(migrated_postgres_url) as platform:
        with platform.database.write() as db:
            db.exec_driver_sql("SELECT setval('transaction_blocks', 1)")
            past.write(db, rows)
        with platform.database.engine.connect() as slow, slow.begin():
            past.write(slow, late)
            for _ in range(2):
                assert page_of(platform, query, newest, 3000, 5) == naive(platform, rows, query, newest)[3000:3005]
                assert not platform.app.list_positions._programs[1]._counted
        for _ in range(2):
            assert page_of(platform, query, newest, 3000, 5) == naive(platform, rows + late, query, newest)[3000:3005]
            assert platform.app.list_positions._programs[1]._counted


@pytest.mark.parametrize("sort_by", SORTS)
def test_a_transaction_that_began_earlier_spoils_no_counts(platform: InProcessPlatform, sort_by: str) -> None:
    """A reader with an older snapshot than the counts gets whole pages, at or before its offset. New readers get exact ones."""
    drawn, query = random.Random(11), {"state": "ALL"}
    rows = past.some_rows(drawn, 4000, first_id=1, begin_ms=BEGIN)
    with platform.database.write() as db:
        past.write(db, rows)
        if not platform.database.is_sqlite:
            db.exec_driver_sql("SELECT setval('transaction_blocks', 1)")
    before = naive(platform, rows, query, sort_by)
    page_of(platform, query, SORTS[0], 2000, 5)
    with platform.database.read() as early:
        early.execute(select(transactions.c.id).limit(1)).all()
        fresh = past.some_rows(drawn, 700, first_id=8001, begin_ms=NOON - past.DAY_MS, days=1)
        roots = [row for row in rows if row["root_id"] is None and row["program_id"] == 1]
        fresh += [past.follower(drawn, drawn.choice(roots), 9501 + 2 * number, NOON - 5) for number in range(100)]
        with platform.database.write() as db:
            past.write(db, fresh)
        now = naive(platform, rows + fresh, query, sort_by)
        # This page adds the new rows to the counts of its order. The earlier transaction is the first to read the other orders.
        assert page_of(platform, query, SORTS[0], 2000, 5) == naive(platform, rows + fresh, query, SORTS[0])[2000:2005]
        for start in range(300, len(before) - 30, 97):
            call = call_of(platform, early, query, sort_by, start, 20)
            entries, is_more = find_page(call, listed_of(call))
            first = before.index((entries[0].id, entries[0].side))
            assert [(entry.id, entry.side) for entry in entries] == before[first : first + 20]
            assert start - len(now) + len(before) <= first <= start
            assert is_more
    for start in range(300, len(now), 97):
        assert page_of(platform, query, sort_by, start, 20) == now[start : start + 20]


def test_another_processs_reset_is_noticed(platform: InProcessPlatform) -> None:
    """The counts of removed rows are dropped, even if another process has reset the program."""
    rows = past.some_rows(random.Random(1), 3000, first_id=1, begin_ms=BEGIN)
    with platform.database.write() as db:
        past.write(db, rows)
    assert page_of(platform, {"state": "ALL"}, SORTS[1], 2000, 3) == naive(platform, rows, {"state": "ALL"}, SORTS[1])[2000:2003]
    fresh = [past.row(row_id, NOON - row_id) for row_id in range(1, 2001, 2)]
    with platform.database.write() as db:
        db.execute(transactions.delete())
        past.write(db, fresh)
    assert page_of(platform, {"state": "ALL"}, SORTS[1], 900, 3) == naive(platform, fresh, {"state": "ALL"}, SORTS[1])[900:903]


# --- Concurrent writes --------------------------------------------------------------------


@pytest.mark.parametrize("sort_by", SORTS)
@pytest.mark.parametrize("query", [{"state": "ALL"}, {}, {"state": "ALL", "end_date": "2026-01-01"}])
def test_pages_follow_one_another_while_rows_arrive(platform: InProcessPlatform, sort_by: str, query: dict[str, str]) -> None:
    """A reader of successive pages gets each entry that stays in the list exactly once, wherever new rows arrive."""
    drawn = random.Random(9)
    rows = past.some_rows(drawn, 900, first_id=1, begin_ms=BEGIN)
    with platform.database.write() as db:
        past.write(db, rows)
    before = naive(platform, rows, query, sort_by)
    gone, got, start, row_id = set[int](), list[tuple[int, int]](), 0, 2001
    roots = [row for row in rows if row["root_id"] is None and row["program_id"] == 1]
    kept = Bookmarks()
    while True:
        with platform.database.read() as db:
            call = call_of(platform, db, query, sort_by, start, 20, kept)
            entries, is_more = find_page(call, listed_of(call))
        got += [(entry.id, entry.side) for entry in entries]
        if not is_more:
            break
        start += len(entries)
        root = drawn.choice(roots)
        state = root["state"]
        new = [past.row(row_id, NOON), past.follower(drawn, root, row_id + 2, NOON)]
        row_id += 4
        with platform.database.write() as db:
            past.write(db, new)
            db.execute(update(transactions).where(transactions.c.id == root["id"]).values(state=root["state"]))
        rows += new
        gone |= {root["id"]} if state != root["state"] and not query.get("state") else set()
    assert len(got) == len(set(got))
    assert [entry for entry in before if entry[0] not in gone] == [
        entry for entry in got if entry in before and entry[0] not in gone
    ]


def test_a_page_without_a_bookmark_is_a_plain_offset(platform: InProcessPlatform) -> None:
    """The first page uses no bookmark, and a connection without bookmarks uses plain offsets."""
    rows = [past.row(row_id, NOON - 1000 + row_id) for row_id in range(1, 41, 2)]
    with platform.database.write() as db:
        past.write(db, rows)

    def ids(start: int, kept: Bookmarks) -> list[int]:
        with platform.database.read() as db:
            call = call_of(platform, db, {"type": "authorization"}, SORTS[1], start, 5, kept)
            return [entry.id for entry in find_page(call, listed_of(call))[0]]

    kept = Bookmarks()
    assert ids(0, kept) == [39, 37, 35, 33, 31]
    with platform.database.write() as db:
        past.write(db, [past.row(41, NOON)])
    assert ids(5, kept) == [29, 27, 25, 23, 21]
    assert ids(5, Bookmarks()) == [31, 29, 27, 25, 23]
    assert ids(0, kept) == [41, 39, 37, 35, 33]
    assert ids(5, kept) == [31, 29, 27, 25, 23]


@pytest.mark.parametrize("sort_by", SORTS)
def test_the_default_window_stays_for_a_reader(platform: InProcessPlatform, sort_by: str) -> None:
    """The default window begins 30 days before each request. An entry that leaves it between two pages is still listed."""
    at_ms = NOON - 30 * past.DAY_MS
    rows = [past.row(row_id, at_ms + 10 * row_id, moved=0) for row_id in range(1, 41, 2)]
    with platform.database.write() as db:
        past.write(db, rows)
    kept, got = Bookmarks(), list[int]()
    for page in range(4):
        with platform.database.read() as db:
            call = call_of(platform, db, {"state": "ALL"}, sort_by, 5 * page, 5, kept)
            call.now = NOON + 60 * page
            listed = replace(listed_of(call), places=places_of(call.query, call.now, window=True))
            got += [entry.id for entry in find_page(call, listed)[0]]
    assert sorted(got) == [row["id"] for row in rows]


# --- Costs --------------------------------------------------------------------------------


COSTED: tuple[dict[str, Any], ...] = ({}, {"state": "ALL"}, {"state": "ALL", "type": "refund"}, {"state": "ERROR"})


def cost_of(platform: InProcessPlatform, query: dict[str, Any], sort_by: str, start: int, holder_id: int | None = None) -> int:
    """Return the cost of a page with existing counts: tens of SQLite instructions, or buffers that PostgreSQL reads."""
    page_of(platform, query, sort_by, start, 10, holder_id)
    statements: list[tuple[str, Any]] = []
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    if platform.database.is_sqlite:
        with platform.database.read() as db:
            raw = db.connection.dbapi_connection
            raw.set_progress_handler(count, 10)
            call = call_of(platform, db, query, sort_by, start, 10)
            find_page(call, listed_of(call, holder_id))
            raw.set_progress_handler(None, 0)
        return steps
    event.listen(platform.database.engine, "before_cursor_execute", note)
    try:
        page_of(platform, query, sort_by, start, 10, holder_id)
    finally:
        event.remove(platform.database.engine, "before_cursor_execute", note)
    with platform.database.read() as db:
        for statement, parameters in statements:
            if statement.lstrip().startswith("SELECT"):
                plan = db.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters).scalar_one()
                steps += plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
    return steps


def test_a_page_costs_the_same_however_long_the_past(platform: InProcessPlatform) -> None:
    """At 50,000 rows the first page and pages in the middle cost at most 1.5 times as much as at 2,000, plus 100.

    A page skips up to a block of rows, so the most expensive of eight pages in the middle counts.
    """
    costs: list[dict[tuple[str, str, str], int]] = []
    drawn, stored = random.Random(3), 0
    for count in (2_000, 48_000):
        begin = BEGIN + past.DAY_MS * len(costs)
        rows = past.some_rows(drawn, count, first_id=2 * stored + 1, begin_ms=begin, days=20)
        stored += count
        with platform.database.write() as db:
            past.write(db, rows)
            if not platform.database.is_sqlite:
                db.exec_driver_sql("SELECT setval('transaction_blocks', 10)")
        if not platform.database.is_sqlite:
            with platform.database.engine.connect() as db:
                db.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM ANALYZE transactions")
        # Blocks that have grown may be 1.5 times as large as new ones, at any number of rows.
        platform.app.list_positions.clear(platform.program_id)
        places = {"first": [0], "middle": [stored // 3 + 61 * number for number in range(8)]}
        costs.append({
            (str(query), sort_by, where): max(cost_of(platform, query, sort_by, start) for start in starts)
            for query in COSTED for sort_by in SORTS[1::2] for where, starts in places.items()
        })  # fmt: skip
    for place, cost in costs[1].items():
        assert 0 < cost <= 1.5 * costs[0][place] + 100, (place, costs[0][place], cost)


def test_an_accounts_first_page_costs_the_same_however_much_it_did(platform: InProcessPlatform) -> None:
    """The first page of an account with 8,000 transactions costs at most 1.5 times as much as with 80, plus 100.

    Its pages have the recent transactions in the row of the account, and then those of its list.
    """
    newest, holders_of = "-user_transaction_time", {101: 80, 102: 8_000}
    query = {"state": "ALL", "type": "authorization"}
    expected: dict[int, list[tuple[int, int]]] = {}
    with platform.database.write() as db:
        for holder_id, count in holders_of.items():
            ids = range(holder_id * 100_000 + 1, holder_id * 100_000 + 2 * count, 2)
            rows = [past.row(row_id, NOON - past.DAY_MS + index, holder_id=holder_id) for index, row_id in enumerate(ids)]
            past.write(db, rows)
            recent = reduce(with_newest, ids[-7:], NOTHING_RECENT)
            db.execute(holders.insert().values(id=holder_id, program_id=1, revision=1, state=b"", recent=recent))
            listed = [{column.name: row[column.name] for column in holder_transactions.c} for row in rows[:-7]]
            db.execute(holder_transactions.insert(), listed)
            expected[holder_id] = [(transaction_id, 0) for transaction_id in reversed(ids)]
    if not platform.database.is_sqlite:
        with platform.database.engine.connect() as db:
            db.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM ANALYZE")
    costs = {holder: cost_of(platform, query, newest, 0, holder) for holder in holders_of}
    for holder_id in holders_of:
        assert page_of(platform, query, newest, 0, 10, holder_id) == expected[holder_id][:10]
        assert page_of(platform, query, newest, 60, 10, holder_id) == expected[holder_id][60:70]
        assert page_of(platform, query, "created_time", 3, 10, holder_id) == expected[holder_id][::-1][3:13]
    assert 0 < costs[102] <= 1.5 * costs[101] + 100, costs


def test_the_counts_are_not_built_for_nothing(platform: InProcessPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pages of a list are read at its end, without counts."""
    with platform.database.write() as db:
        past.write(db, past.some_rows(random.Random(2), 5000, first_id=1, begin_ms=BEGIN))

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("counted")

    monkeypatch.setattr(positions, "read_blocks", fail)
    for start in (0, 10, 200):
        assert len(page_of(platform, {}, "-user_transaction_time", start, 10)) == 10
    with pytest.raises(AssertionError, match="counted"):
        page_of(platform, {}, "-user_transaction_time", 3000, 10)


def test_counts_of_many_programs_and_filters_are_dropped(platform: InProcessPlatform) -> None:
    """At most PROGRAMS_MAX programs have counts in memory."""
    kept = ListPositions()
    with platform.database.read() as db:
        for program_id in range(positions.PROGRAMS_MAX + 3):
            kept.find(db, program_id, ListOrder.BEGUN, "all", lambda _: 1, Range(LOWEST, HIGHEST),
                      skip=0, take=1, descending=True)  # fmt: skip
    assert len(kept._programs) == positions.PROGRAMS_MAX
