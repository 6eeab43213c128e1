"""Webhooks over HTTP on both databases: fields, masks, refused input, secrets, pings, subscriptions and resends."""

import base64
import hmac
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cardwright.core.problems import Problem
from cardwright.kit.guard import OutgoingPolicy
from cardwright.resources.webhooks.webhooks import ConfigBody, check_config, check_events, check_secret, mask_secret
from tests.support.databases import chosen_databases, migrated_file
from tests.support.fixtures import shared_server
from tests.support.issuing import client_of, new_program
from tests.support.receiver import a_receiver
from tests.support.server import Client, RunningServer
from tests.support.waiting import until

USERNAME = "harbor_hook_user"
PASSWORD = "Harb0r-Hook-Passw0rd!"
SECRET = "Quiet-Harbor_7421!Lantern"
HEADER = "Bearer pier-7-token"
PING = b'{"pings":[{"token":"marqeta","payload":"healthcheck"}]}'
PING_SHA1 = "450c9c1f0bea4145b906cc74070e4c77f07142dc"
PING_SHA256 = "dacd92ae0fa5af17c9db29367ce80b268c055878cceba690d206742ae8c63431"

server = shared_server(chosen_databases())


def webhook(**changes: Any) -> dict[str, Any]:
    """Return the body of a new webhook. ``config__…`` sets a field of its config, and None omits a field."""
    config: dict[str, Any] = {"url": "http://127.0.0.1:9/hook", "secret": SECRET}
    config |= {"basic_auth_username": USERNAME, "basic_auth_password": PASSWORD}
    body: dict[str, Any] = {"name": "harbor", "events": ["*"], "config": config}
    for name, value in changes.items():
        (config if name.startswith("config__") else body)[name.removeprefix("config__")] = value
    return {name: value for name, value in body.items() if value is not None} | {
        "config": {name: value for name, value in config.items() if value is not None}
    }


# --- Creates, reads and updates ----------------------------------------------------------


def test_a_webhook_is_created_and_its_secrets_are_masked(client: Client) -> None:
    """A create returns the whole webhook. User name, password and secret show only their first and last character."""
    made = client.post("/webhooks", webhook(token="w1"))
    assert made.status == 201
    assert {name: made.json[name] for name in ("token", "name", "active", "events", "config")} == {
        "token": "w1",
        "name": "harbor",
        "active": True,
        "events": ["*"],
        "config": {
            "url": "http://127.0.0.1:9/hook",
            "basic_auth_username": "h**********r",
            "basic_auth_password": "H**********!",
            "secret": "Q**********n",
            "custom_header": {},
            "use_mtls": False,
        },
    }
    assert made.json["created_time"] == made.json["last_modified_time"]
    assert client.get("/webhooks/w1").json == made.json
    assert client.get("/webhooks").json["data"] == [made.json]


def test_a_program_may_show_the_secrets(client: Client) -> None:
    """Without ``mask_webhook_secrets`` the secrets are returned in clear, as on the real platform some years ago."""
    assert client.put("/sandbox/program", {"mask_webhook_secrets": False}).status == 200
    config = client.post("/webhooks", webhook()).json["config"]
    assert (config["basic_auth_username"], config["basic_auth_password"], config["secret"]) == (USERNAME, PASSWORD, SECRET)


def test_the_setting_decides_at_the_time_of_a_read(client: Client) -> None:
    """``mask_webhook_secrets`` applies to all reads of existing webhooks. It never changes their time of modification."""
    body = webhook(token="w1", config__custom_header={"X-A": "harbor-header-1"})
    masked = client.post("/webhooks", body).json
    client.post("/sandbox/clock", {"by": "1h"})
    client.put("/sandbox/program", {"mask_webhook_secrets": False})
    clear = masked | {"config": masked["config"] | body["config"]}
    reads = [client.get("/webhooks/w1").text, client.post("/webhooks", body).text, client.put("/webhooks/w1", body).text]
    reads += [client.put("/webhooks/customheaders/w1", {"custom_header": {}}).text]
    assert [json.loads(text) for text in reads] == [clear] * 4
    assert client.get("/webhooks").json["data"] == [clear]
    client.put("/sandbox/program", {"mask_webhook_secrets": True})
    assert client.get("/webhooks/w1").json == client.get("/webhooks").json["data"][0] == masked


