"""`cardwright rekey`: which master key a start finds, the refusals, and the data keys of new and of older databases."""

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from cardwright.edges.cli.database_commands import opened
from cardwright.edges.cli.output import Failure
from cardwright.kit.vault import KEY_IDS_MAX, SEALING_PURPOSES, MasterKey, Vault, random_keys
from cardwright.settings import Settings
from cardwright.storage.data_keys import KeyState, insert_data_keys
from cardwright.storage.tables import cards, data_keys
from cardwright.wiring import make_vault
from tests.integration.edges.cli.conftest import Done
from tests.stress import api_fixtures, check, rekeying
from tests.stress.api_fixtures import made
from tests.support.failpoints import Failpoints
from tests.support.server import RunningServer
from tests.support.waiting import until

HOME = Path(".cardwright")
FILE = HOME / "secrets.json"
OLD, NEW, OTHER = "ab" * 32, "12" * 32, "cd" * 32
NUMBER = "1111110000004326"


@pytest.fixture
def address(database_url: str) -> str:
    """Return the address of a database with the keys in ``FILE``."""
    HOME.mkdir()
    with opened(Settings(db=database_url, data_dir=HOME)):
        pass
    return database_url


def vault_of(address: str, **settings: Any) -> Vault:
    """Return the vault of a database, with keys that are loaded."""
    with check.database_at(address) as database:
        vault = make_vault(database, Settings(db=address, data_dir=HOME, **settings))
        vault.reload()
    return vault


def content() -> dict[str, str]:
    """Return the content of ``secrets.json``."""
    return dict(json.loads(FILE.read_text()))


def place(address: str) -> tuple[str, ...]:
    """Return the options for the database."""
    return ("--db", address, "--data-dir", str(HOME))


# --- Data keys of new and of older databases ----------------------------------------------


def test_a_new_database_has_random_data_keys(address: str) -> None:
    """The data keys of a new database do not follow from its master key, and each start loads the same ones."""
    vault = vault_of(address)
    derived = Vault(MasterKey.from_hex(content()["master_key"]).derived_keys)
    assert vault.pan_digest(NUMBER, "1") != derived.pan_digest(NUMBER, "1")
    with opened(Settings(db=address, data_dir=HOME)):
        assert vault_of(address).pan_digest(NUMBER, "1") == vault.pan_digest(NUMBER, "1")
    with check.database_at(address) as database, database.read() as db:
        rows = db.execute(select(data_keys)).all()
    assert len(rows) == 7
    assert {row.state for row in rows} == {KeyState.COMPLETE}


def test_an_older_database_keeps_its_keys(database_url: str) -> None:
    """A database without stored data keys gets those that its version derived from the master key; all secrets stay valid."""
    old = Vault(MasterKey.from_hex(OLD).derived_keys)
    settings = Settings(db=database_url, data_dir=HOME, master_key=OLD, application_token="app", access_token="token")  # type: ignore[arg-type]
    HOME.mkdir()
    with opened(settings) as (database, _), database.write() as db:
        db.execute(data_keys.delete())
    for _ in range(2):
        with opened(settings):
            pass
        vault = vault_of(database_url, master_key=OLD)
        assert vault.open(old.seal("text", "context"), "context") == "text"
        assert vault.credential_digest("app", "token") == old.credential_digest("app", "token")
        assert vault.cvv(NUMBER, "0130", "101") == old.cvv(NUMBER, "0130", "101")


@pytest.mark.parametrize("is_older", [False, True])
def test_starts_at_once_agree(migrated_url: str, is_older: bool) -> None:
    """Servers that start at once on a new database, or on one without data keys, all have the same keys."""
    HOME.mkdir()
    settings = Settings(db=migrated_url, data_dir=HOME)
    if is_older:
        with opened(settings) as (database, _), database.write() as db:
            db.execute(data_keys.delete())
    barrier, digests, failures = threading.Barrier(4), list[bytes](), list[BaseException]()

    def start() -> None:
        barrier.wait()
        try:
            with opened(settings):
                digests.append(vault_of(migrated_url).pan_digest(NUMBER, "1"))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert len(digests) == 4
    assert len(set(digests)) == 1


