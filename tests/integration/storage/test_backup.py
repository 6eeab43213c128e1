"""Backup and restore: equal rows on both databases, only into an empty one, and nothing after a failure or a kill."""

import gzip
import hashlib
import io
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from sqlalchemy import inspect, select, text

from cardwright.core.messages import Clearing
from cardwright.core.movements import GpaLoad
from cardwright.storage.backup import save as save_module
from cardwright.storage.backup.backup_file import DIGEST_BYTES, BackupReader, BackupWriter, Header, Unreadable
from cardwright.storage.backup.restore import RestoreRefused, restore
from cardwright.storage.backup.save import write_backup
from cardwright.storage.database import Database
from cardwright.storage.migrate import exclusive, migrate, newest, present, upgrade
from cardwright.storage.tables import POSTGRES_ID_BLOCK, credentials, data_keys, metadata, programs
from cardwright.wiring import DEFAULT_PROGRAM
from tests.support.backups import all_rows, back_up, load, no_keys
from tests.support.databases import check_books, chosen_databases, empty_database, migrate_address
from tests.support.failpoints import Failpoints
from tests.support.histories import populated
from tests.support.in_process_platform import InProcessPlatform, card_request, movement_request, new_platform
from tests.support.instants import NOON

RESTORE = """
import sys
from pathlib import Path
from tests.support.backups import load
load(Path(sys.argv[1]), sys.argv[2])
"""

PAIRS = list(product(chosen_databases(), repeat=2))

Made = Callable[[str], str]


@pytest.fixture
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Made]:
    """Yield a function that returns the address of a new empty database of a kind."""
    with ExitStack() as stack:
        folders = (tmp_path / str(number) for number in range(10))

        def make(kind: str) -> str:
            folder = next(folders)
            folder.mkdir()
            return str(stack.enter_context(empty_database(kind, request, folder)))

        yield make


def filled(address: str) -> str:
    """Fill an empty database with cards, purchases and an order; return its address."""
    migrate_address(address)
    with new_platform(address) as platform:
        _fill(populated(platform))
    return address


def _fill(platform: InProcessPlatform) -> None:
    platform.make("depositaccounts", user_token="w", type="DEPOSIT_ACCOUNT")
    platform.run([[movement_request(platform, GpaLoad, ["bo"], 50_00, seed=1, source="bank")]])
    purchases = platform.run([[card_request(platform, "u1", 10_00, seed=seed, token=f"t{seed}") for seed in range(10, 20)]])
    platform.run([[card_request(platform, "u1", 10_00, seed=30, kind=Clearing, root_id=purchases[0].row.id)]])


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_restored_rows_are_equal(new_database: Made, tmp_path: Path, source: str, target: str) -> None:
    """After a restore, each table has the rows of the backup, the invariants hold, and a second backup has the same checksums."""
    address, other = filled(new_database(source)), new_database(target)
    counts = back_up(address, tmp_path / "x")
    assert load(tmp_path / "x", other) == counts
    assert all_rows(other) == all_rows(address)
    assert counts["transactions"] > 10
    with closing(Database(other)) as database:
        check_books(database)
    back_up(other, tmp_path / "y")
    first, second = (lines_of(tmp_path / name)[1:] for name in ("x", "y"))
    assert first == second


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_restored_database_continues(new_database: Made, tmp_path: Path, source: str, target: str) -> None:
    """New rows of a restored database get ids that no loaded row has, also in a second program, and its books balance."""
    address, other = filled(new_database(source)), new_database(target)
    back_up(address, tmp_path / "x")
    load(tmp_path / "x", other)
    with closing(Database(other)) as database, database.write() as db:
        db.execute(programs.update().values(token="first"))
    before = all_rows(other)
    with new_platform(other) as platform:
        _fill(populated(platform))
        check_books(platform.database)
    after = all_rows(other)
    assert all(set(before[name]) <= set(after[name]) for name in ("transactions", "journal", "cards", "users", "config_history"))
    assert len(after["transactions"]) == 2 * len(before["transactions"])