def test_the_same_request_makes_one_webhook(client: Client) -> None:
    """The same token and body return the same webhook. Another body is a conflict."""
    made = client.post("/webhooks", webhook(token="w1"))
    again = client.post("/webhooks", webhook(token="w1"))
    other = client.post("/webhooks", webhook(token="w1", name="other"))
    assert (again.status, again.json) == (201, made.json)
    assert (other.status, other.json["error_code"]) == (409, "409002")
    assert client.get("/webhooks").json["count"] == 1


def test_an_update_replaces_all(client: Client) -> None:
    """A PUT resets absent fields to their defaults. Name, events and config are required."""
    client.post("/webhooks", webhook(token="w1", active=False, config__custom_header={"X-A": "1"}))
    changed = client.put("/webhooks/w1", webhook(name="bay", events=["transaction.*"], config__secret=None))
    assert changed.status == 200
    assert (changed.json["name"], changed.json["events"], changed.json["active"]) == ("bay", ["transaction.*"], True)
    assert "secret" not in changed.json["config"]
    assert changed.json["config"]["custom_header"] == {}
    for missing in ("name", "events", "config"):
        body = webhook()
        del body[missing]
        refused = client.put("/webhooks/w1", body)
        assert (refused.status, refused.json["error_code"]) == (400, "400001")
        assert missing in refused.json["error_message"]
    assert client.get("/webhooks/w1").json == changed.json


def test_an_update_without_change_touches_nothing(client: Client) -> None:
    """An equal PUT keeps ``last_modified_time``. Another password with the same mask changes it."""
    made = client.post("/webhooks", webhook(token="w1")).json
    client.post("/sandbox/clock", {"by": "1h"})
    assert client.put("/webhooks/w1", webhook()).json == made
    changed = client.put("/webhooks/w1", webhook(config__basic_auth_password="Hidden-0ther-Password!")).json
    assert changed["config"] == made["config"]
    assert changed["last_modified_time"] > made["last_modified_time"]


def test_lists_can_leave_out_the_inactive(client: Client) -> None:
    """All webhooks are listed by default, newest first. ``active=true`` selects the active ones."""
    for token, active in (("w1", True), ("w2", False), ("w3", True)):
        client.post("/webhooks", webhook(token=token, active=active))
    tokens = [row["token"] for row in client.get("/webhooks").json["data"]]
    active_tokens = [row["token"] for row in client.get("/webhooks", query={"active": "true"}).json["data"]]
    assert (tokens, active_tokens) == (["w3", "w2", "w1"], ["w3", "w1"])


def test_at_most_five_are_active(client: Client) -> None:
    """A sixth active webhook gets 400, by POST and by PUT. Inactive ones do not count."""
    for number in range(5):
        assert client.post("/webhooks", webhook(token=f"w{number}")).status == 201
    assert client.post("/webhooks", webhook(token="w5", active=False)).status == 201
    for refused in (client.post("/webhooks", webhook()), client.put("/webhooks/w5", webhook())):
        assert (refused.status, refused.json["error_code"]) == (400, "400001")
    assert client.put("/webhooks/w0", webhook(name="still active")).status == 200
    assert client.put("/webhooks/w0", webhook(active=False)).status == 200
    assert client.put("/webhooks/w5", webhook()).status == 200


def test_a_race_for_the_last_place_has_one_winner(server: RunningServer) -> None:
    """Of eight concurrent creates of the fifth active webhook, one succeeds and seven get 400."""
    program = new_program(server)
    clients = [client_of(server, program) for _ in range(8)]
    for _ in range(4):
        assert clients[0].post("/webhooks", webhook()).status == 201
    with ThreadPoolExecutor(8) as threads:
        statuses = sorted(threads.map(lambda client: client.post("/webhooks", webhook()).status, clients))
    assert statuses == [201] + [400] * 7
    for client in clients:
        client.close()


def test_custom_headers_are_added_and_overwritten(client: Client) -> None:
    """PUT customheaders keeps the other headers and the secrets. A fourth header gets 400."""
    client.post("/webhooks", webhook(token="w1", config__custom_header={"X-A": "1", "X-B": "2"}))
    changed = client.put("/webhooks/customheaders/w1", {"custom_header": {"X-B": "3", "X-C": "4"}})
    assert (changed.status, changed.json["config"]["custom_header"]) == (200, {"X-A": "1", "X-B": "3", "X-C": "4"})
    assert changed.json["config"]["secret"] == "Q**********n"
    assert client.put("/webhooks/customheaders/w1", {"custom_header": {"X-D": "5"}}).status == 400
    assert client.put("/webhooks/customheaders/none", {"custom_header": {}}).status == 404


