"""Instance secrets: the master key and the credentials of the default program, from the settings or the data directory."""

import hmac
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from cardwright.kit.files import create_file, read_file, replace_file
from cardwright.kit.ids import Ids
from cardwright.kit.vault import MasterKey
from cardwright.settings import Settings
from cardwright.storage.data_keys import OtherMasterKey

SECRETS_FILE = "secrets.json"
"""The file in the data directory with the secrets that the first start generated."""

OTHER_KEY_ADVICE = f"set CARDWRIGHT_MASTER_KEY to the key of this database, or --data-dir to the folder with its {SECRETS_FILE}"


class Misconfigured(Exception):
    """Settings that cannot work together, or a damaged file. The text names the setting or file, ``advice`` the next step."""

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(text)
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Secrets:
    """The master key, and the credentials of the default program."""

    master_key: str
    application_token: str
    access_token: str


CREDENTIAL_NAMES = frozenset({"application_token", "access_token"})
SECRET_NAMES = frozenset(Secrets.__slots__)


def data_dir_of(settings: Settings) -> Path:
    """Return the directory of keys and embedded database.

    It is the configured one, else ``.cardwright`` beside an explicit SQLite file, else ``.cardwright``.
    """
    if settings.data_dir is not None:
        return settings.data_dir
    if settings.db is not None and "://" not in settings.db:
        return Path(settings.db).expanduser().resolve().parent / ".cardwright"
    return Path(".cardwright")


def address_of(settings: Settings) -> str:
    """Return the address of the database: the configured one, or a file in the data directory."""
    return settings.db if settings.db is not None else str(data_dir_of(settings) / "cardwright.db")


def load_secrets(settings: Settings) -> Secrets:
    """Return keys and credentials from the settings, else from the data directory. Raises Misconfigured and OSError."""
    given = given_secrets(settings)
    if given.keys() == SECRET_NAMES:
        return Secrets(**given)
    path = data_dir_of(settings) / SECRETS_FILE
    known = _kept_secrets(path) | given
    if missing := sorted(SECRET_NAMES - known.keys()):
        names = ", ".join(f"CARDWRIGHT_{name.upper()}" for name in missing)
        raise Misconfigured(f"{path} has no {', '.join(missing)}", f"restore the file from a backup, or set {names}")
    return Secrets(**known)


def ensure_secrets(settings: Settings, key_check: str | None) -> Secrets:
    """Return keys and credentials like ``load_secrets``. The first start in sandbox mode generates missing ones.

    ``key_check`` is the stored key check of the database. If it belongs to another master key, nothing is written. Raises
    Misconfigured and OSError.
    """
    given = given_secrets(settings)
    path = data_dir_of(settings) / SECRETS_FILE
    if given.keys() == SECRET_NAMES or os.path.lexists(path):
        return load_secrets(settings)
    if not settings.is_sandbox:
        missing = ", ".join(f"CARDWRIGHT_{name.upper()}" for name in sorted(SECRET_NAMES - given.keys()))
        raise Misconfigured(f"production mode needs {missing}", "set these variables")
    made = _made_secrets(settings)
    candidates = [(made | given)["master_key"], *_new_master_key(settings)]
    if key_check is not None and _fitting(candidates, key_check) is None:
        raise Misconfigured(f"the database was filled under another master key, and there is no {path}", OTHER_KEY_ADVICE)
    if keep_secrets(settings, made):
        return Secrets(**made | given)
    # Another process created the file first.
    return load_secrets(settings)


def find_secrets(settings: Settings) -> dict[str, str]:
    """Return the existing credentials without generating any, for commands that only use them.

    Raises FileNotFoundError if no server has generated them, Misconfigured if the file is damaged, and OSError.
    """
    given = given_secrets(settings)
    if given.keys() >= CREDENTIAL_NAMES:
        return given
    path = data_dir_of(settings) / SECRETS_FILE
    known = _kept_secrets(path) | given
    if missing := sorted(CREDENTIAL_NAMES - known.keys()):
        names = ", ".join(f"CARDWRIGHT_{name.upper()}" for name in missing)
        raise Misconfigured(f"{path} has no {', '.join(missing)}", f"restore the file from a backup, or set {names}")
    return known


def available_secrets(settings: Settings) -> dict[str, str]:
    """Return those keys and credentials that the settings or the data directory have. Raises Misconfigured and OSError."""
    path = data_dir_of(settings) / SECRETS_FILE
    return (_kept_secrets(path) if os.path.lexists(path) else {}) | given_secrets(settings)


