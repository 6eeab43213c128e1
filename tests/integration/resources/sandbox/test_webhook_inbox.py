"""Webhook inbox on both databases: received messages, signatures, filters, waiting, concurrent posts, and deliveries."""

import http.client
import select
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest

from cardwright.kit.clock import ProgramClock
from cardwright.kit.vault import MasterKey, Vault
from cardwright.outbox.signature import sign
from cardwright.resources.sandbox import webhook_inbox
from cardwright.resources.sandbox.webhook_inbox import check_signature, does_fit, kept_headers, shown_authorization
from cardwright.storage.database import Database
from cardwright.storage.programs import ProgramSettings, insert_program
from cardwright.storage.tables import inbox_messages
from tests.support.databases import chosen_databases
from tests.support.failpoints import Failpoints
from tests.support.fixtures import module_server
from tests.support.issuing import new_program
from tests.support.server import MASTER_KEY, Client, RunningServer
from tests.support.waiting import until

PASSWORD = "Harb0r-Hook-Passw0rd!"
SECRET = "Quiet-Harbor_7421!Lantern"
VAULT = Vault(MasterKey(b"k" * 32).derived_keys)
PURCHASE = b'{"transactions":[{"type":"authorization","state":"PENDING","token":"t1","amount":10.00}]}'


class InboxClient(Client):
    """A client of a new program, with helpers for its inbox."""

    def __init__(self, server: RunningServer) -> None:
        made = new_program(server)
        self.server, self.program = server, made["token"]
        super().__init__(server.root_url, made["application_token"], made["access_token"])

    def address(self, box: str = "box", query: str = "") -> str:
        return f"{self.server.root_url}/sandbox/inbox/{self.program}/{box}{query}"

    def inbox(self, box: str = "box", **query: Any) -> list[dict[str, Any]]:
        reply = self.get(f"/sandbox/inbox/{box}", query=query or None)
        assert reply.status == 200, reply.text
        messages: list[dict[str, Any]] = reply.json["data"]
        return messages

    def webhook(self, url: str, **changes: Any) -> str:
        config = {"url": url, "basic_auth_username": "harbor", "basic_auth_password": PASSWORD, **changes}
        made = self.post("/webhooks", {"name": "harbor", "events": ["*"], "config": config})
        assert made.status == 201, made.text
        token: str = made.json["token"]
        return token

    def buy(self, amount: int, **fields: Any) -> dict[str, Any]:
        """Make a purchase; create its card first if there is none."""
        if self.get("/cards/card").status == 404:
            self.post("/fundingsources/program", {"token": "source", "name": "bank"})
            funding = {"enabled": True, "funding_source_token": "source", "refunds_destination": "GPA"}
            config = {"jit_funding": {"program_funding_source": funding}, "card_life_cycle": {"activate_upon_issue": True}}
            self.post("/cardproducts", {"token": "product", "name": "card", "start_date": "2025-01-01", "config": config})
            self.post("/users", {"token": "ana"})
            self.post("/cards", {"token": "card", "user_token": "ana", "card_product_token": "product"})
        made = self.post("/simulate/authorization", {"card_token": "card", "amount": amount, "mid": "m1", **fields})
        assert made.status == 201, made.text
        transaction: dict[str, Any] = made.json["transaction"]
        return transaction


FAILPOINTS = Failpoints()
server = module_server(chosen_databases(), env=FAILPOINTS.environment)


@pytest.fixture
def client(server: RunningServer) -> Iterator[InboxClient]:
    with InboxClient(server) as client:
        yield client