def test_headers_added_at_once_are_all_kept(server: RunningServer) -> None:
    """Concurrent PUTs of three clients keep all three headers, in each of ten rounds."""
    program = new_program(server)
    clients = [client_of(server, program) for _ in range(3)]

    def add(token: str, number: int) -> int:
        return clients[number].put(f"/webhooks/customheaders/{token}", {"custom_header": {f"X-{number}": "1"}}).status

    with ThreadPoolExecutor(3) as threads:
        for _ in range(10):
            token = clients[0].post("/webhooks", webhook(active=False)).json["token"]
            assert set(threads.map(add, [token] * 3, range(3))) == {200}
            assert clients[0].get(f"/webhooks/{token}").json["config"]["custom_header"] == {"X-0": "1", "X-1": "1", "X-2": "1"}
    for client in clients:
        client.close()


def test_unknown_webhooks_are_not_found(client: Client, server: RunningServer) -> None:
    """A webhook of another program gets 404 for every verb, and the error contains nothing of it."""
    with client_of(server, new_program(server)) as other:
        other.post("/webhooks", webhook(token="theirs", name="theirs alone", active=False))
    requests = [
        ("GET", "/webhooks/theirs", None),
        ("PUT", "/webhooks/theirs", webhook()),
        ("PUT", "/webhooks/customheaders/theirs", {"custom_header": {}}),
        ("POST", "/webhooks/theirs/ping", {}),
        ("POST", "/webhooks/theirs/transaction/t1", {}),
    ]
    for verb, path, body in requests:
        reply = client.request(verb, path, body)
        assert (reply.status, reply.json["error_code"]) == (404, "404012"), (verb, path)
        assert "theirs alone" not in reply.text


# --- Refused input -----------------------------------------------------------------------

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("config.url", {"config__url": "ftp://example.com/"}),
    ("config.url", {"config__url": "http://169.254.169.254/latest/meta-data"}),
    ("config.url", {"config__url": "https://user:pass@example.com/"}),
    ("config.url", {"config__url": "https://example.com/" + "x" * 236}),
    ("config.url", {"config__url": "hook"}),
    ("config.basic_auth_username", {"config__basic_auth_username": "a:b"}),
    ("config.basic_auth_username", {"config__basic_auth_username": "a\r\nX-Evil: 1"}),
    ("config.basic_auth_username", {"config__basic_auth_username": "x" * 51}),
    ("config.basic_auth_password", {"config__basic_auth_password": "H**********!"}),
    ("config.basic_auth_password", {"config__basic_auth_password": "harb0r-hook-passw0rd!"}),
    ("config.secret", {"config__secret": "Quiet-Harbor_seven!Lantern"}),
    ("config.signature_algorithm", {"config__signature_algorithm": "HMAC_MD5"}),
    ("config.custom_header", {"config__custom_header": {"A": "1", "B": "2", "C": "3", "D": "4"}}),
    ("config.custom_header", {"config__custom_header": {"A": "x" * 501}}),
    ("config.custom_header", {"config__custom_header": {"A": "1\r\nB: 2"}}),
    ("config.custom_header", {"config__custom_header": {"A B": "1"}}),
    ("config.custom_header", {"config__custom_header": {"": "1"}}),
    ("config.custom_header", {"config__custom_header": {"X-A": "1", "x-a": "2"}}),
    ("config.custom_header", {"config__custom_header": {"authorization": "Basic eDp5"}}),
    ("config.custom_header", {"config__custom_header": {"Content-Type": "text/plain"}}),
    ("config.custom_header", {"config__custom_header": {"HOST": "example.com"}}),
    ("config.custom_header", {"config__custom_header": {"Content-Length": "0"}}),
    ("config.custom_header", {"config__custom_header": {"X-Marqeta-Signature": "0"}}),
    ("config.use_mtls", {"config__use_mtls": True}),
    ("name", {"name": "x" * 65}),
    ("events", {"events": []}),
    ("events", {"events": ["cardtransition.fulfillment.*"]}),
    ("events", {"events": ["*.activated"]}),
    ("events", {"events": [".*"]}),
    ("events", {"events": ["transaction.auth*"]}),
]


@pytest.mark.parametrize(("field", "changes"), REFUSED, ids=[f"{field}-{number}" for number, (field, _) in enumerate(REFUSED)])
def test_a_bad_field_is_refused_by_name(client: Client, field: str, changes: dict[str, Any]) -> None:
    """An invalid field gets 400 with a message that names it and quotes no secret. No webhook is created."""
    reply = client.post("/webhooks", webhook(**changes))
    assert (reply.status, reply.json["error_code"][:3]) == (400, "400")
    assert field in reply.json["error_message"]
    assert str(changes.get("config__basic_auth_password", changes.get("config__secret", "no secret"))) not in reply.text
    assert client.get("/webhooks").json["count"] == 0