# --- The master key -----------------------------------------------------------------------


def test_a_new_key_replaces_the_old_one_in_the_file(cardwright: Callable[..., Done], address: str) -> None:
    """`rekey` stores a new master key in place of the old one, and keeps data keys and tokens."""
    before, digest = content(), vault_of(address).pan_digest(NUMBER, "1")
    done = cardwright("rekey", *place(address), "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["wrapped"] == 7
    after = content()
    assert after.keys() == before.keys()
    assert after["master_key"] != before["master_key"]
    assert {name: after[name] for name in ("application_token", "access_token")} == {
        name: before[name] for name in ("application_token", "access_token")
    }
    assert after["master_key"] not in done.out + done.err
    assert vault_of(address).pan_digest(NUMBER, "1") == digest
    FILE.write_text(json.dumps(before))
    with pytest.raises(Failure, match="filled under another master key"), opened(Settings(db=address, data_dir=HOME)):
        pass


@pytest.mark.parametrize("point", ["rekey.kept", "rekey.wrapped"])
def test_a_killed_rekey_loses_no_key(spawn: Callable[..., Done], address: str, point: str) -> None:
    """After a kill before or after the commit, the file has both keys, a start finds the right one, and a second run ends it."""
    before, digest = content()["master_key"], vault_of(address).pan_digest(NUMBER, "1")
    with Failpoints() as failpoints:
        failpoints.arm(point, "kill")
        done = spawn("rekey", *place(address), env={**os.environ, **failpoints.environment})
    assert done.code == -signal.SIGKILL
    between = content()
    assert between["master_key"] == before
    with opened(Settings(db=address, data_dir=HOME)):
        assert vault_of(address).pan_digest(NUMBER, "1") == digest
    done = spawn("rekey", *place(address), "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["wrapped"] == (7 if point == "rekey.kept" else 0)
    assert content()["master_key"] == between["new_master_key"]
    assert "new_master_key" not in content()
    assert vault_of(address).pan_digest(NUMBER, "1") == digest


def test_variables(database_url: str, cardwright: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the old key in the environment, the new one must be there too. A start with both finds the one that fits."""
    HOME.mkdir()
    monkeypatch.setenv("CARDWRIGHT_MASTER_KEY", OLD)
    with opened(Settings(db=database_url, data_dir=HOME)):
        digest = vault_of(database_url).pan_digest(NUMBER, "1")
    missing = cardwright("rekey", *place(database_url))
    assert missing.code == 2
    assert "rekey needs CARDWRIGHT_NEW_MASTER_KEY" in missing.err
    monkeypatch.setenv("CARDWRIGHT_NEW_MASTER_KEY", NEW)
    with opened(Settings(db=database_url, data_dir=HOME)):
        pass
    for wrapped in (7, 0):
        done = cardwright("rekey", *place(database_url), "--json")
        assert done.code == 0, done.err
        assert json.loads(done.out)["wrapped"] == wrapped
        assert "set CARDWRIGHT_MASTER_KEY to the value of CARDWRIGHT_NEW_MASTER_KEY" in done.err
        assert NEW not in done.out + done.err
        with opened(Settings(db=database_url, data_dir=HOME)):
            assert vault_of(database_url).pan_digest(NUMBER, "1") == digest
    assert "master_key" not in content()
    monkeypatch.setenv("CARDWRIGHT_MASTER_KEY", NEW)
    monkeypatch.delenv("CARDWRIGHT_NEW_MASTER_KEY")
    assert vault_of(database_url).pan_digest(NUMBER, "1") == digest
    monkeypatch.setenv("CARDWRIGHT_MASTER_KEY", OTHER)
    for arguments in (("rekey",), ("rekey", "--data")):
        refused = cardwright(*arguments, *place(database_url))
        assert refused.code == 1
        assert "the database was filled under another master key" in refused.err


# --- The data keys ------------------------------------------------------------------------


def test_a_server_with_the_old_master_key_refuses_new_data_keys(database_url: str, tmp_path: Path) -> None:
    """A server that cannot unwrap new data keys stops `rekey --data` before anything is sealed; after a restart it works."""
    folder = tmp_path / "server"
    folder.mkdir()
    keys = {"CARDWRIGHT_MASTER_KEY": OLD, "CARDWRIGHT_NEW_MASTER_KEY": NEW}
    with Failpoints() as failpoints:
        with RunningServer(db=database_url, data_dir=folder, env={"CARDWRIGHT_MASTER_KEY": OLD}) as server:
            with server.client() as client:
                (card,) = api_fixtures.build(client, 1)
                pan = made(client.get(f"/cards/{card.token}/showpan"))["pan"]
                assert rekeying.rekey(database_url, folder, env=keys)["wrapped"] == 7
                failpoints.arm("rekey.settled", "pause")
                env = {**keys, **failpoints.environment}
                with rekeying.start_rekey(database_url, folder, "--data", env=env) as process:
                    until(lambda: rekeying.states_of(database_url).get(2) is KeyState.REFUSED)
                    assert failpoints.wait("rekey.settled", seconds=rekeying.COMMAND_S)
                    failpoints.release("rekey.settled")
                    _, errors = process.communicate(timeout=rekeying.COMMAND_S)
                assert process.returncode == 1
                assert "a running server has another master key and cannot read new data keys" in errors
                assert made(client.get(f"/cards/{card.token}/showpan"))["pan"] == pan
            assert "data keys cannot be unwrapped" in server.output()
            assert set(rekeying.key_ids_of(database_url)["cards.pan_sealed"]) == {1}
        with RunningServer(db=database_url, data_dir=folder, env=keys) as server, server.client() as client:
            assert rekeying.rekey(database_url, folder, "--data", env=keys)["key_id"] == 3
            assert made(client.get(f"/cards/{card.token}/showpan"))["pan"] == pan


def test_damaged_secrets_are_reported(tmp_path: Path, spawn: Callable[..., Done]) -> None:
    """`rekey --data` names a damaged envelope, leaves it as it is, seals all others, and ends with exit code 1."""
    address = str(tmp_path / "x.db")
    with RunningServer(db=address, data_dir=tmp_path) as server, server.client() as client:
        api_fixtures.build(client, 2)
    with check.database_at(address) as database, database.write() as db:
        envelope = bytes(db.scalars(select(cards.c.pan_sealed).where(cards.c.id == 1)).one())
        damaged = envelope[:-1] + bytes([envelope[-1] ^ 1])
        db.execute(cards.update().where(cards.c.id == 1).values(pan_sealed=damaged))
    done = spawn("rekey", "--data", "--db", address, "--data-dir", tmp_path, "--json")
    assert done.code == 1
    assert json.loads(done.out)["first_damaged"] == ["cards.pan_sealed 1"]
    assert "cards.pan_sealed 1 cannot be opened: it is damaged" in done.err
    assert rekeying.key_ids_of(address)["cards.pan_sealed"] == {1: 1, 2: 1}


def test_key_ids_end(cardwright: Callable[..., Done], address: str) -> None:
    """After the last key id, `rekey --data` refuses and changes nothing."""
    with check.database_at(address) as database, database.write() as db:
        keys = random_keys(KEY_IDS_MAX, SEALING_PURPOSES)
        insert_data_keys(db, MasterKey.from_hex(content()["master_key"]), keys, KeyState.COMPLETE, 0)
    done = cardwright("rekey", "--data", *place(address))
    assert done.code == 1
    assert f"all {KEY_IDS_MAX} key ids of the database have been used" in done.err