def connect(url: str) -> http.client.HTTPConnection:
    """Return a connection to the server of a URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=90)


def send(url: str, body: bytes = PURCHASE, headers: dict[str, str] | None = None, verb: str = "POST") -> tuple[int, bytes]:
    """Send a request without credentials, and return status and body of the answer."""
    parts = urlsplit(url)
    with closing(connect(url)) as connection:
        connection.request(verb, f"{parts.path}?{parts.query}" if parts.query else parts.path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()


# --- Receiving ----------------------------------------------------------------------------


def test_a_stranger_may_post_and_only_the_program_may_read(client: InboxClient) -> None:
    """A post needs no credentials. A read needs those of the program, and another program sees no message."""
    assert send(client.address()) == (200, b"{}")
    assert client.get("/sandbox/inbox/box", headers={"Authorization": "Basic eDp5"}).status == 401
    with InboxClient(client.server) as other:
        assert other.inbox() == []
    assert [message["body"]["transactions"][0]["token"] for message in client.inbox()] == ["t1"]


@pytest.mark.parametrize("status", [200, 204, 302, 404, 500, 503])
def test_it_fails_when_asked_to(client: InboxClient, status: int) -> None:
    """``status`` in the URL sets the status of the answer. The message is stored in every case."""
    assert send(client.address(query=f"?status={status}"))[0] == status
    assert len(client.inbox()) == 1


def test_it_hangs_when_asked_to(client: InboxClient) -> None:
    """``delay`` in the URL delays the answer, but not the storage of the message."""
    began = time.monotonic()
    assert send(client.address(query="?delay=200ms")) == (200, b"{}")
    assert time.monotonic() - began >= 0.2
    with closing(connect(client.address())) as connection:
        connection.request("POST", urlsplit(client.address()).path + "?delay=30s", PURCHASE)
        until(lambda: len(client.inbox()) == 2)
        # The message is stored and its answer has not come. The test does not wait for the rest of the 30 s.
        assert select.select([connection.sock], [], [], 0)[0] == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/sandbox/inbox/no-such-program/box", 404),
        ("/sandbox/inbox/{program}", 404),
        ("/sandbox/inbox/{program}/box/more", 404),
        ("/sandbox/inbox/{program}/b%20x", 404),
        ("/sandbox/inbox/{program}/" + "x" * 65, 404),
        ("/sandbox/inbox/%00/box", 404),
        ("/sandbox/inbox/{program}/box?status=99", 400),
        ("/sandbox/inbox/{program}/box?status=abc", 400),
        ("/sandbox/inbox/{program}/box?delay=1", 400),
        ("/sandbox/inbox/{program}/box?delay=31s", 400),
    ],
)
def test_bad_addresses_are_refused(client: InboxClient, path: str, status: int) -> None:
    """An unknown program or a malformed path gets 404. An invalid status or delay gets 400. No message is stored."""
    assert send(client.server.root_url + path.replace("{program}", client.program))[0] == status
    assert client.inbox() == []


def test_a_body_has_a_limit(client: InboxClient) -> None:
    """A body of 1 MiB is accepted. A body with one byte more gets 413."""
    assert send(client.address(), b"x" * 1_048_576)[0] == 200
    assert send(client.address(), b"x" * 1_048_577)[0] == 413
    assert [len(message["body"]) for message in client.inbox()] == [1_048_576]


def test_production_has_no_inbox() -> None:
    """Production mode has no inbox: a post is a 404, and a read is a 403. Deliveries are listed."""
    keys = {"CARDWRIGHT_MASTER_KEY": MASTER_KEY}
    with RunningServer(db=":memory:", mode="production", env=keys) as production, production.client() as client:
        assert send(f"{production.root_url}/sandbox/inbox/default/box")[0] == 404
        assert client.get("/sandbox/inbox/box").status == 403
        assert client.get("/sandbox/deliveries").status == 200


# --- Content of a message ----------------------------------------------------------------


def test_passwords_are_not_kept(client: InboxClient) -> None:
    """The Authorization header is stored with scheme and user name, and with a masked password."""
    send(client.address(), headers={"Authorization": "Basic aGFyYm9yOkhhcmIwci1Ib29rLVBhc3N3MHJkIQ==", "X-Pier": "7"})
    (message,) = client.inbox()
    assert message["headers"]["authorization"] == "Basic harbor:**********"
    assert message["headers"]["x-pier"] == "7"
    assert PASSWORD not in str(message)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Basic dTpwOnE=", "Basic u:**********"),
        ("basic dTpw", "basic u:**********"),
        ("Basic dXA=", "Basic **********"),
        ("Basic %%%", "Basic **********"),
        ("Bearer secret", "Bearer **********"),
        ("secret", "secret **********"),
        ("", " **********"),
    ],
)
def test_what_is_shown_of_credentials(value: str, shown: str) -> None:
    """Everything after scheme and user name is masked, even in a malformed header."""
    assert shown_authorization(value) == shown


def test_repeated_headers_are_joined() -> None:
    """Repeated headers are joined by commas. Repeated Authorization headers are all masked."""
    headers = [("X-A", "1"), ("x-a", "2"), ("Authorization", "Basic dTpw"), ("AUTHORIZATION", "Bearer x")]
    assert kept_headers(headers) == {"x-a": "1, 2", "authorization": "Basic u:**********, Bearer **********"}


@pytest.mark.parametrize("body", [b"", b"hello", b'{"a":', b"\xff\xfe", b"[" * 100_000, b'{"a":NaN}'])
def test_what_is_no_json_is_text(client: InboxClient, body: bytes) -> None:
    """Any body is accepted. A body that is not JSON is shown as text, and no filter matches it."""
    assert send(client.address(), body)[0] == 200
    (message,) = client.inbox()
    assert message["body"] == body.decode(errors="replace")
    assert client.inbox(type="authorization") == []


def test_amounts_keep_their_digits(client: InboxClient) -> None:
    """Numbers in a JSON body keep their digits: 10.00 does not become 10.0."""
    send(client.address())
    assert '"amount":10.00' in client.get("/sandbox/inbox/box").text


@pytest.mark.parametrize("algorithm", ["HMAC_SHA_1", "HMAC_SHA_256"])
def test_signatures_are_checked(client: InboxClient, algorithm: str) -> None:
    """A signature is valid only for its body under the secret of the box's webhook. Without a webhook the result is null."""
    client.webhook(client.address("signed", "?status=200"), secret=SECRET, signature_algorithm=algorithm)
    signature = sign(SECRET, PURCHASE, algorithm)
    for box, body, header in [
        ("signed", PURCHASE, signature),
        ("signed", b"{}", signature),
        ("signed", PURCHASE, "0" * len(signature)),
        ("signed", PURCHASE, "nonsense"),
        ("signed", PURCHASE, None),
        ("other", PURCHASE, signature),
    ]:
        send(client.address(box), body, {"X-Marqeta-Signature": header} if header is not None else {})
    shown = [message["signature"] for message in reversed(client.inbox("signed"))]
    assert shown == [
        {"present": True, "algorithm": algorithm, "valid": True},
        {"present": True, "algorithm": algorithm, "valid": False},
        {"present": True, "algorithm": algorithm, "valid": False},
        {"present": True, "algorithm": None, "valid": False},
        {"present": False, "algorithm": None, "valid": None},
    ]
    assert [message["signature"]["valid"] for message in client.inbox("other")] == [None]


