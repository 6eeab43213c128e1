"""`cardwright credentials`, given credentials and `status`: the pairs that open a program, and those that no longer do."""

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cardwright.edges.cli.database_commands import opened
from cardwright.edges.cli.output import Failure
from cardwright.instance_secrets import Secrets, find_kept_pair
from cardwright.resources.sandbox.credentials import CREDENTIALS_MAX
from cardwright.settings import Settings
from cardwright.storage.credentials import find_access
from cardwright.storage.database import Database
from cardwright.storage.programs import ProgramSettings, insert_program
from cardwright.wiring import first_clock, vault_of
from tests.integration.edges.cli.conftest import Done
from tests.integration.edges.cli.test_serve import running

FILE = Path(".cardwright/secrets.json")

Pair = tuple[str, str]


class Books:
    """A database that a server has opened, and the commands on it."""

    def __init__(self, address: str, cardwright: Callable[..., Done]) -> None:
        self.settings = Settings(db=address, data_dir=FILE.parent)
        self._cardwright = cardwright

    def start(self, **given: Any) -> Secrets:
        """Do what a start of a server does, and return its secrets."""
        with opened(self.settings.model_copy(update=Settings(**given).model_dump(exclude_unset=True))) as (_, keys):
            return keys

    def call(self, *words: object) -> Done:
        """Call `cardwright credentials`."""
        return self._cardwright("credentials", *words, "--db", self.settings.db, "--data-dir", FILE.parent)

    def read(self, *words: object) -> Any:
        """Call `cardwright credentials` with --json and return what it prints."""
        done = self.call(*words, "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    def tokens(self) -> dict[str, bool]:
        """Return the tokens of the valid credentials of the default program, with True for the given one."""
        return {row["token"]: row["given"] for row in self.read("list")["credentials"]}

    def opens(self, application_token: str, access_token: str) -> bool:
        """Return True if a pair opens a program."""
        with closing(Database(str(self.settings.db))) as database, database.read() as db:
            digest = vault_of(self.settings, database).credential_digest(application_token, access_token)
            return find_access(db, digest) is not None


@pytest.fixture
def books(migrated_url: str, cardwright: Callable[..., Done]) -> Books:
    """A database after the first start of a server."""
    FILE.parent.mkdir()
    books = Books(migrated_url, cardwright)
    books.start()
    return books


def pair_of(made: Any) -> Pair:
    """Return the tokens that a command printed, or those of a start."""
    if isinstance(made, Secrets):
        return made.application_token, made.access_token
    return made["application_token"], made["access_token"]


# --- The commands -------------------------------------------------------------------------


def test_two_pairs_are_valid_until_one_is_revoked(books: Books) -> None:
    """A rotation gives a second valid pair, whose tokens are printed once. After the revocation only the second one is valid."""
    old = find_kept_pair(books.settings)
    assert old is not None
    (token,) = books.tokens()
    new = books.read("rotate")
    assert books.tokens() == {token: False, new["token"]: True}
    assert books.opens(*old)
    assert books.opens(*pair_of(new))
    assert new["access_token"] not in books.call("list").out + json.dumps(books.read("list"))
    revoked = books.read("revoke", token)
    assert (revoked["token"], "revoked_time" in revoked) == (token, True)
    assert books.tokens() == {new["token"]: True}
    assert not books.opens(*old)
    assert books.opens(*pair_of(new))


def test_rotation_replaces_the_pair_in_the_file(books: Books) -> None:
    """A rotation writes the new pair to secrets.json and keeps the key, so status and the next start use it."""
    key = json.loads(FILE.read_text())["master_key"]
    new = books.read("rotate")
    assert json.loads(FILE.read_text()) == {
        "master_key": key, "application_token": new["application_token"], "access_token": new["access_token"],
    }  # fmt: skip
    assert new["file"] == str(FILE)
    assert pair_of(books.start()) == pair_of(new)
    assert len(books.tokens()) == 2, "a start keeps the old pair, which now counts as added"


def test_further_pair_leaves_the_file_alone(books: Books) -> None:
    """A further pair is not the given one, and a start does not remove it."""
    before = FILE.read_bytes()
    new = books.read("add")
    assert FILE.read_bytes() == before
    assert "file" not in new
    books.start()
    assert books.opens(*pair_of(new))


def test_pair_of_another_program(books: Books) -> None:
    """The pairs of another program are listed, added and revoked apart, and the file stays unchanged."""
    with opened(books.settings) as (database, _), database.write() as db:
        insert_program(
            db, token="other", name="Other", short_code="othr", settings=ProgramSettings(),
            clock=first_clock(books.settings), now=0,
        )  # fmt: skip
    before = FILE.read_bytes()
    assert books.call("rotate", "--program", "other").err.splitlines()[1] == (
        f"next:  cardwright credentials add --program other --db {books.settings.db} --data-dir .cardwright"
    )
    first, second = books.read("add", "--program", "other"), books.read("add", "--program", "other")
    assert {row["token"] for row in books.read("list", "--program", "other")["credentials"]} == {first["token"], second["token"]}
    assert "404" not in books.call("revoke", first["token"]).out, "the default program does not have it"
    assert books.opens(*pair_of(first))
    books.read("revoke", first["token"], "--program", "other")
    assert not books.opens(*pair_of(first))
    assert FILE.read_bytes() == before
    assert "has no such program" in books.call("list", "--program", "nowhere").err


def test_last_pair_is_revoked_by_force_only(books: Books) -> None:
    """The last valid pair is not revoked without --force. With it, `add` makes a new pair and repairs secrets.json."""
    (token,) = books.tokens()
    refused = books.call("revoke", token)
    assert (refused.code, list(books.tokens())) == (1, [token])
    assert "is the last valid credential of the program default" in refused.err
    assert "--force" in refused.err
    assert "next:  cardwright credentials add " in refused.err
    forced = books.call("revoke", token, "--force")
    assert forced.code == 0
    assert "before the next start, set CARDWRIGHT_APPLICATION_TOKEN" in forced.err
    assert books.tokens() == {}
    with pytest.raises(Failure, match=r"the credentials in \.cardwright/secrets\.json were revoked"):
        books.start()
    new = books.read("add")
    assert pair_of(books.start()) == pair_of(new)
    assert books.tokens() == {new["token"]: True}


def test_unknown_pair_and_too_many(books: Books) -> None:
    """An unknown token, a revoked one and an eleventh pair are refused."""
    made = [books.read("add") for _ in range(CREDENTIALS_MAX - 1)]
    full = books.call("add")
    assert (full.code, "has 10 valid credentials, the maximum" in full.err) == (1, True)
    assert books.call("rotate").code == 2, "with several pairs, rotate needs a token"
    books.read("revoke", made[0]["token"])
    for word in ("0" * 16, made[0]["token"]):
        for verb in ("revoke", "rotate"):
            done = books.call(verb, word)
            assert (done.code, done.err.splitlines()[0]) == (1, "error: Credential not found")


def test_other_key_creates_no_pair(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair under another master key would open nothing, so the command is refused. The list needs no key."""
    monkeypatch.setenv("CARDWRIGHT_MASTER_KEY", "cd" * 32)
    assert "filled under another master key" in books.call("add").err
    assert books.call("list").code == 0
    monkeypatch.delenv("CARDWRIGHT_MASTER_KEY")
    FILE.unlink()
    assert "CARDWRIGHT_MASTER_KEY is not set" in books.call("add").err


# --- The given pair -----------------------------------------------------------------------


def test_given_pair_replaces_the_former_one(books: Books, capsys: pytest.CaptureFixture[str]) -> None:
    """A start with another pair makes the former given pair invalid, says so, and keeps added pairs."""
    file_pair, added = find_kept_pair(books.settings), pair_of(books.read("add"))
    assert file_pair is not None
    first, second = ("first", "token of the first"), ("first", "token of the second")
    for pair, former in ((first, file_pair), (second, first), (first, second), (first, None)):
        capsys.readouterr()
        books.start(application_token=pair[0], access_token=pair[1])
        assert ("the former ones" in capsys.readouterr().err) is (former is not None)
        assert books.opens(*pair)
        assert former is None or not books.opens(*former)
        assert books.opens(*added)


def test_pair_of_the_environment_stays_the_given_one(books: Books) -> None:
    """A pair that repairs secrets.json does not become the given one, so a replaced variable still revokes its former value."""
    first = pair_of(books.start(application_token="app", access_token="first"))
    (token,) = books.tokens()
    new = books.read("add")
    assert books.tokens() == {token: True, new["token"]: False}
    assert find_kept_pair(books.settings) == pair_of(new)
    books.start(application_token="app", access_token="second")
    assert not books.opens(*first)
    assert books.opens(*pair_of(new))


@pytest.mark.parametrize("is_environment", [True, False])
def test_revoked_pair_starts_nothing(books: Books, is_environment: bool) -> None:
    """A start with a revoked pair is refused and names its origin. The pair stays invalid."""
    given = {"application_token": "app", "access_token": "access"} if is_environment else {}
    pair = pair_of(books.start(**given))
    books.read("add")
    (token,) = [token for token, is_given in books.tokens().items() if is_given]
    books.read("revoke", token)
    origin = "in CARDWRIGHT_APPLICATION_TOKEN and CARDWRIGHT_ACCESS_TOKEN" if is_environment else str(FILE)
    with pytest.raises(Failure, match="were revoked") as failure:
        books.start(**given)
    assert origin in str(failure.value)
    assert not books.opens(*pair)


def test_pair_of_another_program_starts_nothing(books: Books) -> None:
    """A pair that opens another program does not become that of the default program."""
    test_pair_of_another_program(books)
    pair = pair_of(books.read("add", "--program", "other"))
    with pytest.raises(Failure, match="are those of another program than default"):
        books.start(application_token=pair[0], access_token=pair[1])


# --- Shells with the variables of a client --------------------------------------------------


def test_second_server_does_not_take_the_pair_of_the_first(
    cardwright: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second server in a shell with the variables of the first one has a pair of its own, and status shows that pair."""
    with running("--port", 0) as first:
        for line in cardwright("status", "-o", "env").out.splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            monkeypatch.setenv(name, value)
        with running("--port", 0, "--data-dir", "second") as second:
            assert second.announcement["access_token"] != first.announcement["access_token"]
            done = cardwright("status", "--data-dir", "second", "--json")
            shown = json.loads(done.out)
            assert "open nothing here and are not shown" in done.err
            assert shown["access_token"] == second.announcement["access_token"]
            assert json.loads(Path("second/secrets.json").read_text())["access_token"] == shown["access_token"]
        assert json.loads(cardwright("status", "--json").out)["access_token"] == first.announcement["access_token"]
    with running("--port", 0) as again:
        assert again.announcement["access_token"] == first.announcement["access_token"], "the same folder keeps its pair"


def test_pair_of_the_environment_stays_in_a_shell_of_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that always gets its pair from the environment keeps it in a shell that has loaded its variables."""
    for name, value in {"APPLICATION_TOKEN": "app", "ACCESS_TOKEN": "access"}.items():
        monkeypatch.setenv(f"CARDWRIGHT_{name}", value)
    for _ in range(2):
        with opened(Settings()) as (_, keys):
            assert pair_of(keys) == ("app", "access")
        monkeypatch.setenv("CARDWRIGHT_BASE_URL", "http://127.0.0.1:8181/v3")


def test_status_shows_no_pair_that_opens_nothing(cardwright: Callable[..., Done]) -> None:
    """If the only known pair was revoked, status prints no tokens. The next command makes a pair that it shows."""
    with running("--port", 0):
        kept = json.loads(FILE.read_text())
        token = json.loads(cardwright("credentials", "list", "--json").out)["credentials"][0]["token"]
        assert cardwright("credentials", "revoke", token, "--force").code == 0
        deadline_free = (cardwright("status") for _ in range(1000))
        done = next(done for done in deadline_free if done.code != 0)
        assert "accepts no known credentials" in done.err
        assert kept["access_token"] not in done.out + done.err
        assert done.err.splitlines()[-1] == "next:  cardwright credentials add"
        made = json.loads(cardwright("credentials", "add", "--json").out)
        assert json.loads(cardwright("status", "--json").out)["access_token"] == made["access_token"]
        assert os.listdir(FILE.parent).count(FILE.name) == 1