def config_body(**changes: Any) -> ConfigBody:
    fields = {"url": "https://hooks.example.com/", "basic_auth_username": USERNAME, "basic_auth_password": PASSWORD}
    return ConfigBody(**{**fields, **changes})


@pytest.mark.parametrize("url", ["http://hooks.example.com/", "https://10.0.0.1/", "https://localhost/", "https://[::1]/"])
def test_production_wants_https_to_public_addresses(url: str) -> None:
    """Production refuses http and private addresses, so that callers cannot reach the server's network. A sandbox does not."""
    check_config(config_body(url=url), OutgoingPolicy.sandbox())
    with pytest.raises(Problem, match=r"config\.url"):
        check_config(config_body(url=url), OutgoingPolicy.production())


@pytest.mark.parametrize("event", ["*", "transaction.*", "cardtransition.fulfillment.issued", "future.*", "future.event"])
def test_patterns_and_unknown_names_are_accepted(event: str) -> None:
    """A subscription may be ``*``, a pattern or a name, even if no event has the name yet."""
    check_events((event,))


@pytest.mark.parametrize("symbol", "@#$%!^&*()\\_+~-=[]{},;:'\"./<>?`")
def test_every_symbol_of_the_list_counts(symbol: str) -> None:
    """A password with any listed symbol is accepted."""
    check_secret("password", "Abcdefghij0123456789" + symbol)


@pytest.mark.parametrize("secret", ["Abcdefghij0123456789", "Abcdefghij01234567 -", "Abcdefghij0123456-é", "Abcdefghij0123456-|"])
def test_secrets_of_other_characters_are_refused(secret: str) -> None:
    """A password without a listed symbol, with a blank or outside ASCII is refused, and the error does not quote it."""
    with pytest.raises(Problem) as refused:
        check_secret("password", secret)
    assert secret not in str(refused.value)


@pytest.mark.parametrize(("secret", "masked"), [("quiet7", "q**********7"), ("ab", "a**********b"), ("x", "x**********x")])
def test_masks_have_twelve_characters(secret: str, masked: str) -> None:
    """A mask always has twelve characters, and only the first and the last are those of the secret."""
    assert (mask_secret(secret), len(masked)) == (masked, 12)


# --- Secrets at rest ---------------------------------------------------------------------


def test_no_secret_lies_in_the_database(tmp_path: Path) -> None:
    """Neither the database files nor the server's output contain the secrets of a webhook."""
    with RunningServer(db=migrated_file(tmp_path / "cardwright.db")) as server, server.client() as client:
        client.put("/sandbox/program", {"mask_webhook_secrets": False})
        made = client.post("/webhooks", webhook(config__custom_header={"X-Pier": HEADER}))
        assert (made.status, made.json["config"]["custom_header"]) == (201, {"X-Pier": HEADER})
        client.post("/webhooks/none/ping", {})
        files = b"".join(file.read_bytes() for file in tmp_path.glob("cardwright.db*"))
        assert b"harbor" in files
        for secret in (USERNAME, PASSWORD, SECRET, HEADER):
            assert secret.encode() not in files
            assert secret not in server.output()


# --- Pings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "signature"), [(None, PING_SHA1), ("HMAC_SHA_1", PING_SHA1), ("HMAC_SHA_256", PING_SHA256)]
)
def test_a_ping_carries_credentials_and_signature(client: Client, algorithm: str | None, signature: str) -> None:
    """A ping has the body, signature and Authorization header of the reference's test vector."""
    with a_receiver() as receiver:
        made = client.post("/webhooks", webhook(config__url=receiver.url, config__signature_algorithm=algorithm)).json
        assert made["config"].get("signature_algorithm") == algorithm
        assert client.post(f"/webhooks/{made['token']}/ping", {}).status == 200
    assert receiver.bodies == [PING]
    assert receiver.headers[0]["X-Marqeta-Signature"] == signature
    pair = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    assert receiver.headers[0]["Authorization"] == f"Basic {pair}"
    assert receiver.headers[0]["Content-Type"] == "application/json"