def test_a_signature_of_strange_characters_is_only_wrong() -> None:
    """A signature outside ASCII is invalid, even with the right length, and raises no error."""
    assert check_signature("é" * 40, b"{}", [SECRET]).valid is False


# --- Lists and waiting -------------------------------------------------------------------


def test_pages_go_from_new_to_old(client: InboxClient) -> None:
    """Pages list the newest message first. ``after`` returns only messages with a higher id."""
    for number in range(5):
        send(client.address(), b'{"n":%d}' % number)
    first = client.get("/sandbox/inbox/box", query={"count": 2}).json
    rest = client.get("/sandbox/inbox/box", query={"count": 3, "start_index": 2}).json
    assert [message["body"]["n"] for message in first["data"] + rest["data"]] == [4, 3, 2, 1, 0]
    assert (first["count"], first["start_index"], first["end_index"], first["is_more"]) == (2, 0, 1, True)
    assert (rest["start_index"], rest["end_index"], rest["is_more"]) == (2, 4, False)
    middle = first["data"][1]["id"]
    assert [message["body"]["n"] for message in client.inbox(after=middle)] == [4]


@pytest.mark.parametrize(
    "query", ["count=0", "count=x", "start_index=-1", "after=-1", "after=99999999999999999999", "wait=5", "wait=31s"]
)
def test_bad_parameters_are_refused(client: InboxClient, query: str) -> None:
    """An invalid parameter gets 400, and a count above 100 gets 413."""
    assert client.get(f"/sandbox/inbox/box?{query}").status == 400
    assert client.get("/sandbox/inbox/box?count=101").status == 413


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ({}, True),
        ({"type_": "authorization"}, True),
        ({"type_": "authorization.clearing"}, True),
        ({"type_": "refund"}, False),
        ({"token": "t2"}, True),
        ({"type_": "authorization", "token": "t2"}, False),
        ({"type_": ""}, False),
    ],
)
def test_filters_look_at_every_object(query: dict[str, str], fits: bool) -> None:
    """A message fits if one of its objects, first or last, has both the type and the token."""
    body = b'{"transactions":[{"type":"authorization","token":"t1"},{"type":"authorization.clearing","token":"t2"}]}'
    assert does_fit(body, query.get("type_"), query.get("token")) is fits


