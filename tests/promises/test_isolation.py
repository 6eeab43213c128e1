"""Programs stay apart (P9): a credential neither reads nor changes another program's objects, on any route."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from cardwright.edges.http.examples import BODIES
from cardwright.resources.catalog import ROUTES
from cardwright.resources.route import Route, Scope
from tests.support.server import Client, RunningServer

OURS, THEIRS = "kestrel", "walrus"
"""Words that mark everything that belongs to one program or the other."""

TOKENS = {
    "funding_source_token": "source", "user_token": "user", "card_token": "card", "parent_token": "user", "barcode": "barcode",
    "box": "box", "phone_number": "phone", "event_type": "transaction",
}  # fmt: skip
"""What a path parameter of another name than ``token`` asks for."""

KIND_BY_PATH = (
    ("/fundingsources", "source"), ("/cardproducts", "product"), ("/usertransitions", "usertransition"), ("/users", "user"),
    ("/cardtransitions", "cardtransition"), ("/cards", "card"), ("/balances", "user"), ("/transactions", "transaction"),
    ("/webhooks", "webhook"), ("/velocitycontrols", "control"), ("/decisions", "transaction"),
)  # fmt: skip


@dataclass
class Program:
    """One program: its client, and the tokens of its objects by kind."""

    client: Client
    word: str
    tokens: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server with both programs on it."""
    with RunningServer(db=str(tmp_path_factory.mktemp("isolation") / "x.db")) as running:
        yield running


@pytest.fixture(scope="module")
def programs(server: RunningServer) -> tuple[Program, Program]:
    """Two programs whose objects have equal tokens and different contents."""
    made = []
    for word in (OURS, THEIRS):
        answer = server.client().post("/sandbox/programs", {"token": word, "name": word}).json
        client = Client(server.root_url, answer["application_token"], answer["access_token"])
        made.append(populated(Program(client, word)))
    return made[0], made[1]


def populated(program: Program) -> Program:
    """One object of every kind, marked with the program's word."""
    post, word = program.client.post, program.word
    change = {"token": "same", "reason_code": "00", "reason": word, "channel": "API"}
    window = {"velocity_window": "DAY", "currency_code": "USD"}
    jit = {"program_funding_source": {"enabled": True, "funding_source_token": "same"}}
    config = {"card_life_cycle": {"activate_upon_issue": True}, "jit_funding": jit}
    phone = {OURS: "+15100000001", THEIRS: "+15100000002"}[word]
    hook = {
        "url": f"https://{word}.example/hook", "basic_auth_username": word, "basic_auth_password": "Very-Long-Passw0rd-1!",
    }  # fmt: skip
    steps: list[tuple[str, str, dict[str, Any]]] = [
        ("source", "/fundingsources/program", {"token": "same", "name": word}),
        ("product", "/cardproducts", {"token": "same", "name": word, "start_date": "2025-01-01", "config": config}),
        ("user", "/users", {"token": "same", "first_name": word, "phone": phone, "metadata": {"word": word}}),
        ("card", "/cards", {"token": "same", "user_token": "same", "card_product_token": "same", "metadata": {"word": word}}),
        ("usertransition", "/usertransitions", {**change, "user_token": "same", "status": "ACTIVE"}),
        ("cardtransition", "/cardtransitions", {**change, "card_token": "same", "state": "ACTIVE"}),
        ("control", "/velocitycontrols", {"token": "same", "name": word, "amount_limit": 900, **window}),
        ("webhook", "/webhooks", {"token": "same", "name": word, "events": ["none.*"], "config": hook}),
    ]
    for kind, path, body in steps:
        reply = post(path, body)
        assert reply.status == 201, (path, reply.text)
        program.tokens[kind] = reply.json["token"]
        if kind == "card":
            program.tokens["barcode"] = reply.json["barcode"]
    options = {"transaction_options": {"additional_data": word}}
    bought = post("/simulate/authorization", {"card_token": "same", "amount": 10, "mid": word, **options})
    assert bought.json["transaction"]["state"] == "PENDING"
    program.tokens |= {"transaction": bought.json["transaction"]["token"], "phone": phone, "box": "same"}
    return program


