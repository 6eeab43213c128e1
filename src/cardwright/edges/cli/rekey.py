"""`cardwright rekey`: wraps the data keys under a new master key, or seals all secrets under new data keys."""

import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cardwright.edges.cli.database_commands import migrated
from cardwright.edges.cli.output import Failure, Hint, print_notice, show_json
from cardwright.edges.cli.serve import check_master_keys
from cardwright.edges.cli.surroundings import command_with_place, locked_data_dir
from cardwright.kit.failpoints import failpoint

if TYPE_CHECKING:
    from cardwright.instance_secrets import SecretsFile
    from cardwright.kit.vault import MasterKey, Vault
    from cardwright.settings import Settings
    from cardwright.storage.database import Database
    from cardwright.storage.reseal import Progress

OLD, NEW = "CARDWRIGHT_MASTER_KEY", "CARDWRIGHT_NEW_MASTER_KEY"

BACKUPS = "keep the old master key for the backups that were made before"


def rekey(settings: "Settings", *, as_json: bool) -> None:
    """Wrap all data keys of the database under a new master key, in one transaction. Raises Failure, OSError."""
    with _keyed(settings) as (database, _, master_key):
        if settings.master_key is not None:
            place, count = NEW, _rekey_by_variable(database, settings, master_key)
            advice = f"set {OLD} to the value of {NEW} for all servers, and then unset {NEW}; {BACKUPS}"
        else:
            path, count = _rekey_in_file(database, settings)
            place, advice = str(path), BACKUPS
        if as_json:
            show_json({"database": database.place, "wrapped": count, "master_key": place})
        result = f"wrapped {count} data keys" if count else "the data keys were already wrapped"
        print_notice(f"{database.place}: {result} under the master key of {place}")
        print_notice(f"help:  {advice}")


def rekey_data(settings: "Settings", *, as_json: bool) -> bool:
    """Seal all secrets of the database under new data keys. Return whether all of them could be opened. Raises Failure.

    Another call continues an interrupted one.
    """
    from cardwright.kit.clock import system_ms
    from cardwright.storage.data_keys import KeysExhausted, KeyState
    from cardwright.storage.engine.sqlite import Checkpointer
    from cardwright.storage.reseal import SETTLE_S, KeyRefused, prepare_key, reseal_all, use_key

    with _keyed(settings) as (database, vault, master_key):
        try:
            key_id, state = prepare_key(database, master_key, system_ms)
            failpoint("rekey.prepared")
            if state is KeyState.PREPARED:
                # Running servers load the new keys, or refuse them if they have another master key.
                time.sleep(SETTLE_S)
                failpoint("rekey.settled")
                use_key(database, key_id)
        except KeyRefused:
            advice = "restart all servers with the new master key, and then run the command again"
            raise _failure("a running server has another master key and cannot read new data keys", advice) from None
        except KeysExhausted as error:
            raise _failure(str(error), "move the data to a new database") from None
        vault.reload()
        # Without a server, nothing else shortens the write-ahead log of SQLite.
        checkpointer = Checkpointer(database) if database.is_sqlite else None
        try:
            progress = reseal_all(database, vault, key_id, _show_progress)
        finally:
            if checkpointer is not None:
                checkpointer.stop()
        if sys.stderr.isatty():
            print(file=sys.stderr)
        if as_json:
            damaged = {"damaged": progress.damaged_count, "first_damaged": progress.damaged}
            show_json({"database": database.place, "key_id": key_id, "resealed": progress.resealed, **damaged})
        for place in progress.damaged:
            print_notice(f"{place} cannot be opened: it is damaged")
        if progress.damaged_count:
            print_notice(f"{progress.damaged_count} damaged secrets were left as they are; restore these rows from a backup")
        print_notice(f"{database.place}: sealed {progress.done} secrets under the data keys {key_id}")
        return not progress.damaged_count


def _show_progress(progress: "Progress") -> None:
    if sys.stderr.isatty():
        print(f"\r{f'{progress.done} of {progress.total} secrets':<70}", end="", file=sys.stderr, flush=True)


def _failure(text: str, advice: str) -> Failure:
    return Failure(text, Hint(text=advice))