def test_a_user_transition_is_found_by_its_status() -> None:
    """The type of a user transition is its status in lower case, because it has no type on the wire."""
    assert does_fit(b'{"usertransitions":[{"status":"ACTIVE","token":"u1"}]}', "active", None)


def test_waiting_ends_with_the_message(client: InboxClient) -> None:
    """A waiting read returns with the first new message that fits. Messages that do not fit do not end it."""
    send(client.address())
    (known,) = client.inbox(wait="30s")

    def look() -> None:
        """Wait until a search of the box finds no message."""
        assert FAILPOINTS.wait("inbox.wait.found_nothing")

    with ThreadPoolExecutor(1) as threads:
        FAILPOINTS.arm("inbox.wait.found_nothing", "pause")
        answer = threads.submit(client.inbox, wait="30s", after=known["id"], type="refund")
        look()
        send(client.address())
        FAILPOINTS.release("inbox.wait.found_nothing")
        FAILPOINTS.arm("inbox.wait.found_nothing", "pause")
        look()
        send(client.address(), b'{"transactions":[{"type":"refund","token":"t9"}]}')
        FAILPOINTS.release("inbox.wait.found_nothing")
        (message,) = answer.result()
    assert message["body"]["transactions"][0]["token"] == "t9"


def test_waiting_in_vain_ends_in_time(client: InboxClient) -> None:
    """Without a message a waiting read returns an empty list at the end of its time."""
    began = time.monotonic()
    assert client.inbox(wait="500ms") == []
    assert time.monotonic() - began >= 0.5


def test_a_box_is_emptied(client: InboxClient) -> None:
    """DELETE empties one box and answers 204, even if the box is empty. Other boxes keep their messages."""
    send(client.address())
    send(client.address("other"))
    assert [client.delete("/sandbox/inbox/box").status for _ in range(2)] == [204, 204]
    assert (client.inbox(), len(client.inbox("other"))) == ([], 1)


def test_a_reader_misses_no_message(client: InboxClient) -> None:
    """With eight concurrent senders, a reader that continues after the last id sees each of 200 messages once."""
    posted, numbers, last = 200, list[int](), 0
    over = threading.Event()

    def read_on() -> None:
        nonlocal last
        while not over.is_set() or client.inbox(after=last):
            for message in reversed(client.inbox(after=last, wait="200ms", count=100)):
                numbers.append(message["body"]["n"])
                last = message["id"]

    reader = threading.Thread(target=read_on)
    reader.start()
    with ThreadPoolExecutor(8) as threads:
        statuses = set(threads.map(lambda number: send(client.address(), b'{"n":%d}' % number)[0], range(posted)))
    over.set()
    reader.join()
    assert statuses == {200}
    assert sorted(numbers) == list(range(posted))


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """Yield a database with only the program "mine"."""
    database = Database(migrated_url)
    parts: dict[str, Any] = {"short_code": "mine", "settings": ProgramSettings(), "clock": ProgramClock(), "now": 0}
    with database.write() as db:
        insert_program(db, token="mine", name="mine", **parts)
    yield database
    database.close()


def boxes(database: Database) -> list[str]:
    """Return the boxes of all messages, oldest first."""
    with database.read() as db:
        return [row.box for row in db.execute(inbox_messages.select().order_by(inbox_messages.c.id))]


def is_any_waiting(database: Database) -> bool:
    """Return True if a writer waits: for the write lock on SQLite, for an advisory lock on PostgreSQL."""
    if database.is_sqlite:
        return bool(database.write_lock._waiting)
    with database.read() as db:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
        return db.exec_driver_sql(waiting).scalar_one() > 0


