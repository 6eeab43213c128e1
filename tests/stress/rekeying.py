"""Rekeying: a master key and all data keys are replaced, with kills, beside a running server; every secret must still open.

`python -m tests.stress.rekeying` makes 1,000 cards on each database and kills `cardwright rekey --data` ten times.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from cardwright.kit.vault import SEALING_PURPOSES, MasterKey, Vault
from cardwright.outbox.endpoint import DEFAULT_ALGORITHM
from cardwright.outbox.signature import SIGNATURE_HEADER, basic_auth, verify
from cardwright.storage.data_keys import find_key_check, find_key_states, load_data_keys
from cardwright.storage.envelopes import ENVELOPES, pin_context
from cardwright.storage.tables import cards, data_keys
from tests.stress import api_fixtures, check
from tests.stress.api_fixtures import made
from tests.support.failpoints import Failpoints
from tests.support.postgres import TestPostgres
from tests.support.receiver import Receiver, a_receiver
from tests.support.server import Client, RunningServer
from tests.support.waiting import until_all_are_delivered

POINTS = ("rekey.prepared", "rekey.settled", "reseal.step", "reseal.stored", "reseal.step", "reseal.stored", "reseal.complete")
"""The failpoints at which a run is killed, in the order of the kills, which repeats from ``reseal.step`` on."""

PASSES_MAX = 2
"""A step is killed at its first or second pass. The second one leaves some rows under the new key, and others not."""

COMMAND_S = 600
"""A safety limit only, in seconds."""

HOOK = {
    "token": "hook",
    "name": "hook",
    "events": ["transaction.*"],
    "config": {"url": "", "basic_auth_username": "stress", "basic_auth_password": "Stress-of-20-character1",
               "secret": "Secret-of-20-characters1"},
}  # fmt: skip

INBOX = "/sandbox/inbox/default/rekeying"
INBOX_HEADER = {"x-secret": "Header-of-20-characters1"}


@dataclass
class Secrets:
    """The secrets of a database as they were made, and the checks that each of them still opens through the API."""

    address: str
    receiver: Receiver
    pans: dict[str, tuple[str, str]] = field(default_factory=dict)
    purchases: int = 0
    program: Any = None

    def make(self, server: RunningServer, count: int) -> None:
        """Create ``count`` cards of ``count`` users with a number each, a webhook, a notification with an address, a program."""
        with server.client() as client:
            for card in api_fixtures.build(client, count):
                shown = made(client.get(f"/cards/{card.token}/showpan?show_cvv_number=true"))
                self.pans[card.token] = (shown["pan"], shown["cvv_number"])
                made(client.put(f"/users/{card.user}", {"identifications": [{"type": "SSN", "value": ssn_of(card.user)}]}))
            config = {**HOOK["config"], "url": self.receiver.url}  # type: ignore[dict-item]
            made(client.post("/webhooks", {**HOOK, "config": config}))
            self.program = made(client.post("/sandbox/programs", {"token": "other"}))
            inline = {"endpoint": self.receiver.url, "username": "inline", "password": "Inline-of-20-characters1"}
            self.pay(client, next(iter(self.pans)), webhook=inline)
            assert client.post(INBOX, {}, headers=INBOX_HEADER).status == 200
            until_all_are_delivered(client)

    def set_pins(self, vault: Vault) -> None:
        """Set the PIN of every card in the database, because no route sets one."""
        with check.database_at(self.address) as database, database.write() as db:
            for row in db.execute(select(cards.c.id, cards.c.token)).all():
                sealed = vault.seal(pin_of(row.token), pin_context(row.id))
                db.execute(cards.update().where(cards.c.id == row.id).values(pin_sealed=sealed))

    def check(self, server: RunningServer, tokens: Sequence[str] | None = None) -> None:
        """Check the cards with these tokens, or all, and every other secret. Raises AssertionError."""
        with server.client() as client:
            for token in self.pans if tokens is None else tokens:
                self._check_card(client, token)
            self._check_webhook(client)
            deliveries = made(client.get("/sandbox/deliveries?count=100"))["data"]
            assert any(delivery.get("url") == self.receiver.url for delivery in deliveries), deliveries
            message = made(client.get(f"/sandbox/inbox/{INBOX.rpartition('/')[2]}"))["data"][0]
            assert INBOX_HEADER.items() <= message["headers"].items(), message
        other = Client(server.root_url, self.program["application_token"], self.program["access_token"])
        with other:
            made(other.get("/cardproducts"))

    def _check_card(self, client: Client, token: str) -> None:
        pan, cvv = self.pans[token]
        shown = made(client.get(f"/cards/{token}/showpan?show_cvv_number=true"))
        assert (shown["pan"], shown["cvv_number"]) == (pan, cvv), token
        assert made(client.post("/cards/getbypan", {"pan": pan}))["card_token"] == token
        user = shown["user_token"]
        assert made(client.get(f"/users/{user}/ssn?full_ssn=true"))["ssn"] == ssn_of(user)
        self.pay(client, token, pin=pin_of(token), card_options={"cvv": cvv})

    def _check_webhook(self, client: Client) -> None:
        """Post to the webhook, and check the credentials and the signature of the post."""
        before = len(self.receiver.headers)
        reply = client.post("/webhooks/hook/ping")
        assert reply.status == 200, reply.text
        config: Any = HOOK["config"]
        authorization = basic_auth(config["basic_auth_username"], config["basic_auth_password"])
        posts = zip(self.receiver.headers[before:], self.receiver.bodies[before:], strict=True)
        signatures = [(headers[SIGNATURE_HEADER], body) for headers, body in posts if headers["Authorization"] == authorization]
        assert signatures, "the webhook was posted without its credentials"
        assert all(verify(config["secret"], body, signature, DEFAULT_ALGORITHM) for signature, body in signatures)

    def pay(self, client: Client, token: str, **fields: Any) -> None:
        """Make an approved purchase."""
        self.purchases += 1
        body = {"card_token": token, "amount": 1, "mid": "rekeying", **fields}
        transaction = made(client.post("/simulate/authorization", body))["transaction"]
        assert transaction["response"]["code"] == "0000", transaction["response"]


def ssn_of(user: str) -> str:
    """Return nine digits that belong to a user."""
    return f"{100_000_000 + int(user.rpartition('-')[2]):09d}"


def pin_of(card: str) -> str:
    """Return four digits that belong to a card."""
    return f"{1_000 + int(card.rpartition('-')[2]):04d}"


# --- The database -------------------------------------------------------------------------


def vault_at(address: str, master_key: str) -> Vault:
    """Return the vault with the data keys of a database."""
    with check.database_at(address) as database, database.read() as db:
        keys = load_data_keys(db, MasterKey.from_hex(master_key))
    return Vault(lambda: keys)


def master_key_in(folder: Path) -> str:
    """Return the master key in a data directory."""
    return str(json.loads((folder / "secrets.json").read_text())["master_key"])


def key_ids_of(address: str) -> dict[str, Counter[int]]:
    """Return the number of envelopes by column and key id."""
    with check.database_at(address) as database, database.read() as db:
        return {
            column.name: Counter(bytes(value)[0] for value in db.scalars(select(column.column)) if value is not None)
            for column in ENVELOPES
        }


def remove_old_keys(address: str) -> None:
    """Remove all sealing keys but the newest, so that an envelope under another one does not open any more."""
    with check.database_at(address) as database, database.write() as db:
        newest = select(func.max(data_keys.c.key_id)).scalar_subquery()
        is_old = data_keys.c.purpose.in_(SEALING_PURPOSES) & (data_keys.c.key_id < newest)
        assert db.execute(data_keys.delete().where(is_old)).rowcount > 0


def states_of(address: str) -> dict[int, Any]:
    """Return the states of the sealing keys."""
    with check.database_at(address) as database, database.read() as db:
        return find_key_states(db)


def key_check_of(address: str) -> str | None:
    """Return the key check of a database."""
    with check.database_at(address) as database, database.read() as db:
        return find_key_check(db)


# --- The command --------------------------------------------------------------------------


def start_rekey(address: str, folder: Path, *options: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start `cardwright rekey` on a database and a data directory."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CARDWRIGHT_")}
    command = [sys.executable, "-m", "cardwright", "rekey", "--db", address, "--data-dir", str(folder), "--json", *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env={**clean, **(env or {})}
    )


def rekey(address: str, folder: Path, *options: str, env: Mapping[str, str] | None = None) -> Any:
    """Run `cardwright rekey` and return its JSON. Raises AssertionError if it fails."""
    with start_rekey(address, folder, *options, env=env) as process:
        out, errors = process.communicate(timeout=COMMAND_S)
    assert process.returncode == 0, errors
    return json.loads(out)


def killed_rekey(address: str, folder: Path, point: str, passes: int, *options: str) -> bool:
    """Run `cardwright rekey` with a kill at a failpoint. Return False if the run ended without reaching it."""
    with Failpoints() as failpoints:
        failpoints.arm(point, f"kill {passes}")
        with start_rekey(address, folder, *options, env=failpoints.environment) as process:
            _, errors = process.communicate(timeout=COMMAND_S)
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode != 0


# --- The run ------------------------------------------------------------------------------


@dataclass(slots=True)
class Figures:
    """The counts of a run: kills by failpoint, runs that ended before their failpoint, mixed states, envelopes sealed anew."""

    kills: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    mixed: int = 0
    resealed: int = 0
    checked: int = 0


def run(address: str, folder: Path, *, count: int, kills: int, seed: int, sample: int, say: Callable[[str], None]) -> Figures:
    """Replace the master key and the data keys of a database with ``count`` cards, with ``kills`` kills of the command.

    After each kill the running server must open ``sample`` cards, and at the end all of them, also after a restart and without
    the old data keys. Raises AssertionError for the first secret that is lost.
    """
    dice, figures = random.Random(seed), Figures()
    with a_receiver() as receiver, RunningServer(db=address, data_dir=folder) as server:
        secrets = Secrets(address, receiver)
        secrets.make(server, count)
        secrets.set_pins(vault_at(address, master_key_in(folder)))
        secrets.check(server)
        check_before = key_check_of(address)
        assert rekey(address, folder)["wrapped"] > 0
        assert key_check_of(address) != check_before
        secrets.check(server, dice.sample(sorted(secrets.pans), sample))
        # A run that only completes keys reaches no step, so some kills miss.
        for point in islice(_points(), 2 * kills):
            if figures.kills.total() == kills:
                break
            passes = dice.randint(1, PASSES_MAX) if point.startswith("reseal.st") else 1
            if killed_rekey(address, folder, point, passes, "--data"):
                figures.kills[point] += 1
            else:
                figures.missed += 1
            ids = sum(key_ids_of(address).values(), Counter())
            figures.mixed += len(ids) > 1
            say(f"{figures.kills.total()}/{kills} kills, {point}: envelopes by key id {dict(sorted(ids.items()))}")
            secrets.check(server, dice.sample(sorted(secrets.pans), sample))
            figures.checked += sample
        done = rekey(address, folder, "--data")
        figures.resealed = sum(done["resealed"].values())
        secrets.check(server)
        assert not done["damaged"]
        assert {name: set(ids) for name, ids in key_ids_of(address).items()} == {
            name: {done["key_id"]} for name in done["resealed"]
        }
        server.stop()
        remove_old_keys(address)
        server.start()
        secrets.check(server)
        figures.checked += 3 * count
        output = server.output()
        assert "Traceback" not in output, output[-6000:]
    check.verify_from_outside(address, folder)
    return figures


def _points() -> Iterator[str]:
    yield from POINTS[:2]
    yield from cycle(POINTS[2:])


@contextmanager
def _databases(names: Sequence[str]) -> Iterator[list[tuple[str, str]]]:
    """Yield name and address of an empty database of each kind."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cardwright-stress-"))
        addresses = list[tuple[str, str]]()
        for name in names:
            is_sqlite = name == "sqlite"
            address = str(Path(folder, "cardwright.db")) if is_sqlite else _postgres(stack)
            addresses.append((name, address))
        yield addresses


