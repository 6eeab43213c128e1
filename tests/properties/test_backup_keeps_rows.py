"""Backups keep rows: any history and any value is equal after a restore on the other database."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Boolean, Integer, LargeBinary, SmallInteger, String, Table

from cardwright.storage.database import Database
from cardwright.storage.tables import JOURNAL_ACCOUNTS, metadata
from tests.support.backups import all_rows, back_up, load
from tests.support.databases import check_books, empty_database, migrated_database
from tests.support.histories import PlayedHistory, drawn, populated
from tests.support.in_process_platform import new_platform

FREE = [table for table in metadata.sorted_tables if not table.foreign_keys]
"""Tables without references, whose rows can have any values."""


@pytest.fixture(scope="module")
def addresses(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Return a function that opens a migrated SQLite database, an empty PostgreSQL one, an empty SQLite one and a folder."""

    @contextmanager
    def make() -> Iterator[tuple[str, str, str, Path]]:
        request.getfixturevalue("postgres")
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cardwright-backup-")))
            (folder / "last").mkdir()
            first = stack.enter_context(migrated_database("sqlite", request, folder))
            middle = stack.enter_context(empty_database("postgresql", request, folder))
            yield first, middle, str(folder / "last" / "cardwright.db"), folder

    return make


def values_of(column: Any) -> st.SearchStrategy[Any]:
    """Return the values that a column accepts on both databases."""
    kind = column.type
    if isinstance(kind, Boolean):
        values: st.SearchStrategy[Any] = st.booleans()
    elif isinstance(kind, Integer):
        # `Id` is BIGINT on PostgreSQL, and `duration_ms` INTEGER.
        bits = 15 if isinstance(kind, SmallInteger) else 31 if type(kind) is Integer else 63
        values = st.integers(-(2**bits), 2**bits - 1)
    elif isinstance(kind, LargeBinary):
        values = st.binary(max_size=40)
    else:
        assert isinstance(kind, String)
        values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=min(kind.length or 40, 40))
    return st.none() | values if column.nullable else values


def rows_of(table: Table) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Return rows of a table with different keys. Entries of the journal sum to zero."""
    columns = {column.name: values_of(column) for column in table.columns}
    if table.name == "journal":
        columns |= dict.fromkeys(JOURNAL_ACCOUNTS, st.just(0))
    unique = [column.name for column in table.primary_key.columns]
    others = {"programs": ["token"], "movements": ["token"]}.get(table.name, [])
    keys = tuple(lambda row, name=name: row[name] for name in [*unique, *others])
    return st.lists(st.fixed_dictionaries(columns), max_size=8, unique_by=keys)


# Each example makes a PostgreSQL database, so a failed one is reported as it is: many smaller ones would take minutes.
@settings(max_examples=12, phases=[Phase.generate])
@given(st.fixed_dictionaries({table.name: rows_of(table) for table in FREE}))
def test_any_value_is_equal_after_two_restores(addresses: Callable[[], Any], rows: dict[str, list[dict[str, Any]]]) -> None:
    """Rows with any values are equal after a restore on PostgreSQL, and after another one back on SQLite."""
    with addresses() as (first, middle, last, folder):
        with closing(Database(first)) as database, database.write() as db:
            for table in FREE:
                if rows[table.name]:
                    db.execute(table.insert(), rows[table.name])
        _check_round_trip(first, middle, last, folder)


@settings(max_examples=4, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_any_history_is_equal_after_two_restores(addresses: Callable[[], Any], seed: int) -> None:
    """A random history is equal after a restore on PostgreSQL and back on SQLite, and the books balance on both."""
    with addresses() as (first, middle, last, folder):
        with new_platform(first) as platform:
            PlayedHistory(populated(platform)).play(drawn(seed, 60))
        assert len(all_rows(first)["transactions"]) > 50
        _check_round_trip(first, middle, last, folder)
        for address in (middle, last):
            with closing(Database(address)) as database:
                check_books(database)


def _check_round_trip(first: str, middle: str, last: str, folder: Path) -> None:
    back_up(first, folder / "first.backup")
    load(folder / "first.backup", middle)
    back_up(middle, folder / "middle.backup")
    load(folder / "middle.backup", last)
    expected = all_rows(first)
    assert all_rows(middle) == expected
    assert all_rows(last) == expected