def path_of(route: Route, tokens: dict[str, str]) -> str:
    """The route's path with tokens in it."""
    kind = next((kind for prefix, kind in KIND_BY_PATH if route.path.startswith(prefix)), "user")
    filled = route.path
    for name in [part[1:-1] for part in route.path.split("/") if part.startswith("{")]:
        wanted = kind if name == "token" else "transaction" if name == "event_token" else TOKENS[name]
        filled = filled.replace(f"{{{name}}}", tokens.get(wanted, wanted))
    return prefix_of(route) + filled


def prefix_of(route: Route) -> str:
    """``/sandbox`` or nothing, as the test client wants it."""
    return "/sandbox" if route.scope in (Scope.SANDBOX, Scope.SANDBOX_ONLY) else ""


def call(program: Program, route: Route, tokens: dict[str, str]) -> Any:
    """Calls a route with these tokens."""
    path = path_of(route, tokens)
    if route.path == "/cards":
        path += "?last_four=0000" if route.verb == "GET" else ""
    body = dict(BODIES.get((route.verb, f"/v3{route.path}"), {})) if route.body is not None else None
    if body and "original_transaction_token" in body:
        body["original_transaction_token"] = tokens["transaction"]
    return program.client.request(route.verb, path, body)


READS = [route for route in ROUTES if route.verb == "GET"]
BY_OWN_TOKEN = [route for route in ROUTES if "{" in route.path and "/inbox/" not in route.path]


@pytest.mark.parametrize("route", READS, ids=lambda route: f"{route.verb} {route.path}")
def test_equal_tokens_lead_to_ones_own_objects(programs: tuple[Program, Program], route: Route) -> None:
    """Where both programs have an object of the same token, each reads its own: no byte of the other's is in any answer."""
    for mine, other in (programs, programs[::-1]):
        reply = call(mine, route, mine.tokens)
        assert reply.status < 500, reply.text
        assert other.word not in reply.text
        assert other.tokens["transaction"] not in reply.text
        assert other.tokens["barcode"] not in reply.text


@pytest.mark.parametrize("route", BY_OWN_TOKEN, ids=lambda route: f"{route.verb} {route.path}")
def test_a_token_of_the_other_program_names_nothing(
    server: RunningServer, programs: tuple[Program, Program], route: Route
) -> None:
    """A token that only the other program has is unknown here, for reading and for changing, and the other's objects stay."""
    stranger = Program(server.client(), "default")
    before = snapshot(programs[0])
    reply = call(stranger, route, programs[0].tokens)
    assert reply.status in (200, 400, 404, 422), reply.text
    if reply.status == 200:
        assert reply.json.get("count", 0) == 0, reply.text
    for owner in programs:
        assert owner.word not in reply.text
        assert owner.tokens["barcode"] not in reply.text
    assert snapshot(programs[0]) == before


def snapshot(program: Program) -> list[str]:
    """The program's objects as it sees them itself."""
    quiet = (route for route in READS if route.path.count("{") == 1 and "showpan" not in route.path)
    return [call(program, route, program.tokens).text for route in quiet]


WRONG = {
    "missing": ("", ""),
    "swapped": ("access", "application"),
    "wrong password": ("application", "nonsense"),
    "the other program's half": ("application", "other access"),
}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.verb} {route.path}")
def test_wrong_credentials_open_nothing(server: RunningServer, route: Route) -> None:
    """Missing, wrong, swapped and mixed credentials give one and the same 401 on every route."""
    words = {name: name for name in ("", "nonsense", "other access")}
    words |= {"application": server.application_token, "access": server.access_token}
    answers = set()
    for name, password in WRONG.values():
        client = Client(server.root_url, words[name], words[password])
        reply = call(Program(client, "nobody"), route, dict.fromkeys((*TOKENS.values(), "transaction"), "same"))
        answers.add((reply.status, reply.text))
    assert answers == {(401, '{"error_code":"401001","error_message":"Invalid credential has been detected"}')}


def test_every_kind_of_object_is_among_the_tokens(programs: tuple[Program, Program]) -> None:
    """A route for a new kind of object must be covered here too: every path parameter has a token that exists."""
    names = {part[1:-1] for route in ROUTES for part in route.path.split("/") if part.startswith("{")}
    assert names <= {"token", "event_token", *TOKENS}
    covered = tuple(prefix for prefix, _ in KIND_BY_PATH)
    assert [route.path for route in ROUTES if "{token}" in route.path and not route.path.startswith(covered)] == []
