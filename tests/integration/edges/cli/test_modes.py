"""Mode of a database: stored by the first start, and every command keeps a production database as it is."""

import hashlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from cardwright.edges.cli.commands import cli, credentials
from cardwright.edges.cli.database_commands import opened
from cardwright.edges.cli.output import Failure
from cardwright.kit.clock import ProgramClock
from cardwright.settings import Settings
from cardwright.storage.database import Database
from cardwright.storage.programs import MODE, find_value
from cardwright.storage.reset import ProductionData, reset_program
from cardwright.storage.tables import meta, metadata
from tests.integration.edges.cli.conftest import Done
from tests.support.server import ACCESS_TOKEN, APPLICATION_TOKEN, MASTER_KEY, RunningServer

SECRETS = {"application_token": APPLICATION_TOKEN, "access_token": ACCESS_TOKEN, "master_key": MASTER_KEY}
VARIABLES = {f"CARDWRIGHT_{name.upper()}": value for name, value in SECRETS.items()}
VARIABLES["CARDWRIGHT_NEW_MASTER_KEY"] = hashlib.sha256(b"new master key of the tests").hexdigest()

REFUSED = {"serve": ("--port", "0"), "reset": ("--yes",), "exec": ("--", "true")}
"""Commands that a production database refuses in a shell without CARDWRIGHT_MODE, and their further arguments."""

READS = {"verify": (), "credentials list": (), "backup": ("x.backup", "--force")}
"""Commands that only read the database, in both modes."""

IN_BOTH_MODES = {
    "migrate": (), "rekey": (), "credentials add": (), "credentials rotate": (), "credentials revoke": ("nothing",),
}  # fmt: skip
"""Commands that change the schema, the keys or the credentials of a database, in both modes, and nothing else."""

WITHOUT_DATABASE = {
    "demo": "uses a new database, which it removes",
    "restore": "loads into an empty database only",
    "format": "reads standard input",
    "status": "asks the running server",
    "program": "asks the running server, which refuses it in production mode",
    "explain": "asks the running server, which only reads",
    "backtest": "asks the running server, which replays in memory",
}
"""Commands that open no existing database, and the reasons."""


def commands() -> set[str]:
    """Return all commands, those of the group `credentials` with its name."""
    names = {command.name or str(getattr(command.callback, "__name__", "")) for command in cli.registered_commands}
    return names | {f"credentials {command.name}" for command in credentials.registered_commands}


def rows_of(address: str) -> dict[str, list[str]]:
    """Return all rows of a database."""
    with closing(Database(address)) as database, database.read() as db:
        return {table.name: sorted(map(repr, db.execute(table.select()))) for table in metadata.sorted_tables}


def settings_of(address: str, mode: str = "production") -> Settings:
    return Settings(db=address, data_dir=Path("keys"), mode=mode, **SECRETS)  # type: ignore[arg-type]


