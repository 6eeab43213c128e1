"""Secrets at rest: canaries of every kind enter through the API, and no table, log line, metric or error has one in clear."""

import base64
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from pydantic import SecretStr
from sqlalchemy import Connection, LargeBinary, inspect, select, text
from sqlalchemy.exc import IntegrityError

from cardwright.kit.vault import MasterKey, Vault
from cardwright.ledger.invariants import findings
from cardwright.outbox.endpoint import Endpoint, open_webhook
from cardwright.settings import Settings
from cardwright.storage import migrate
from cardwright.storage.data_keys import KEY_CHECK
from cardwright.storage.database import Database
from cardwright.storage.programs import ROWS_IN_CLEAR, find_value
from cardwright.storage.tables import meta, metadata, webhooks
from cardwright.wiring import seal_rows_in_clear, vault_of
from tests.support.databases import chosen_databases, migrated_database
from tests.support.receiver import Receiver, a_receiver
from tests.support.server import Client, Reply, RunningServer
from tests.support.waiting import until

MASTER_KEY = "6d1f0c7be2a94358b0c6d27f91ae03485c7d60e1f29b84a3d5760c18ef42b97a"
MASTER = MasterKey.from_hex(MASTER_KEY)
MARK = "K4nary"
"""Part of every canary that is a text, so that an escaped or shortened one is found too."""

USERNAME = "harbor_user"
CANARIES_MIN = 1_000
CODE = re.compile(rb"""(?i)(?:cvv|cvc|security_code)\w*["'\\]*\s*[:=]\s*["'\\]*[0-9]{3}(?![0-9])""")


@dataclass
class Canaries:
    """The secrets that entered, by kind, and the texts that must not occur anywhere."""

    texts: dict[str, list[str]] = field(default_factory=dict)

    def text(self, kind: str) -> str:
        """Return a new secret with characters that JSON, Base64 and URLs write in another form."""
        made = f'{MARK}"\\/{kind}+{len(self.texts.get(kind, [])):04d}'
        return self.add(kind, f"{made:#<24}")

    def add(self, kind: str, secret: str) -> str:
        """Note a secret that the server drew, or that has a fixed form."""
        self.texts.setdefault(kind, []).append(secret)
        return secret

    @property
    def count(self) -> int:
        return sum(map(len, self.texts.values()))

    def forbidden(self) -> list[bytes]:
        """Return the texts that must not occur. Security codes are searched for by ``CODE``, because they have three digits."""
        drawn = [secret for kind, secrets in self.texts.items() if kind != "cvv" for secret in secrets if MARK not in secret]
        pairs = [f"{USERNAME}:{secret}" for kind in ("password", "inline") for secret in self.texts[kind]]
        return [MARK.encode(), *(secret.encode() for secret in drawn), *(base64.b64encode(pair.encode()) for pair in pairs)]