def _postgres(stack: ExitStack) -> str:
    return stack.enter_context(TestPostgres(durable=False)).new_database()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run on each database. Return 1 if too few kills came, so that the run proves nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.rekeying", description=__doc__)
    parser.add_argument("--seed", type=int, default=42, help="seed of kills and samples (default: 42)")
    parser.add_argument("--cards", type=int, default=1_000, help="number of cards (default: 1000)")
    parser.add_argument("--kills", type=int, default=10, help="number of kills (default: 10)")
    parser.add_argument("--db", nargs="*", choices=("sqlite", "postgres"), default=("sqlite", "postgres"))
    options = parser.parse_args(arguments)
    is_proven = True
    with _databases(options.db) as databases:
        for name, address in databases:
            with tempfile.TemporaryDirectory(prefix="cardwright-stress-") as folder:
                figures = run(
                    address, Path(folder), count=options.cards, kills=options.kills, seed=options.seed,
                    sample=min(20, options.cards), say=lambda text: print(text, file=sys.stderr, flush=True),
                )  # fmt: skip
            print(f"{name}, {options.cards} cards: {figures}")
            is_proven &= figures.kills.total() == options.kills and figures.mixed > 0
    return 0 if is_proven else 1


if __name__ == "__main__":
    sys.exit(main())