@pytest.mark.parametrize("status", [200, 202, 404, 500])
@pytest.mark.parametrize("active", [True, False])
def test_a_ping_echoes_the_answer(client: Client, status: int, active: bool) -> None:
    """A ping returns status and body of the endpoint unchanged, even for an inactive webhook."""
    with a_receiver(answers=[status], says=b'{"pong": 1.50}') as receiver:
        client.post("/webhooks", webhook(token="w1", config__url=receiver.url, active=active))
        echo = client.post("/webhooks/w1/ping", {})
    assert (echo.status, echo.text) == (status, '{"pong": 1.50}')


def test_a_ping_needs_no_body(client: Client) -> None:
    """A ping may have no body."""
    with a_receiver() as receiver:
        client.post("/webhooks", webhook(token="w1", config__url=receiver.url))
        assert client.post("/webhooks/w1/ping").status == 200


def test_a_ping_without_answer_fails(client: Client) -> None:
    """A ping of an endpoint without a listener gets 422 with the code of the reference and a reason."""
    client.post("/webhooks", webhook(token="w1"))
    reply = client.post("/webhooks/w1/ping", {})
    assert (reply.status, reply.json["error_code"]) == (422, "422600")
    assert reply.json["error_message"] == "Webhook operation failed connection refused"


def test_a_ping_waits_five_seconds(client: Client) -> None:
    """A ping of an endpoint that does not answer gets 422 after five seconds, and the error names the time limit."""
    with a_receiver(holds=True) as receiver:
        client.post("/webhooks", webhook(token="w1", config__url=receiver.url))
        began = time.monotonic()
        reply = client.post("/webhooks/w1/ping", {})
    assert (reply.status, reply.json["error_code"]) == (422, "422600")
    assert reply.json["error_message"] == "Webhook operation failed no answer within 5000 ms"
    assert time.monotonic() - began >= 4.9


def test_headers_are_sent(client: Client) -> None:
    """Custom headers are sent with pings and deliveries."""
    with a_receiver() as receiver:
        client.post("/webhooks", webhook(token="w1", config__url=receiver.url, config__custom_header={"X-Pier": "7"}))
        client.post("/webhooks/w1/ping", {})
        client.post("/users", {"token": "ana"})
        until(lambda: len(receiver.bodies) == 2)
    assert [headers["X-Pier"] for headers in receiver.headers] == ["7", "7"]


# --- Events and resends ------------------------------------------------------------------


def a_purchase(client: Client, **fields: Any) -> dict[str, Any]:
    """Create an active card, spend 10.00 with it, and return the transaction."""
    client.post("/fundingsources/program", {"token": "source", "name": "bank"})
    funding = {"program_funding_source": {"enabled": True, "funding_source_token": "source", "refunds_destination": "GPA"}}
    config = {"jit_funding": funding, "card_life_cycle": {"activate_upon_issue": True}}
    client.post("/cardproducts", {"token": "product", "name": "card", "start_date": "2025-01-01", "config": config})
    client.post("/users", {"token": "ana"})
    assert client.post("/cards", {"token": "card", "user_token": "ana", "card_product_token": "product"}).status == 201
    made = client.post("/simulate/authorization", {"card_token": "card", "amount": 10, "mid": "m1", **fields})
    assert made.status == 201, made.text
    transaction: dict[str, Any] = made.json["transaction"]
    return transaction


def test_events_reach_who_subscribed_to_them(client: Client) -> None:
    """A webhook gets each matching event once, in the array of its category, signed with the webhook's secret."""
    with a_receiver() as everything, a_receiver() as purchases, a_receiver() as cards, a_receiver() as nothing:
        client.post("/webhooks", webhook(config__url=everything.url, events=["*", "transaction.*"]))
        client.post("/webhooks", webhook(config__url=purchases.url, events=["transaction.authorization"], config__secret=None))
        client.post("/webhooks", webhook(config__url=cards.url, events=["cardtransition.*"]))
        events = ["transaction.refund", "Transaction.*", "usertransition"]
        client.post("/webhooks", webhook(config__url=nothing.url, events=events))
        transaction = a_purchase(client)
        until(lambda: len(purchases.bodies) == 1 and len(cards.bodies) == 2 and len(everything.bodies) == 4)
        assert purchases.json() == [{"transactions": [transaction]}]
        assert sorted(body["cards"][0]["type"] for body in cards.json()) == ["fulfillment.issued", "state.activated"]
        kinds = sorted(next(iter(body)) for body in everything.json())
        assert kinds == ["cards", "cards", "transactions", "usertransitions"]
        assert nothing.bodies == []
    for body, headers in zip(everything.bodies, everything.headers, strict=True):
        assert headers["X-Marqeta-Signature"] == hmac.new(SECRET.encode(), body, "sha1").hexdigest()
    assert "X-Marqeta-Signature" not in purchases.headers[0]