@dataclass
class World:
    """A server with its database, its canaries and the errors that it answered."""

    server: RunningServer
    client: Client
    receiver: Receiver
    is_sandbox: bool
    canaries: Canaries = field(default_factory=Canaries)
    errors: list[str] = field(default_factory=list)

    def made(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        reply = self.client.post(path, body)
        assert reply.status in (200, 201), reply.text
        return dict(reply.json)

    def refused(self, reply: Reply) -> None:
        assert 400 <= reply.status < 500, reply.text
        self.errors.append(reply.text)


@pytest.fixture(params=[(kind, mode) for kind in chosen_databases() for mode in ("sandbox", "production")], ids="-".join)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Yield a server that logs at level debug. Webhooks go to a receiver that echoes the headers of each request."""
    kind, mode = request.param
    with migrated_database(kind, request, tmp_path) as address, a_receiver(echo=True) as receiver:
        env = {
            "CARDWRIGHT_MASTER_KEY": MASTER_KEY, "CARDWRIGHT_LOG_LEVEL": "debug", "CARDWRIGHT_ALLOW_SIMULATE": "true",
            "CARDWRIGHT_OUTGOING_HOSTS": f"127.0.0.1:{receiver.port}",
        }  # fmt: skip
        with RunningServer(db=address, mode=mode, env=env) as server, server.client() as client:
            yield World(server, client, receiver, mode == "sandbox")


def webhook(world: World, number: int, **changes: Any) -> dict[str, Any]:
    """Return the body of a new webhook. Of all webhooks only the first two are active."""
    text = world.canaries.text
    config = {
        "url": world.receiver.url, "basic_auth_username": USERNAME, "basic_auth_password": text("password"),
        "secret": text("secret"), "custom_header": {f"X-{name}": text("header") for name in "ABC"},
    }  # fmt: skip
    return {"token": f"hook{number}", "name": "hook", "events": ["*"], "active": number < 1, "config": config, **changes}


def prepare(world: World) -> None:
    """Show the secrets of webhooks in answers, and create a card product."""
    assert world.client.put("/sandbox/program", {"mask_webhook_secrets": False}).status == 200
    world.made("/fundingsources/program", {"token": "source", "name": "bank"})
    funding = {"program_funding_source": {"enabled": True, "funding_source_token": "source", "refunds_destination": "GPA"}}
    config = {"jit_funding": funding, "card_life_cycle": {"activate_upon_issue": True}}
    world.made("/cardproducts", {"token": "product", "name": "card", "start_date": "2025-01-01", "config": config})
    if world.is_sandbox:
        inbox = f"{world.server.root_url}/sandbox/inbox/default/box"
        body = webhook(world, 0, token="inbox", name="inbox")
        world.made("/webhooks", body | {"config": body["config"] | {"url": inbox}})


def enter_canaries(world: World, number: int) -> None:
    """Send each kind of secret once, to every route that takes it."""
    client, canaries = world.client, world.canaries
    text = canaries.text
    body = webhook(world, number)
    shown = world.made("/webhooks", body)
    assert shown["config"]["basic_auth_password"] == body["config"]["basic_auth_password"]
    changed = client.put(f"/webhooks/customheaders/hook{number}", {"custom_header": {"X-A": text("header")}})
    assert changed.json["config"]["custom_header"]["X-A"] == canaries.texts["header"][-1]
    assert client.post(f"/webhooks/hook{number}/ping", {}).status == 200
    ssn = canaries.add("ssn", f"{913_000_000 + 37 * number}")
    identification = {"type": "DRIVERS_LICENSE", "value": text("license")}
    user = {"token": f"user{number}", "password": text("user"), "ssn": ssn, "identifications": [identification]}
    world.made("/users", user)
    assert client.get(f"/users/user{number}/ssn", query={"full_ssn": "true"}).json == {"ssn": ssn}
    card = world.made(
        "/cards?show_pan=true&show_cvv_number=true", {"user_token": f"user{number}", "card_product_token": "product"}
    )
    pan, cvv = canaries.add("pan", card["pan"]), canaries.add("cvv", card["cvv_number"])
    purchase = {
        "card_token": card["token"], "amount": 10, "mid": "m1", "pin": text("pin"), "card_options": {"cvv": cvv},
        "transaction_options": {"transaction_token": f"purchase{number}"},
        "webhook": {
            "endpoint": world.receiver.url, "username": USERNAME, "password": text("inline"), "secret": text("inline secret"),
        },
    }  # fmt: skip
    client.post("/simulate/authorization", purchase)
    world.refused(client.post("/simulate/authorization", purchase | {"amount": 11}))
    if world.is_sandbox:
        assert client.post("/sandbox/whatif/authorization", purchase | {"transaction_options": None}).status == 200
        program = world.made("/sandbox/programs", {})
        canaries.add("token", program["application_token"])
        canaries.add("token", program["access_token"])
    provoke_errors(world, number, pan)


def provoke_errors(world: World, number: int, pan: str) -> None:
    """Send requests with secrets that the server must refuse."""
    client, text = world.client, world.canaries.text
    hook = f"/webhooks/hook{number}"
    for changes in (
        {"basic_auth_password": text("password")[:15]}, {"secret": text("secret") + "é"}, {"secret": [text("secret")]},
        {"custom_header": {"X-A": text("header") + "\r\n"}}, {"custom_header": {text("header"): text("header")}},
        {"custom_header": text("header")}, {"basic_auth_username": f"{text('username')}:"},
    ):  # fmt: skip
        body = webhook(world, number)
        world.refused(client.put(hook, body | {"config": body["config"] | changes}))
    world.refused(client.post("/webhooks", webhook(world, number)))
    world.refused(client.post("/webhooks", json.dumps(webhook(world, number))[:-5].encode()))
    world.refused(client.post("/users", {"password": text("user"), "ssn": text("ssn text")}))
    world.refused(client.post("/cards/getbypan", {"pan": pan, "cvv_number": text("typed code")}))
    world.refused(client.get("/webhooks", headers={"Authorization": f"Bearer {text('bearer')}"}))
    pair = base64.b64encode(f"{USERNAME}:{text('password')}".encode()).decode()
    world.refused(client.get("/webhooks", headers={"Authorization": f"Basic {pair}"}))


def wait_for_deliveries(world: World) -> None:
    """Wait until no notification is due or under way."""

    def has_ended() -> bool:
        open_rows = [world.client.get("/sandbox/deliveries", query={"state": state}).json["data"] for state in ("DUE", "SENDING")]
        return open_rows == [[], []]

    until(has_ended)


def attempts_of(world: World) -> list[dict[str, Any]]:
    """Return the attempts of the latest 100 deliveries."""
    return [
        line for entry in world.client.get("/sandbox/deliveries", query={"count": 100}).json["data"] for line in entry["attempts"]
    ]


def dump(address: str) -> dict[str, bytes]:
    """Return all values of each table of a database, and the files of a SQLite database, as bytes."""
    with closing(Database(address)) as database:
        with database.read() as db:
            names = inspect(db).get_table_names()
            tables = {name: db.execute(text(f'SELECT * FROM "{name}"')).all() for name in names}
        files = [*Path(address).parent.glob("*.db*")] if database.is_sqlite else []
        return {name: b"\n".join(_bytes(value) for row in rows for value in row) for name, rows in tables.items()} | {
            file.name: file.read_bytes() for file in files
        }


def _bytes(value: Any) -> bytes:
    return bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()


def assert_clean(name: str, content: bytes, canaries: Canaries) -> None:
    """Assert that a content has no canary in clear."""
    for secret in canaries.forbidden():
        assert secret not in content, f"{name}: …{content[max(0, content.index(secret) - 80) :][:160]!r}…"
    assert CODE.search(content) is None, f"{name}: {CODE.search(content)}"


def test_no_canary_is_readable(world: World) -> None:
    """After a thousand secrets no table, file, log line, metric and error has any in clear. ``verify`` agrees."""
    prepare(world)
    number = 0
    while world.canaries.count < CANARIES_MIN:
        enter_canaries(world, number)
        number += 1
    wait_for_deliveries(world)
    assert any("X-Marqeta-Signature" in attempt["body"] for attempt in attempts_of(world)), "no answer with echoed headers"
    contents = dump(world.server.db)
    assert min(len(contents[name]) for name in ("webhooks", "outbox", "users", "cards")) > 1_000
    metrics = world.client.get("/metrics").text
    assert "cardwright_deliveries_total" in metrics
    world.server.stop()
    output = world.server.output()
    assert "[info" in output, "the level of the log is not debug"
    contents |= {"log": output.encode(), "metrics": metrics.encode(), "errors": "\n".join(world.errors).encode()}
    contents |= {f"stopped {name}": content for name, content in dump(world.server.db).items()}
    for name, content in contents.items():
        assert_clean(name, content, world.canaries)
    with closing(Database(world.server.db)) as database:
        vault = vault_of(Settings(master_key=SecretStr(MASTER_KEY)), database)
        broken = [finding for finding in findings(database, vault=vault) if finding.broken]
    assert broken == []


# --- Secrets planted in clear -------------------------------------------------------------


def verify_as_a_command(address: str) -> tuple[int, str]:
    """Run ``cardwright verify --secrets --json``, and return its exit code and output."""
    words = [sys.executable, "-m", "cardwright", "verify", "--db", address, "--secrets", "--json"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CARDWRIGHT_")}
    run = subprocess.run(
        words, capture_output=True, text=True, check=False, env=clean | {"CARDWRIGHT_MASTER_KEY": MASTER_KEY}, timeout=120
    )
    return run.returncode, run.stdout + run.stderr


PLACES = {
    "password": ("users.doc", "a webhook password of webhooks.sealed"),
    "secret": ("outbox.attempts", "a signing secret of webhooks.sealed"),
    "header": ("transactions.details", "a custom header of webhooks.sealed"),
    "pair": ("user_transitions.doc", "a webhook password in Base64 of webhooks.sealed"),
    "inline": ("card_products.doc", "a webhook password of outbox.target"),
    "inline secret": ("programs.settings", "a signing secret of outbox.target"),
    "cvv": ("cards.doc", "a security code of a card"),
}
"""The column in which each kind of secret is planted, and its description in the report."""


@pytest.mark.parametrize("kind", chosen_databases())
def test_planted_secrets_are_found(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """``verify --secrets`` finds each kind of secret in text and in bytes. It names column and row, and prints no secret."""
    with migrated_database(kind, request, tmp_path) as address, a_receiver() as receiver:
        with RunningServer(db=address, env={"CARDWRIGHT_MASTER_KEY": MASTER_KEY}) as server, server.client() as client:
            world = World(server, client, receiver, is_sandbox=True)
            prepare(world)
            enter_canaries(world, 0)
            wait_for_deliveries(world)
            texts = world.canaries.texts
            stored = client.get("/webhooks/hook0").json["config"]
        pair = base64.b64encode(f"{USERNAME}:{stored['basic_auth_password']}".encode()).decode()
        secrets = {
            "password": stored["basic_auth_password"], "secret": stored["secret"], "header": stored["custom_header"]["X-B"],
            "pair": pair, "inline": texts["inline"][0], "inline secret": texts["inline secret"][0], "cvv": texts["cvv"][0],
        }  # fmt: skip
        assert verify_as_a_command(address)[0] == 0
        with closing(Database(address)) as database, database.write() as db:
            for name, (place, _) in PLACES.items():
                plant(db, place, secrets[name], f'"cvv_number":"{secrets[name]}"' if name == "cvv" else secrets[name])
        code, output = verify_as_a_command(address)
    assert code == 1
    report = {invariant["name"]: invariant for invariant in json.loads(output.partition("\n}")[0] + "}")["invariants"]}
    lines = {(line["where"].split()[0], re.sub(r" [0-9]+$", "", line["actual"])) for line in violations(report)}
    assert lines == set(PLACES.values())
    assert all(re.search(r" \S", line["where"]) for line in violations(report))
    for name, secret in secrets.items():
        assert name == "cvv" or (secret not in output and json.dumps(secret)[1:-1] not in output)


def violations(report: dict[str, Any]) -> list[dict[str, str]]:
    """Return the violations of the search for secrets."""
    return list(report["secrets_stay_sealed"]["violations"])


def plant(db: Connection, place: str, secret: str, form: str) -> None:
    """Append a text to one row of a column. Documents get it as a further JSON field."""
    name, _, column_name = place.partition(".")
    table = metadata.tables[name]
    keys, column = list(table.primary_key.columns), table.c[column_name]
    row = db.execute(select(*keys, column).order_by(*(key.desc() for key in keys)).limit(1)).one()
    value: Any = row[-1]
    if isinstance(column.type, LargeBinary):
        value = bytes(value) + form.encode()
    elif value.startswith("{"):
        value = value[:-1] + (f",{form}}}" if form != secret else f',"planted":{json.dumps(secret)}}}')
    else:
        value = f"{value} {form}"
    is_row = [key == part for key, part in zip(keys, row, strict=False)]
    db.execute(table.update().where(*is_row).values({column_name: value}))


# --- Rows of an earlier version -----------------------------------------------------------

OLD_HEADERS = {"X-A": "Bearer old-header-1", "X-B": "7"}
OLD = Endpoint(
    url="https://hooks.example.com/a", username="old_user", password="Old-Passw0rd-7421-Pier", secret="Old-Secret-7421-Lantern"
)
OLD_SECRETS = ("Bearer old-header-1", OLD.username, OLD.password, OLD.secret or "", "Bearer old-message")
PROGRAM = {
    "token": "default", "name": "Default program", "short_code": "dflt", "settings": '{"mask_webhook_secrets":false}',
    "revision": 1, "clock_offset_ms": 0, "created_ms": 0,
}  # fmt: skip


def fill_old_database(address: str) -> None:
    """Create a database of schema 0002 with the rows of that version: a webhook in clear, a masked one, an inbox message."""
    vault = Vault(MASTER.derived_keys)
    with closing(Database(address)) as database, database.write() as db:
        command.upgrade(migrate._config(db), "0002")
        insert(db, "programs", PROGRAM | {"id": 1})
        for row_id, masked in ((1, False), (2, True)):
            config = {
                "url": OLD.url, "basic_auth_username": "o**********r" if masked else OLD.username,
                "basic_auth_password": "O**********r" if masked else OLD.password,
                "secret": "O**********n" if masked else OLD.secret, "custom_header": OLD_HEADERS, "use_mtls": False,
            }  # fmt: skip
            doc = {"token": f"w{row_id}", "name": "old", "active": True, "events": ["*"], "config": config}
            doc |= {"created_time": "2026-01-01T12:00:00Z", "last_modified_time": "2026-01-01T12:00:00Z"}
            sealed = {"username": OLD.username, "password": OLD.password, "secret": OLD.secret}
            envelope = vault.seal(json.dumps(sealed), f"webhook:1:w{row_id}")
            row = {"id": row_id, "program_id": 1, "token": f"w{row_id}", "request_hash": b"1", "created_ms": 0, "modified_ms": 0}
            insert(db, "webhooks", row | {"doc": json.dumps(doc), "active": True, "sealed": envelope})
        message = {"program_id": 1, "box": "box", "received_ms": 0, "stored_ms": 4_000_000_000_000, "body": b"{}"}
        insert(db, "inbox_messages", message | {"headers": '{"x-a":"Bearer old-message"}'})
        insert(db, "meta", {"key": KEY_CHECK, "value": MASTER.check()})


def insert(db: Connection, table: str, row: dict[str, Any]) -> None:
    names = ", ".join(row)
    db.execute(text(f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{name}' for name in row)})"), row)


def test_old_rows_are_sealed_at_the_first_start(database_url: str) -> None:
    """The first start removes what an earlier version stored in clear. Reads show it, with masks by the present setting."""
    fill_old_database(database_url)
    tables = dump(database_url)
    assert all(any(secret.encode() in content for content in tables.values()) for secret in OLD_SECRETS)
    with RunningServer(db=database_url, env={"CARDWRIGHT_MASTER_KEY": MASTER_KEY}) as server, server.client() as client:
        for token in ("w1", "w2"):
            assert client.get(f"/webhooks/{token}").json["config"] == {
                "url": OLD.url, "basic_auth_username": OLD.username, "basic_auth_password": OLD.password, "secret": OLD.secret,
                "custom_header": OLD_HEADERS, "use_mtls": False,
            }  # fmt: skip
        assert client.get("/sandbox/inbox/box").json["data"][0]["headers"] == {"x-a": "Bearer old-message"}
        server.stop()
        for name, content in dump(database_url).items():
            assert [secret for secret in OLD_SECRETS if secret.encode() in content] == [], name
        server.start()
    assert verify_as_a_command(database_url)[0] == 0


def test_verify_reports_rows_that_wait_for_the_first_start(database_url: str) -> None:
    """After `cardwright migrate` alone the old rows are still in clear, and ``verify --secrets`` reports it."""
    fill_old_database(database_url)
    with closing(Database(database_url)) as database:
        assert migrate.migrate(database)
        broken = {item.name: item for item in findings(database, vault=Vault(MASTER.derived_keys)) if item.broken}
    places = {violation.where for violation in broken["secrets_stay_sealed"].violations}
    assert places == {"meta.value rows in clear", "webhooks.doc 1"}


def test_starts_at_once_seal_old_rows_once(database_url: str) -> None:
    """Of two processes that start at once, one seals the rows. The other waits and changes nothing."""
    fill_old_database(database_url)
    vault, barrier = Vault(MASTER.derived_keys), threading.Barrier(2)
    with closing(Database(database_url)) as database:
        migrate.migrate(database)

    def start() -> None:
        with closing(Database(database_url)) as database:
            barrier.wait()
            seal_rows_in_clear(database, vault)

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(start) for _ in range(2)]:
            done.result()
    with closing(Database(database_url)) as database, database.read() as db:
        rows = db.execute(select(webhooks).order_by(webhooks.c.id)).all()
        assert [open_webhook(vault, row) for row in rows] == [replace(OLD, custom_header=OLD_HEADERS)] * 2
        assert find_value(db, ROWS_IN_CLEAR) is None


def test_an_error_of_the_database_hides_parameters(migrated_url: str) -> None:
    """The text of a failed statement, which goes to the log, does not have the values of the statement."""
    with closing(Database(migrated_url)) as database:
        for _ in range(2):
            try:
                with database.write() as db:
                    db.execute(meta.insert().values(key="twice", value=f"{MARK} value"))
            except IntegrityError as failure:
                error = str(failure)
    assert "meta" in error
    assert MARK not in error