@pytest.fixture
def production(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A production database, in a shell that has its secrets and not its mode, as after a lost variable."""
    with opened(settings_of(migrated_url)):
        pass
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CARDWRIGHT_DATA_DIR", "keys")
    return migrated_url


def test_every_command_is_classified() -> None:
    """Each command is in one of the tables above, so that a new one is compared with a production database too."""
    tables = (REFUSED, READS, IN_BOTH_MODES, WITHOUT_DATABASE)
    assert commands() == {name for table in tables for name in table}
    assert len(commands()) == sum(map(len, tables))


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("mode", [None, "sandbox"])
def test_production_database_refuses_the_sandbox(
    production: str, spawn: Callable[..., Done], name: str, mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that would change cards or money is refused with the way out, and leaves every row as it was."""
    if mode is not None:
        monkeypatch.setenv("CARDWRIGHT_MODE", mode)
    before = rows_of(production)
    done = spawn(name, "--db", production, *REFUSED[name])
    assert (done.code, done.out) == (1 if name == "exec" else 2, "")
    assert " is a production database" in done.err
    assert "CARDWRIGHT_MODE" in done.err
    assert rows_of(production) == before


@pytest.mark.parametrize("name", REFUSED)
def test_production_database_is_never_emptied(
    production: str, spawn: Callable[..., Done], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With CARDWRIGHT_MODE=production `reset` and `exec` are refused too, and every row stays. A server starts."""
    monkeypatch.setenv("CARDWRIGHT_MODE", "production")
    if name == "serve":
        with opened(settings_of(production)):
            return
    before = rows_of(production)
    done = spawn(name, "--db", production, *REFUSED[name])
    assert done.code != 0
    assert "production" in done.err
    assert rows_of(production) == before


@pytest.mark.parametrize("name", [*READS, *IN_BOTH_MODES])
@pytest.mark.parametrize("mode", ["production", "sandbox", None])
def test_other_commands_work_in_both_modes(
    production: str, cardwright: Callable[..., Done], name: str, mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands that change no cards and no money work on a production database, whatever the mode of the shell is."""
    if mode is not None:
        monkeypatch.setenv("CARDWRIGHT_MODE", mode)
    before = rows_of(production)
    done = cardwright(*name.split(), *(READS | IN_BOTH_MODES)[name], "--db", production)
    assert (done.code == 0) is (name != "credentials revoke"), done.err
    changed = {table for table, rows in rows_of(production).items() if rows != before[table]}
    assert changed <= (set() if name in READS else {"credentials", "data_keys", "meta"})


def test_demo_does_not_touch_a_production_database(production: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database of the environment is not that of the demo's instance."""
    from cardwright.edges.cli.instance import fresh_instance

    monkeypatch.setenv("CARDWRIGHT_DB", production)
    monkeypatch.setenv("CARDWRIGHT_MODE", "production")
    before = rows_of(production)
    with fresh_instance() as fresh:
        assert fresh.instance.mode == "sandbox"
        assert fresh.client.request("POST", "/sandbox/reset", {}).status == 200
    assert rows_of(production) == before


def test_refusal_comes_before_the_migration(production: str) -> None:
    """A sandbox server of a later version does not migrate a production database before it refuses it."""
    with closing(Database(production)) as database, database.write() as db:
        db.execute(text("UPDATE alembic_version SET version_num = '0002'"))
    before = rows_of(production)
    with pytest.raises(Failure, match="is a production database"), opened(settings_of(production, "sandbox")):
        pass
    with closing(Database(production)) as database, database.read() as db:
        assert db.scalar(text("SELECT version_num FROM alembic_version")) == "0002"
    assert rows_of(production) == before


def test_sandbox_database_is_not_for_production(migrated_url: str) -> None:
    """A database that a sandbox has opened is refused in production mode with the way out, also without any card."""
    with opened(settings_of(migrated_url, "sandbox")):
        pass
    refusal = pytest.raises(Failure, match="is a sandbox database, and CARDWRIGHT_MODE is production")
    with refusal as failure, opened(settings_of(migrated_url)):
        pass
    assert failure.value.code == 2
    assert "new database" in failure.value.hint.text
    with opened(settings_of(migrated_url, "sandbox")):
        pass


@pytest.mark.parametrize("mode", ["sandbox", "production"])
def test_database_of_an_older_version_gets_the_mode_of_its_next_start(migrated_url: str, mode: str) -> None:
    """A database without a stored mode gets that of the next start, and keeps it."""
    with opened(settings_of(migrated_url, "sandbox")) as (database, _), database.write() as db:
        db.execute(meta.delete().where(meta.c.key == MODE))
    with opened(settings_of(migrated_url, mode)) as (database, _), database.read() as db:
        assert find_value(db, MODE) == mode


def test_two_first_starts_in_different_modes(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a first start in another mode commits between the check and the start, the second one is refused."""
    from cardwright.edges.cli import database_commands

    def check_then_lose(settings: Settings, database: Database) -> None:
        check(settings, database)
        monkeypatch.setattr(database_commands, "check_mode", check)
        with opened(settings_of(migrated_url)):
            pass

    check = database_commands.check_mode
    monkeypatch.setattr(database_commands, "check_mode", check_then_lose)
    refusal = pytest.raises(Failure, match="the database is one of production mode, and CARDWRIGHT_MODE is sandbox")
    with refusal, opened(settings_of(migrated_url, "sandbox")):
        pass


# --- Running servers ----------------------------------------------------------------------


def test_production_server_has_no_route_of_the_sandbox(migrated_url: str) -> None:
    """Reset, clock, new programs and simulations of a production server are 403, and no row changes."""
    with RunningServer(db=migrated_url, mode="production", env=VARIABLES) as server, server.client() as client:
        before = rows_of(migrated_url)
        for path, body in {
            "/sandbox/reset": {}, "/sandbox/clock": {"by": "1d"}, "/sandbox/clock/advance": {"by": "1d"},
            "/sandbox/programs": {}, "/v3/simulate/authorization": {"card_token": "c", "amount": 1, "mid": "m"},
        }.items():  # fmt: skip
            assert client.post(path, body).status == 403
        assert client.get("/sandbox/credentials").json["count"] == 1
        assert rows_of(migrated_url) == before


def test_reset_reads_the_mode_in_its_transaction(production: str) -> None:
    """The reset itself refuses a production database, so that no caller can forget the check."""
    before = rows_of(production)
    with closing(Database(production)) as database, pytest.raises(ProductionData), database.write() as db:
        reset_program(db, 1, ProgramClock())
    assert rows_of(production) == before


def test_route_of_a_sandbox_server_cannot_reset_production_data(migrated_url: str) -> None:
    """If a database becomes one of production under a running sandbox server, its reset is a 403."""
    with RunningServer(db=migrated_url) as server, server.client() as client:
        assert client.post("/sandbox/reset", {}).status == 200
        with closing(Database(migrated_url)) as database, database.write() as db:
            db.execute(meta.update().where(meta.c.key == MODE).values(value="production"))
        reply = client.post("/sandbox/reset", {})
        assert (reply.status, "production mode" in reply.text) == (403, True)