def test_no_message_appears_before_an_older_one(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message waits for the commit of a message with a lower id, so that a reader with ``after`` misses none."""
    numbered, go_on = threading.Event(), threading.Event()
    real_step = webhook_inbox.remove_oldest

    def slow_step(*arguments: Any) -> None:
        if not numbered.is_set():
            numbered.set()
            assert go_on.wait(60)
        real_step(*arguments)

    monkeypatch.setattr(webhook_inbox, "remove_oldest", slow_step)
    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(webhook_inbox.accept, database, VAULT, lambda: 0, "mine", "slow", [], b"{}")
        assert numbered.wait(60)
        quick = threads.submit(webhook_inbox.accept, database, VAULT, lambda: 0, "mine", "quick", [], b"{}")
        until(lambda: is_any_waiting(database))
        assert boxes(database) == []
        go_on.set()
        assert slow.result()
        assert quick.result()
    assert boxes(database) == ["slow", "quick"]


# --- Limits of a program ------------------------------------------------------------------


def test_the_oldest_make_room(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program above its number of messages loses its oldest ones in any box, however many boxes a sender names."""
    monkeypatch.setattr(webhook_inbox, "MESSAGES_MAX", 3)
    with database.write() as db:
        parts: dict[str, Any] = {"short_code": "othe", "settings": ProgramSettings(), "clock": ProgramClock(), "now": 0}
        insert_program(db, token="other", name="other", **parts)
    assert webhook_inbox.accept(database, VAULT, lambda: 0, "other", "untouched", [], b"{}")
    for box in ("a", "b", "c", "d", "e"):
        assert webhook_inbox.accept(database, VAULT, lambda: 0, "mine", box, [], b"{}")
    assert boxes(database) == ["untouched", "c", "d", "e"]


def test_large_messages_make_room_too(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of headers and bodies have a limit. A message removes as many old ones as it needs; the newest always stays."""
    monkeypatch.setattr(webhook_inbox, "BYTES_MAX", 1000)
    for box, size in (("a", 100), ("b", 400), ("c", 400), ("d", 100), ("e", 398), ("f", 398), ("g", 2000)):
        # Without headers, the envelope of the headers has 31 bytes.
        assert webhook_inbox.accept(database, VAULT, lambda: 0, "mine", box, [], b"x" * (size - 31))
        kept = {"d": ["a", "b", "c", "d"], "e": ["c", "d", "e"], "f": ["d", "e", "f"], "g": ["g"]}
        if box in kept:
            assert boxes(database) == kept[box]
    assert webhook_inbox.accept(database, VAULT, lambda: 0, "mine", "h", [("x-long", "y" * 500)], b"x" * 490)
    assert boxes(database) == ["h"]


def test_removed_messages_leave_the_limits_intact(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an emptied box, or without any message, the limits hold as before: never more, and at the end exactly as many."""
    monkeypatch.setattr(webhook_inbox, "MESSAGES_MAX", 3)

    def post(*names: str) -> list[str]:
        for name in names:
            assert webhook_inbox.accept(database, VAULT, lambda: 0, "mine", name, [], b"{}")
        return boxes(database)

    def empty(*names: str) -> None:
        with database.write() as db:
            db.execute(inbox_messages.delete().where(inbox_messages.c.box.in_(names)))

    post("a", "b", "c")
    empty("c")
    assert post("d") == ["a", "b", "d"]
    empty("b")
    assert post("e", "f", "g") == ["e", "f", "g"]
    empty("e", "f", "g")
    assert post("h", "i", "j", "k") == ["i", "j", "k"]


def test_two_processes_keep_the_limits(migrated_url: str) -> None:
    """With eight senders at two databases, as in two processes, each message has its own number and the newest stay."""
    posted, limit = 120, 50
    with closing(Database(migrated_url)) as database:
        with database.write() as db:
            parts: dict[str, Any] = {"short_code": "mine", "settings": ProgramSettings(), "clock": ProgramClock(), "now": 0}
            program_id = insert_program(db, token="mine", name="mine", **parts)
        places = [Database(migrated_url) for _ in range(2)]
        with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(8) as threads:
            patch.setattr(webhook_inbox, "MESSAGES_MAX", limit)

            def post(number: int) -> bool:
                return webhook_inbox.accept(places[number % 2], VAULT, lambda: 0, "mine", f"box{number}", [], b"{}")

            assert all(threads.map(post, range(posted)))
        for place in places:
            place.close()
        with database.read() as db:
            order = inbox_messages.select().where(inbox_messages.c.program_id == program_id).order_by(inbox_messages.c.id)
            rows = db.execute(order).all()
    figures = [(row.number, row.begin_bytes, row.end_bytes) for row in rows]
    assert figures == [(number, number * 33 - 33, number * 33) for number in range(posted - limit + 1, posted + 1)]


# --- Deliveries --------------------------------------------------------------------------


def test_a_purchase_arrives_in_the_inbox(client: InboxClient) -> None:
    """A purchase arrives at a webhook that points at the inbox, with a valid signature and a masked password."""
    client.webhook(client.address(), secret=SECRET)
    transaction = client.buy(10)
    (message,) = client.inbox(wait="30s", type="authorization")
    assert message["body"] == {"transactions": [transaction]}
    assert message["signature"] == {"present": True, "algorithm": "HMAC_SHA_1", "valid": True}
    assert message["headers"]["authorization"] == "Basic harbor:**********"
    assert [row["id"] for row in client.inbox(token=transaction["token"])] == [message["id"]]


def test_a_simulation_may_name_the_inbox_itself(client: InboxClient) -> None:
    """The webhook in a simulation's request can point at the inbox. Its signature is verified with its own secret."""
    transaction = client.buy(
        10, webhook={"endpoint": client.address("mine"), "username": "u", "password": "p", "secret": "s3cret"}
    )
    (message,) = client.inbox("mine", wait="30s")
    assert message["body"] == {"transactions": [transaction]}
    assert message["headers"]["authorization"] == "Basic u:**********"
    assert message["signature"]["valid"] is True


def test_deliveries_are_listed_with_their_attempts(client: InboxClient) -> None:
    """A delivery shows its state, its attempts and, while it is due, the next attempt. It shows no password or secret."""
    good = client.webhook(client.address("good"), secret=SECRET)
    bad = client.webhook(client.address("bad", "?status=500"))
    transaction = client.buy(10)
    query = {"transaction_token": transaction["token"]}
    until(lambda: {delivery["tries"] for delivery in client.get("/sandbox/deliveries", query=query).json["data"]} == {1})
    reply = client.get("/sandbox/deliveries", query=query)
    shown = {delivery["webhook_token"]: delivery for delivery in reply.json["data"]}
    assert shown.keys() == {good, bad}
    assert {name: shown[good][name] for name in ("state", "category", "tokens", "url")} == {
        "state": "DELIVERED",
        "category": "transaction",
        "tokens": [transaction["token"]],
        "url": client.address("good"),
    }
    assert "due_time" not in shown[good]
    assert (shown[good]["attempts"][0]["status"], shown[good]["attempts"][0]["body"]) == (200, "{}")
    assert shown[bad]["state"] == "DUE"
    assert shown[bad]["due_time"] > shown[bad]["created_time"]
    assert shown[bad]["attempts"][0]["status"] == 500
    assert PASSWORD not in reply.text
    assert SECRET not in reply.text


def test_deliveries_can_be_filtered(client: InboxClient) -> None:
    """Deliveries are filtered by state, webhook and transaction.

    An unknown token matches no delivery, and an unknown state gets 400.
    """
    good = client.webhook(client.address("good"))
    first, second = client.buy(10), client.buy(11)
    client.inbox("good", wait="30s", token=second["token"])

    def count_of(**query: str) -> int:
        reply = client.get("/sandbox/deliveries", query=query)
        assert reply.status == 200
        count: int = reply.json["count"]
        return count

    until(lambda: count_of(state="DELIVERED") == count_of())
    assert count_of() == count_of(webhook_token=good) == 5  # A user, a card that is issued and activated, two purchases.
    assert (count_of(transaction_token=first["token"]), count_of(transaction_token="none")) == (1, 0)
    assert (count_of(webhook_token="none"), count_of(state="DEAD"), count_of(sort_by="createdTime")) == (0, 0, 5)
    assert client.get("/sandbox/deliveries?state=LOST").status == 400
    assert client.get("/sandbox/deliveries?sort_by=state").status == 400
    with InboxClient(client.server) as other:
        assert other.get("/sandbox/deliveries").json["count"] == 0


def test_retries_come_when_the_clock_is_advanced(client: InboxClient) -> None:
    """A failing endpoint gets ten retries as the clock advances, all with the same body. Then the delivery is DEAD."""
    client.webhook(client.address("bad", "?status=500"))
    client.post("/sandbox/clock", {"freeze": True})
    client.post("/users", {"token": "ana"})
    for retry in range(1, 11):
        until(lambda retry=retry: client.get("/sandbox/deliveries").json["data"][0]["tries"] == retry)  # type: ignore[misc]
        client.post("/sandbox/clock", {"by": f"{4**retry}s"})
    until(lambda: client.get("/sandbox/deliveries?state=DEAD").json["count"] == 1)
    messages = client.inbox("bad")
    assert len(messages) == 11
    assert len({str(message["body"]) for message in messages}) == 1