def lines_of(file: Path) -> list[bytes]:
    """Return the lines in a backup."""
    return gzip.decompress(file.read_bytes()[:-DIGEST_BYTES]).splitlines(keepends=True)


def write_lines(file: Path, lines: list[bytes]) -> None:
    """Write a backup of these lines with a correct checksum."""
    content = gzip.compress(b"".join(lines))
    file.write_bytes(content + hashlib.sha256(content).digest())


def test_every_table_is_in_a_backup(database_url: str, tmp_path: Path) -> None:
    """A backup has each table and column that the migrations create, so a table that it does not know fails here."""
    migrate_address(database_url)
    back_up(database_url, tmp_path / "x")
    header = msgspec.json.decode(lines_of(tmp_path / "x")[0], type=Header)
    with closing(Database(database_url)) as database, database.read() as db:
        names = [name for name in inspect(db).get_table_names() if name != "alembic_version"]
        columns = {name: sorted(column["name"] for column in inspect(db).get_columns(name)) for name in names}
    assert {spec.name: sorted(column.name for column in spec.columns) for spec in header.tables} == columns


def test_every_sequence_is_set(migrated_postgres_url: str) -> None:
    """PostgreSQL has no sequence beside those of generated ids and of id blocks, which a restore sets."""
    with psycopg.connect(migrated_postgres_url) as connection:
        query = "SELECT c.relname FROM pg_class c LEFT JOIN pg_depend d ON d.objid = c.oid AND d.deptype = 'i' "
        names = connection.execute(f"{query} WHERE c.relkind = 'S' AND d.refobjid IS NULL").fetchall()
    assert names == [("transaction_blocks",)]


def test_id_blocks_continue_after_the_last_id(new_database: Made, tmp_path: Path) -> None:
    """After a restore on PostgreSQL the next id block has only ids above those of SQLite, also at the end of a block."""
    for last in (1, POSTGRES_ID_BLOCK - 1, POSTGRES_ID_BLOCK + 1, 5 * POSTGRES_ID_BLOCK + 77):
        address, other = new_database("sqlite"), new_database("postgresql")
        migrate_address(address)
        with closing(Database(address)) as database, database.write() as db:
            names = [column.name for column in metadata.tables["transactions"].c if not column.nullable]
            fixed = {"currency": "'USD'", "details": "x''", "id": str(last)}
            values = ", ".join(fixed.get(name, "1") for name in names)
            db.exec_driver_sql(f"INSERT INTO transactions ({', '.join(names)}) VALUES ({values})")
        back_up(address, tmp_path / "x")
        load(tmp_path / "x", other)
        with psycopg.connect(other) as connection:
            block = connection.execute("SELECT nextval('transaction_blocks')").fetchone()
        assert block is not None
        first = (block[0] - 1) * POSTGRES_ID_BLOCK + 1
        assert last < first <= last + POSTGRES_ID_BLOCK


def test_row_may_refer_to_a_later_row(new_database: Made, tmp_path: Path) -> None:
    """A row that refers to a later row of its table is restored on both databases."""
    address = filled(new_database("sqlite"))
    with closing(Database(address)) as database, database.write() as db:
        db.exec_driver_sql("UPDATE users SET parent_id = 3 WHERE id = 1")
    back_up(address, tmp_path / "x")
    for kind in chosen_databases():
        other = new_database(kind)
        load(tmp_path / "x", other)
        assert all_rows(other) == all_rows(address)


# --- The snapshot -------------------------------------------------------------------------


def test_backup_has_the_rows_of_one_instant(new_database: Made, tmp_path: Path) -> None:
    """Purchases that are booked between two tables of a backup are in none of its tables."""
    for kind in chosen_databases():
        address = new_database(kind)
        migrate_address(address)
        with new_platform(address) as platform:
            _fill(populated(platform))
            before = all_rows(address)
            seeds = iter(range(100, 200))

            def book(_name: str, _rows: int, platform: Any = platform, seeds: Any = seeds) -> None:
                platform.run([[card_request(platform, "u1", 1, seed=next(seeds))]])

            with closing(Database(address)) as database, (tmp_path / "x").open("wb") as file:
                write_backup(database, file, version="1", now=NOON, read_keys=no_keys, progress=book)
        assert len(all_rows(address)["transactions"]) > len(before["transactions"]) + 10
        other = new_database(kind)
        load(tmp_path / "x", other)
        assert all_rows(other) == before