def keep_secrets(settings: Settings, restored: dict[str, str]) -> bool:
    """Write the secrets that the settings do not have into a new secrets file. Return False if there is one or none is needed.

    Raises OSError.
    """
    given = given_secrets(settings)
    kept = {name: value for name, value in restored.items() if name not in given}
    path = data_dir_of(settings) / SECRETS_FILE
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return bool(kept) and create_file(path, msgspec.json.encode(kept))


def given_secrets(settings: Settings) -> dict[str, str]:
    """Return the keys and credentials that the settings have."""
    return {name: value.get_secret_value() for name in SECRET_NAMES if (value := getattr(settings, name)) is not None}


def _made_secrets(settings: Settings) -> dict[str, str]:
    source = Ids(settings.seed) if settings.seed is not None else None
    return {
        "master_key": f"{source.bits(256):064x}" if source else secrets.token_hex(32),
        "application_token": source.token() if source else secrets.token_urlsafe(24),
        "access_token": source.token() if source else secrets.token_urlsafe(24),
    }


HexKey = Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{64}$")]


class SecretsFile(msgspec.Struct, omit_defaults=True):
    """The content of ``secrets.json``, without secrets that the environment set at the first start.

    ``new_master_key`` is set while ``cardwright rekey`` replaces the master key: the database fits one of both.
    """

    master_key: HexKey | None = None
    new_master_key: HexKey | None = None
    application_token: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    access_token: Annotated[str, msgspec.Meta(min_length=1)] | None = None


def read_secrets_file(path: Path) -> SecretsFile:
    """Return the content of ``secrets.json``. Raises Misconfigured if it is damaged, and OSError if it cannot be read."""
    try:
        return msgspec.json.decode(read_file(path), type=SecretsFile)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Misconfigured(
            f"{path} is damaged: {error}; without its master key the database cannot be decrypted",
            f"restore {path} from a backup; remove it only if the database is new",
        ) from None


def _kept_secrets(path: Path) -> dict[str, str]:
    """Return the secrets in the file. Raises Misconfigured if it is damaged, and OSError if it cannot be read."""
    kept = read_secrets_file(path)
    return {name: value for name in SECRET_NAMES if (value := getattr(kept, name)) is not None}


def _new_master_key(settings: Settings) -> list[str]:
    return [] if settings.new_master_key is None else [settings.new_master_key.get_secret_value()]


def find_kept_pair(settings: Settings) -> tuple[str, str] | None:
    """Return the application and access token in the data directory, None without them. Raises Misconfigured and OSError."""
    path = data_dir_of(settings) / SECRETS_FILE
    kept = _kept_secrets(path) if os.path.lexists(path) else {}
    return (kept["application_token"], kept["access_token"]) if kept.keys() >= CREDENTIAL_NAMES else None


def keep_pair(settings: Settings, application_token: str, access_token: str) -> Path:
    """Replace the credentials in the data directory. Return the path of the file. Raises Misconfigured and OSError."""
    path = data_dir_of(settings) / SECRETS_FILE
    kept = msgspec.structs.replace(read_secrets_file(path), application_token=application_token, access_token=access_token)
    replace_file(path, msgspec.json.encode(kept))
    return path


def find_master_key(settings: Settings, key_check: str) -> MasterKey:
    """Return the master key that wraps the data keys of the database with this key check.

    The candidates are the configured master key, else that of the data directory, and the new master keys of an unfinished
    ``cardwright rekey``. Raises OtherMasterKey, Misconfigured, OSError.
    """
    if settings.master_key is not None:
        candidates = [settings.master_key.get_secret_value()]
    else:
        kept = read_secrets_file(data_dir_of(settings) / SECRETS_FILE)
        candidates = [text for text in (kept.master_key, kept.new_master_key) if text is not None]
    master_key = _fitting(candidates + _new_master_key(settings), key_check)
    if master_key is None:
        raise OtherMasterKey("the database was filled under another master key")
    return master_key


def _fitting(candidates: Sequence[str], key_check: str) -> MasterKey | None:
    keys = map(_master_key, candidates)
    return next((key for key in keys if hmac.compare_digest(key.check(), key_check)), None)


def key_check_of(master_key: str) -> str:
    """Return the key check of a master key. Raises Misconfigured if it is not 64 hexadecimal digits."""
    return _master_key(master_key).check()


def _master_key(text: str) -> MasterKey:
    try:
        return MasterKey.from_hex(text)
    except ValueError as error:
        raise Misconfigured(f"CARDWRIGHT_MASTER_KEY: {error}", OTHER_KEY_ADVICE) from None