@contextmanager
def _keyed(settings: "Settings") -> Iterator[tuple["Database", "Vault", "MasterKey"]]:
    """Open the database with its vault and the master key that wraps its data keys. Raises Failure, OSError."""
    from cardwright.instance_secrets import OTHER_KEY_ADVICE, Misconfigured, find_master_key
    from cardwright.storage.data_keys import OtherMasterKey
    from cardwright.wiring import open_vault

    check_master_keys(settings)
    with migrated(settings) as (database, _):
        key_check = _key_check(database)
        if not key_check:
            hint = command_with_place(settings, "cardwright serve", "the first start of a server makes the data keys")
            raise Failure(f"--db {database.place} has no data keys yet", hint)
        try:
            yield database, open_vault(database, settings), find_master_key(settings, key_check)
        except OtherMasterKey as error:
            raise _failure(str(error), OTHER_KEY_ADVICE) from None
        except Misconfigured as error:
            raise _failure(str(error), error.advice) from None


def _key_check(database: "Database") -> str:
    """Return the key check of the database, or an empty text before the first start of a server."""
    from cardwright.storage.data_keys import find_key_check

    with database.read() as db:
        return find_key_check(db) or ""


# --- The master key -----------------------------------------------------------------------


def _rekey_by_variable(database: "Database", settings: "Settings", master_key: "MasterKey") -> int:
    """Wrap the data keys under the key of the variable NEW. Return their number, 0 if they already were."""
    if settings.new_master_key is None:
        hint = Hint(f"export {NEW}=$(openssl rand -hex 32)", "keep the new key before you run the command again")
        raise Failure(f"rekey needs {NEW}, because {OLD} is set", hint, 2)
    return _wrap(database, master_key, _new_key(database, settings.new_master_key.get_secret_value()))


def _rekey_in_file(database: "Database", settings: "Settings") -> tuple[Path, int]:
    """Wrap the data keys under a new key in ``secrets.json``. Return the file and the number of wrapped keys.

    The file has both keys before the database changes, and the old one is removed afterwards. So every start finds the key that
    fits the database.
    """
    from cardwright.instance_secrets import SECRETS_FILE, data_dir_of, find_master_key, read_secrets_file
    from cardwright.kit.vault import MasterKey

    path = data_dir_of(settings) / SECRETS_FILE
    with locked_data_dir(path.parent):
        kept = read_secrets_file(path)
        given = None if settings.new_master_key is None else settings.new_master_key.get_secret_value()
        # The new key of an interrupted run is used again.
        text = given or kept.new_master_key or secrets.token_hex(32)
        new, old = _new_key(database, text), find_master_key(settings, _key_check(database))
        if new.check() != old.check():
            current = kept.master_key
            if current is None or MasterKey.from_hex(current).check() != old.check():
                current = kept.new_master_key
            assert current is not None
            _replace(path, kept, current, text)
        failpoint("rekey.kept")
        count = _wrap(database, old, new)
        failpoint("rekey.wrapped")
        _replace(path, kept, text, None)
    return path, count


def _replace(path: Path, kept: "SecretsFile", master_key: str, new_master_key: str | None) -> None:
    import msgspec

    from cardwright.kit.files import replace_file

    content = msgspec.structs.replace(kept, master_key=master_key, new_master_key=new_master_key)
    replace_file(path, msgspec.json.encode(content))


def _new_key(database: "Database", text: str) -> "MasterKey":
    """Return a new master key. Raises Failure if production mode would refuse it."""
    from cardwright.kit.secret_rules import key_fault
    from cardwright.kit.vault import MasterKey
    from cardwright.settings import Mode
    from cardwright.wiring import find_mode

    if find_mode(database) == Mode.PRODUCTION and (fault := key_fault(text)) is not None:
        raise Failure(f"{NEW}: {fault}", Hint(f"export {NEW}=$(openssl rand -hex 32)", "keep the new key"), 2)
    return MasterKey.from_hex(text)


def _wrap(database: "Database", old: "MasterKey", new: "MasterKey") -> int:
    """Wrap all data keys under a new master key. Return their number, 0 if they already were. Raises OtherMasterKey."""
    from cardwright.storage.data_keys import OtherMasterKey, lock_key_check, wrap_anew

    with database.write() as db:
        key_check = lock_key_check(db)
        if key_check == new.check():
            return 0
        if key_check != old.check():
            raise OtherMasterKey("another process has changed the master key")
        return wrap_anew(db, old, new)
