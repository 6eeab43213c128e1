"""The sandbox's inbox over the real API, on both databases: what arrives, what is shown of it, and the list of deliveries."""

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
from tests.support.server import Client, RunningServer
from tests.support.waiting import until

PASSWORD = "Harb0r-Hook-Passw0rd!"
SECRET = "Quiet-Harbor_7421!Lantern"
PURCHASE = b'{"transactions":[{"type":"authorization","state":"PENDING","token":"t1","amount":10.00}]}'


class InboxClient(Client):
    """A program of the test's own, and the address of its inbox."""

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
        """A purchase with a card that is made for it."""
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
    """A connection to the server of a URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=90)


def send(url: str, body: bytes = PURCHASE, headers: dict[str, str] | None = None, verb: str = "POST") -> tuple[int, bytes]:
    """One request of a stranger, without credentials."""
    parts = urlsplit(url)
    with closing(connect(url)) as connection:
        connection.request(verb, f"{parts.path}?{parts.query}" if parts.query else parts.path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()


# --- Receiving ----------------------------------------------------------------------------


def test_a_stranger_may_post_and_only_the_program_may_read(client: InboxClient) -> None:
    """No credential is needed to post, the program's are needed to read, and another program sees nothing."""
    assert send(client.address()) == (200, b"{}")
    assert client.get("/sandbox/inbox/box", headers={"Authorization": "Basic eDp5"}).status == 401
    with InboxClient(client.server) as other:
        assert other.inbox() == []
    assert [message["body"]["transactions"][0]["token"] for message in client.inbox()] == ["t1"]


@pytest.mark.parametrize("status", [200, 204, 302, 404, 500, 503])
def test_it_fails_when_asked_to(client: InboxClient, status: int) -> None:
    """`status` in the address is the answer; the message is kept all the same."""
    assert send(client.address(query=f"?status={status}"))[0] == status
    assert len(client.inbox()) == 1


def test_it_hangs_when_asked_to(client: InboxClient) -> None:
    """`delay` in the address holds the answer, not the message."""
    began = time.monotonic()
    assert send(client.address(query="?delay=200ms")) == (200, b"{}")
    assert time.monotonic() - began >= 0.2
    with closing(connect(client.address())) as connection:
        connection.request("POST", urlsplit(client.address()).path + "?delay=30s", PURCHASE)
        until(lambda: len(client.inbox()) == 2)
        # Nothing has come although the message is there; nobody waits for the rest of the half minute.
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
    """An unknown program, a path of another shape and faults that cannot be had keep nothing."""
    assert send(client.server.root_url + path.replace("{program}", client.program))[0] == status
    assert client.inbox() == []


def test_a_body_has_a_limit(client: InboxClient) -> None:
    """A megabyte is taken, a byte more is not."""
    assert send(client.address(), b"x" * 1_048_576)[0] == 200
    assert send(client.address(), b"x" * 1_048_577)[0] == 413
    assert [len(message["body"]) for message in client.inbox()] == [1_048_576]


def test_production_has_no_inbox() -> None:
    """Where money is real nobody may write without a credential, nor read what was written."""
    keys = {"CARDWRIGHT_MASTER_KEY": "ab" * 32}
    with RunningServer(db=":memory:", mode="production", env=keys) as production, production.client() as client:
        assert send(f"{production.root_url}/sandbox/inbox/default/box")[0] == 404
        assert client.get("/sandbox/inbox/box").status == 403
        assert client.get("/sandbox/deliveries").status == 200


# --- What is shown -----------------------------------------------------------------------


def test_passwords_are_not_kept(client: InboxClient) -> None:
    """Scheme and user name are shown; the password is gone."""
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
    """Whatever a header holds, nothing after the user name is shown."""
    assert shown_authorization(value) == shown


def test_repeated_headers_are_joined() -> None:
    """Two headers of one name are one line, as HTTP reads them; two Authorization headers are both masked."""
    headers = [("X-A", "1"), ("x-a", "2"), ("Authorization", "Basic dTpw"), ("AUTHORIZATION", "Bearer x")]
    assert kept_headers(headers) == {"x-a": "1, 2", "authorization": "Basic u:**********, Bearer **********"}


@pytest.mark.parametrize("body", [b"", b"hello", b'{"a":', b"\xff\xfe", b"[" * 100_000, b'{"a":NaN}'])
def test_what_is_no_json_is_text(client: InboxClient, body: bytes) -> None:
    """Anything may arrive; what cannot be parsed is shown as text, and filters pass it by."""
    assert send(client.address(), body)[0] == 200
    (message,) = client.inbox()
    assert message["body"] == body.decode(errors="replace")
    assert client.inbox(type="authorization") == []


def test_amounts_keep_their_digits(client: InboxClient) -> None:
    """JSON is shown as it came: 10.00 does not become 10.0."""
    send(client.address())
    assert '"amount":10.00' in client.get("/sandbox/inbox/box").text


@pytest.mark.parametrize("algorithm", ["HMAC_SHA_1", "HMAC_SHA_256"])
def test_signatures_are_checked(client: InboxClient, algorithm: str) -> None:
    """Valid with the webhook's secret, invalid with another or for another body; unknown where no webhook points."""
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
    """Text outside ASCII in the header, of the right length, raises nothing."""
    assert check_signature("é" * 40, b"{}", [SECRET]).valid is False


# --- Lists and waiting -------------------------------------------------------------------