def test_the_names_of_deposit_events_have_two_spellings(client: Client) -> None:
    """Subscriptions to deposit events accept singular and plural, because public material does not show the spelling."""
    with a_receiver() as singular, a_receiver() as plural, a_receiver() as nothing:
        for receiver, events in (
            (singular, ["directdepositaccounttransition.active", "directdeposittransition.*"]),
            (plural, ["directdepositaccounttransitions.active", "directdeposittransitions.*"]),
            (nothing, ["usertransitions.*", "DirectDepositTransitions.*", "directdeposittransitions"]),
        ):
            made = client.post("/webhooks", webhook(config__url=receiver.url, events=events))
            assert made.json["events"] == events
        client.post("/users", {"token": "ana"})
        number = client.post("/depositaccounts", {"user_token": "ana"}).json["account_number"]
        body = {"account_number": number, "amount": 1, "settlement_date": "2999-01-01"}
        assert client.post("/simulations/directdeposits/credit", body).status == 201
        until(lambda: len(singular.bodies) == len(plural.bodies) == 2)
        arrays = ["directdepositaccounttransitions", "directdeposittransitions"]
        assert sorted(key for body in plural.json() for key in body) == arrays
        assert sorted(plural.bodies) == sorted(singular.bodies)
        assert nothing.bodies == []


def test_a_webhook_that_is_switched_off_hears_nothing(client: Client) -> None:
    """A webhook gets no event after the PUT that deactivates it, and events again after the PUT that activates it."""
    with a_receiver() as receiver:
        client.post("/webhooks", webhook(token="w1", config__url=receiver.url, events=["transaction.*"]))
        a_purchase(client)
        until(lambda: len(receiver.bodies) == 1)
        client.put("/webhooks/w1", webhook(config__url=receiver.url, events=["transaction.*"], active=False))
        client.post("/simulate/authorization", {"card_token": "card", "amount": 11, "mid": "m1"})
        client.put("/webhooks/w1", webhook(config__url=receiver.url, events=["transaction.*"]))
        client.post("/simulate/authorization", {"card_token": "card", "amount": 12, "mid": "m1"})
        until(lambda: len(receiver.bodies) == 2)
        assert [body["transactions"][0]["amount"] for body in receiver.json()] == [10, 12]


def test_an_event_is_resent(client: Client) -> None:
    """A transaction, a card transition or a user transition is posted again, and the answer is the posted body."""
    with a_receiver() as receiver:
        client.post("/webhooks", webhook(token="w1", config__url=receiver.url, events=["nothing.at.all"]))
        transaction = a_purchase(client)
        card = client.get("/cardtransitions/card/card").json["data"][0]
        user = client.get("/usertransitions/user/ana").json["data"][0]
        arrays = {"transaction": "transactions", "cardtransition": "cards", "usertransition": "usertransitions"}
        things = (transaction, card, user)
        for number, ((base, array), thing) in enumerate(zip(arrays.items(), things, strict=True), 1):
            reply = client.post(f"/webhooks/w1/{base}/{thing['token']}")
            assert (reply.status, list(reply.json)) == (200, [array])
            assert reply.json[array][0]["token"] == thing["token"]
            assert len(receiver.bodies) == number
            assert receiver.bodies[-1] == reply.text.encode()
            assert "X-Marqeta-Signature" in receiver.headers[-1]


def test_a_resend_that_cannot_be_done_is_told(client: Client) -> None:
    """A resend of an unknown type gets 400, that of an unknown event 404, and one to a failing endpoint 422."""
    with a_receiver(answers=[500]) as receiver:
        client.post("/webhooks", webhook(token="w1", config__url=receiver.url, events=["nothing.at.all"]))
        client.post("/users", {"token": "ana"})
        user = client.get("/usertransitions/user/ana").json["data"][0]
        assert client.post("/webhooks/w1/chargebacktransition/x").status == 400
        for base in ("transaction", "cardtransition", "usertransition"):
            reply = client.post(f"/webhooks/w1/{base}/no-such-event")
            assert (reply.status, reply.json["error_code"]) == (404, "404013")
        assert receiver.bodies == []
        reply = client.post(f"/webhooks/w1/usertransition/{user['token']}")
        assert (reply.status, reply.json["error_code"]) == (422, "422600")