def test_migration_waits_for_a_backup(migrated_postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PostgreSQL no table can change its columns during a backup, also one that has not been read yet. Rows can change."""
    address = migrated_postgres_url
    states = list[str]()

    def change(_: Any) -> Any:
        with psycopg.connect(address, autocommit=True, options="-c lock_timeout=100") as connection:
            for statement in ("UPDATE meta SET value = value", "ALTER TABLE cards ADD COLUMN later int"):
                try:
                    connection.execute(statement)
                    states.append("")
                except psycopg.Error as error:
                    states.append(str(error.sqlstate))
        return no_keys(_)

    with closing(Database(address)) as database:
        write_backup(database, io.BytesIO(), version="1", now=NOON, read_keys=change)
    assert states == ["", "55P03"]


# --- Refusals -----------------------------------------------------------------------------


def test_changed_file_writes_nothing(new_database: Made, tmp_path: Path) -> None:
    """A file that is truncated in any part, or has one changed byte, is refused, and the database stays without tables."""
    back_up(filled(new_database("sqlite")), tmp_path / "x")
    content, source, refused = (tmp_path / "x").read_bytes(), random.Random(4), 0
    sizes = [0, 5, DIGEST_BYTES, len(content) // 3, len(content) - DIGEST_BYTES, len(content) - 1]
    tries = [content[:size] for size in sizes]
    for _ in range(30):
        place = source.randrange(len(content))
        tries.append(content[:place] + bytes([content[place] ^ 1 + source.randrange(255)]) + content[place + 1 :])
    for kind in chosen_databases():
        address = new_database(kind)
        for changed in tries:
            (tmp_path / "y").write_bytes(changed)
            with pytest.raises(Unreadable):
                load(tmp_path / "y", address)
            refused += 1
        with closing(Database(address)) as database:
            assert present(database) is None
    assert refused == len(tries) * len(chosen_databases())


def refusal(file: Path, address: str) -> RestoreRefused:
    """Restore a backup; return the refusal."""
    with pytest.raises(RestoreRefused) as caught:
        load(file, address)
    assert caught.value.advice
    return caught.value


def test_refused_row_writes_nothing(new_database: Made, tmp_path: Path) -> None:
    """An entry that does not sum to zero, a repeated key and a missing reference are refused by the database itself."""
    address = filled(new_database("sqlite"))
    back_up(address, tmp_path / "x")
    lines = lines_of(tmp_path / "x")
    header = msgspec.json.decode(lines[0], type=Header)
    rows = {table.name: [list(row) for row in table_rows] for table, table_rows in _tables(tmp_path / "x")}
    journal = [column.name for spec in header.tables if spec.name == "journal" for column in spec.columns]
    unbalanced = [*rows["journal"][:-1], [*rows["journal"][-1]]]
    unbalanced[-1][journal.index("held")] += 1
    user = [column.name for spec in header.tables if spec.name == "users" for column in spec.columns]
    orphan = [*rows["users"][:-1], [*rows["users"][-1]]]
    orphan[-1][user.index("parent_id")] = 999
    wrong = {"journal": unbalanced, "cards": [*rows["cards"], rows["cards"][0]], "users": orphan}
    for kind, (name, table_rows) in product(chosen_databases(), wrong.items()):
        other = new_database(kind)
        with (tmp_path / "y").open("wb") as file:
            writer = BackupWriter(file, header)
            for spec in header.tables:
                writer.write_table(spec.name, table_rows if spec.name == name else rows[spec.name], lambda _: None)
            writer.close()
        with pytest.raises(Exception, match=r"constraint|CONSTRAINT"):
            load(tmp_path / "y", other)
        with closing(Database(other)) as database:
            assert present(database) is None


def _tables(file: Path) -> Iterator[tuple[Any, list[tuple[Any, ...]]]]:
    with file.open("rb") as stream:
        reader = BackupReader(stream)
        for spec in reader.header.tables:
            yield spec, [row for block in reader.blocks(spec) for row in block]


def test_filled_database_is_refused(new_database: Made, tmp_path: Path) -> None:
    """A database with rows is refused, and its rows stay. The reason names the tables."""
    back_up(filled(new_database("sqlite")), tmp_path / "x")
    for kind in chosen_databases():
        address = filled(new_database(kind))
        before = all_rows(address)
        assert "not empty: there are rows in card_products," in str(refusal(tmp_path / "x", address))
        assert all_rows(address) == before


def start_once(address: str) -> None:
    """Insert the rows of the first start of a server."""
    with new_platform(address) as platform, platform.database.write() as db:
        db.execute(programs.update().values(token=DEFAULT_PROGRAM))
        db.exec_driver_sql("INSERT INTO meta (key, value) VALUES ('master key', 'another')")
        db.execute(credentials.insert().values(digest=b"1" * 32, program_id=1, token="t", created_ms=0, is_given=True))
        values = {"key_id": 1, "purpose": "pan", "state": 3, "created_ms": 0, "wrapped": b"1"}
        db.execute(data_keys.insert().values(values))


def test_rows_of_a_first_start_are_replaced(new_database: Made, tmp_path: Path) -> None:
    """A migrated database takes a backup, and so does one on which a server has started once. A second program is too much."""
    address = filled(new_database("sqlite"))
    back_up(address, tmp_path / "x")
    for kind in chosen_databases():
        migrated, started, used = (new_database(kind) for _ in range(3))
        migrate_address(migrated)
        for each in (started, used):
            migrate_address(each)
            start_once(each)
        with closing(Database(used)) as database, database.write() as db:
            db.exec_driver_sql("INSERT INTO programs (token, name, short_code, settings, revision, clock_offset_ms, created_ms) "
                               "VALUES ('second', '', '', '{}', 1, 0, 0)")  # fmt: skip
        for each in (migrated, started):
            load(tmp_path / "x", each)
            assert all_rows(each) == all_rows(address)
        assert str(refusal(tmp_path / "x", used)).endswith("there are rows in programs")


def test_connected_server_is_noticed(migrated_postgres_url: str, new_database: Made, tmp_path: Path) -> None:
    """On PostgreSQL a restore is refused while another process of Cardwright is connected to the database."""
    back_up(filled(new_database("sqlite")), tmp_path / "x")
    with closing(Database(migrated_postgres_url)) as other, other.read() as db:
        db.execute(select(programs)).all()
        refused = refusal(tmp_path / "x", migrated_postgres_url)
    assert "connections of Cardwright use the database" in str(refused)
    load(tmp_path / "x", migrated_postgres_url)


def test_second_restore_waits_and_is_refused(new_database: Made, tmp_path: Path) -> None:
    """While another process restores or migrates, a restore gives up at its limit and changes nothing."""
    back_up(filled(new_database("sqlite")), tmp_path / "x")
    address = new_database("sqlite")
    with closing(Database(address)) as other, exclusive(other), pytest.MonkeyPatch.context() as patched:
        patched.setattr("cardwright.kit.limits.Limits.lock_s", 0.05)
        assert "another migration or transaction" in str(refusal(tmp_path / "x", address))


# --- Versions -----------------------------------------------------------------------------


def older_backup(address: str, file: Path) -> None:
    """Write a backup of schema 0001 with a transaction of type 3."""
    with closing(Database(address)) as database:
        with exclusive(database) as db:
            upgrade(db, "0001")
            names = [column["name"] for column in inspect(db).get_columns("transactions") if not column["nullable"]]
            values = ", ".join("'USD'" if name == "currency" else "''" if name == "details" else "3" for name in names)
            db.execute(text(f"INSERT INTO transactions ({', '.join(names)}) VALUES ({values})"))
        with database.read() as db, pytest.MonkeyPatch.context() as patched, file.open("wb") as output:
            tables = type(metadata)()
            tables.reflect(bind=db, resolve_fks=False)
            tables.remove(tables.tables["alembic_version"])
            patched.setattr(save_module, "metadata", tables)
            patched.setattr(save_module, "newest", lambda: "0001")
            patched.setattr(save_module, "check_schema", lambda _: None)
            write_backup(database, output, version="0.0.1", now=NOON, read_keys=no_keys)


def test_older_backup_is_migrated(new_database: Made, tmp_path: Path) -> None:
    """A backup of an earlier schema is loaded with its schema and then migrated, into a database without tables only."""
    older_backup(new_database("sqlite"), tmp_path / "x")
    for kind in chosen_databases():
        address, current, old = (new_database(kind) for _ in range(3))
        load(tmp_path / "x", address)
        with closing(Database(address)) as database:
            assert present(database) == newest()
            assert not migrate(database)
            with database.read() as db:
                assert db.execute(text("SELECT type_id FROM transactions")).scalar_one() == 3
        migrate_address(current)
        refused = refusal(tmp_path / "x", current)
        assert f"the tables have schema {newest()}, and the backup has the earlier schema 0001" in str(refused)
        with closing(Database(old)) as database, exclusive(database) as db:
            upgrade(db, "0001")
        load(tmp_path / "x", old)
        assert all_rows(old) == all_rows(address)


def test_newer_backup_is_refused(new_database: Made, tmp_path: Path) -> None:
    """A backup of a later schema is refused with the version to install."""
    back_up(filled(new_database("sqlite")), tmp_path / "x")
    header, *rest = lines_of(tmp_path / "x")
    write_lines(tmp_path / "y", [header.replace(f'"revision":"{newest()}"'.encode(), b'"revision":"9999"'), *rest])
    refused = refusal(tmp_path / "y", new_database("sqlite"))
    assert "schema 9999, and this version of Cardwright knows schemas up to" in str(refused)
    assert "install Cardwright 1.2.3, which made the backup" in refused.advice


def test_columns_of_another_program_are_refused(new_database: Made, tmp_path: Path) -> None:
    """A backup whose columns are not those of its schema is refused, and the database stays without tables."""
    back_up(filled(new_database("sqlite")), tmp_path / "x")
    header, *rest = lines_of(tmp_path / "x")
    write_lines(tmp_path / "y", [header.replace(b'"name":"pan_sealed"', b'"name":"pan"'), *rest])
    address = new_database("sqlite")
    assert "different columns: cards" in str(refusal(tmp_path / "y", address))
    with closing(Database(address)) as database:
        assert present(database) is None


# --- Kills --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "passes"), [("restore.table", 1), ("restore.table", 15), ("restore.commit", 1)])
def test_killed_restore_leaves_an_empty_database(new_database: Made, tmp_path: Path, name: str, passes: int) -> None:
    """After SIGKILL between two tables or before COMMIT there are no tables, and a second restore loads all rows."""
    address = filled(new_database("sqlite"))
    back_up(address, tmp_path / "x")
    for kind in chosen_databases():
        other = new_database(kind)
        with Failpoints() as failpoints:
            failpoints.arm(name, f"kill {passes}")
            words = [sys.executable, "-c", RESTORE, str(tmp_path / "x"), other]
            env = {"PYTHONPATH": ":".join(sys.path), **failpoints.environment}
            done = subprocess.run(words, env=env, check=False)
        assert done.returncode == -signal.SIGKILL
        with closing(Database(other)) as database:
            assert present(database) is None
        load(tmp_path / "x", other)
        assert all_rows(other) == all_rows(address)


def test_failure_before_the_commit_writes_nothing(new_database: Made, tmp_path: Path) -> None:
    """If the last step before COMMIT fails, the database stays without tables."""
    back_up(filled(new_database("sqlite")), tmp_path / "x")

    def fail() -> None:
        raise OSError("no space for the keys")

    for kind in chosen_databases():
        with closing(Database(new_database(kind))) as database, (tmp_path / "x").open("rb") as stream:
            with pytest.raises(OSError, match="no space for the keys"):
                restore(database, BackupReader(stream), before_commit=fail)
            assert present(database) is None