def test_pages_go_from_new_to_old(client: InboxClient) -> None:
    """The newest message comes first; the envelope counts as all lists do."""
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
    """A 400 for each, and 413 for a page that is too large."""
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
    """Type and token must be those of one and the same object, be it the first of the message or the last."""
    body = b'{"transactions":[{"type":"authorization","token":"t1"},{"type":"authorization.clearing","token":"t2"}]}'
    assert does_fit(body, query.get("type_"), query.get("token")) is fits


def test_a_user_transition_is_found_by_its_status() -> None:
    """User transitions have no type on the wire; the event's name ends with the status."""
    assert does_fit(b'{"usertransitions":[{"status":"ACTIVE","token":"u1"}]}', "active", None)


def test_waiting_ends_with_the_message(client: InboxClient) -> None:
    """The answer comes with the first message that fits and is new, not with those that do not fit and not after the time."""
    send(client.address())
    (known,) = client.inbox(wait="30s")

    def look() -> None:
        """Wait until a look at the box has found nothing."""
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
    """Nothing comes: an empty list, after the time."""
    began = time.monotonic()
    assert client.inbox(wait="500ms") == []
    assert time.monotonic() - began >= 0.5


def test_a_box_is_emptied(client: InboxClient) -> None:
    """DELETE answers 204 and empties this box alone; once more changes nothing."""
    send(client.address())
    send(client.address("other"))
    assert [client.delete("/sandbox/inbox/box").status for _ in range(2)] == [204, 204]
    assert (client.inbox(), len(client.inbox("other"))) == ([], 1)


def test_nobody_misses_a_message(client: InboxClient) -> None:
    """Eight strangers post at once while a reader always asks for what came after the last id: it sees every message once."""
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
    """A database with one program, "mine", and nothing else."""
    database = Database(migrated_url)
    parts: dict[str, Any] = {"short_code": "mine", "settings": ProgramSettings(), "clock": ProgramClock(), "now": 0}
    with database.write() as db:
        insert_program(db, token="mine", name="mine", **parts)
    yield database
    database.close()


def boxes(database: Database) -> list[str]:
    """The boxes of all messages, oldest first."""
    with database.read() as db:
        return [row.box for row in db.execute(inbox_messages.select().order_by(inbox_messages.c.id))]


def is_any_waiting(database: Database) -> bool:
    """Whether somebody waits for a lock: on SQLite at the lock, on PostgreSQL for the advisory lock."""
    if database.is_sqlite:
        return bool(database.write_lock._waiting)
    with database.read() as db:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
        return db.exec_driver_sql(waiting).scalar_one() > 0


def test_no_message_appears_before_an_older_one(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a message has its number but is not committed, the next one waits: who asks for what came after misses nothing."""
    numbered, go_on = threading.Event(), threading.Event()
    real_place = webhook_inbox._is_in

    def slow_place(program_id: int, box: str) -> Any:
        if box == "slow" and not numbered.is_set():
            numbered.set()
            assert go_on.wait(60)
        return real_place(program_id, box)

    monkeypatch.setattr(webhook_inbox, "_is_in", slow_place)
    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(webhook_inbox.accept, database, lambda: 0, "mine", "slow", [], b"{}")
        assert numbered.wait(60)
        quick = threads.submit(webhook_inbox.accept, database, lambda: 0, "mine", "quick", [], b"{}")
        until(lambda: is_any_waiting(database))
        assert boxes(database) == []
        go_on.set()
        assert slow.result()
        assert quick.result()
    assert boxes(database) == ["slow", "quick"]


def test_the_oldest_make_room(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A box keeps its newest messages up to the limit; other boxes are not touched."""
    monkeypatch.setattr(webhook_inbox, "BOX_MAX", 3)
    for box in ("a", "b", "a", "a", "a", "a"):
        assert webhook_inbox.accept(database, lambda: 0, "mine", box, [], b"{}")
    assert boxes(database) == ["b", "a", "a", "a"]


# --- Deliveries --------------------------------------------------------------------------


def test_a_purchase_arrives_in_the_inbox(client: InboxClient) -> None:
    """A registered webhook that points at the inbox: user, card and purchase arrive, each signed and shown as valid."""
    client.webhook(client.address(), secret=SECRET)
    transaction = client.buy(10)
    (message,) = client.inbox(wait="30s", type="authorization")
    assert message["body"] == {"transactions": [transaction]}
    assert message["signature"] == {"present": True, "algorithm": "HMAC_SHA_1", "valid": True}
    assert message["headers"]["authorization"] == "Basic harbor:**********"
    assert [row["id"] for row in client.inbox(token=transaction["token"])] == [message["id"]]


def test_a_simulation_may_name_the_inbox_itself(client: InboxClient) -> None:
    """No webhook is registered; the simulation's own one arrives and its signature is known to be valid."""
    transaction = client.buy(
        10, webhook={"endpoint": client.address("mine"), "username": "u", "password": "p", "secret": "s3cret"}
    )
    (message,) = client.inbox("mine", wait="30s")
    assert message["body"] == {"transactions": [transaction]}
    assert message["headers"]["authorization"] == "Basic u:**********"
    assert message["signature"]["valid"] is True


def test_deliveries_are_listed_with_their_attempts(client: InboxClient) -> None:
    """A delivered one and one that failed: where they stand, what was tried, when the next try is due; secrets nowhere."""
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
    """By state, webhook and transaction; a token that names nothing has no deliveries, an unknown state is a mistake."""
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
    """An endpoint fails; the clock is set on, retry by retry; after the tenth the delivery is dead and says why."""
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
