"""Object graph: one object of every kind in a program, made from the examples of the OpenAPI document, and its routes."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from cardwright.edges.http.examples import BODIES, FEE, HERE, NUMBER, PURCHASE, TOKENS
from cardwright.edges.http.openapi import full_path
from cardwright.resources.catalog import ROUTES
from cardwright.resources.common.route import Route
from tests.support.server import Client, Reply
from tests.support.waiting import until

Place = tuple[str, str]
"""Verb and full path of a route."""

DEPOSIT = "token-of-the-deposit"
"""Placeholder for the token of a new direct deposit."""

AMPLE: dict[str, Any] = {"amount_limit": 9_000_000, "velocity_window": "DAY", "currency_code": "USD"}

TRANSITION = ("POST", "/v3/directdeposits/transitions")

_PRODUCT = BODIES["POST", "/v3/cardproducts"]

OTHER_BODIES: dict[Place, Any] = {
    ("POST", "/v3/cardproducts"): {**_PRODUCT, "config": {
        **_PRODUCT["config"], "poi": {"ecommerce": True, "atm": True}, "transaction_controls": {"allow_quasi_cash": True},
    }},
    ("POST", "/v3/velocitycontrols"): {"token": "daily", "name": "Daily", "association": {"user_token": "ana"}, **AMPLE},
    ("PUT", "/v3/velocitycontrols/{token}"): {"name": "Every day"},
    ("POST", "/sandbox/shadow-controls"): {"token": "quiet", "name": "Quiet", **AMPLE},
    ("POST", "/sandbox/backtests"): {
        "token": "tried", "name": "Tried",
        "velocity_controls": {"change": [{"token": "daily", "amount_limit": 10}], "add": [{"token": "new", **AMPLE}]},
        "auth_controls": {
            "change": [{"token": "no_betting", "active": True}], "add": [{"name": "No bars", "merchant_scope": {"mcc": "5813"}}],
        },
        "exempt_mids": {"add": [{"name": "The races", "mid": "000123"}]},
    },
    TRANSITION: {**BODIES[TRANSITION], "direct_deposit_token": DEPOSIT},
}  # fmt: skip
"""Bodies instead of the document's examples, whose controls would decline most purchases of the object graph."""

EXAMPLES: dict[Place, Any] = {**BODIES, **OTHER_BODIES}

WATCHED = "/sandbox/backtests"
"""The route of objects that run in the background: they change until their state is DONE."""

IN_THE_SANDBOX = (WATCHED, "/sandbox/shadow-controls")
"""Sandbox routes whose objects are part of the graph."""

UNDONE: dict[Place, dict[str, Any]] = {
    ("POST", "/v3/cardtransitions"): {"card_token": "anas_card", "state": "ACTIVE", "channel": "API"},
    ("POST", "/v3/usertransitions"): {"user_token": "ana", "status": "ACTIVE", "reason_code": "00", "channel": "API"},
}
"""Routes that disable an object of the graph, and the body with which the same route enables it again."""

COMPLETES = {("POST", "/v3/simulate/financial/advice"): "/v3/simulate/financial"}
"""Routes that follow a pre-authorization instead of any purchase, and the route that makes it."""

FRUITLESS = {"/v3/fundingsources/user/{user_token}": ("ana",)}
"""Paths without an object, because no route creates such objects yet, and values for their parameters."""

SHOWN = frozenset({
    "name",
    "first_name",
    "last_name",
    "city",
    "payload",
    "favourite",
    "colour",
    "reason",
})  # fmt: skip
"""Fields whose text gets the mark of the program, so that the texts of two programs differ."""

TELLTALE = re.compile(r"(^|_)token$|^barcode$|^phone$|^pan$|^identifier$|^account_number$")
"""Names of fields whose values may identify an object."""

WORDS = ("transaction", "cardtransition", "usertransition", TOKENS["box"], TOKENS["phone_number"], "gpa")
"""Further values of path parameters."""


def place_of(route: Route) -> Place:
    """Return the key of a route in the tables above."""
    return route.verb, full_path(route)


ALL: dict[Place, Route] = {place_of(route): route for route in ROUTES}


def names_in(path: str) -> list[str]:
    """Return the parameters of a path."""
    return re.findall(r"\{(\w+)\}", path)


def filled(path: str, values: Sequence[str]) -> str:
    """Return a path with values for its parameters."""
    for name, value in zip(names_in(path), values, strict=True):
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    return path


_EVENTS = "/v3/simulations/cardtransactions"
_FOLLOWING = ("advice", "clearing", "incremental", "reversal")


def _begun_by(event: str) -> str:
    """Return the first event of the chain that an event follows: its name without the words in ``_FOLLOWING``."""
    return ".".join(word for word in event.split(".") if word not in _FOLLOWING)


FOLLOWS = COMPLETES | {
    (verb, path): _begun_by(path) for (verb, path), body in BODIES.items() if path.startswith(_EVENTS) and PURCHASE in str(body)
}
"""Routes that follow a message other than a v1 authorization, and the route that makes that message."""


@dataclass
class ObjectGraph:
    """A program with one object of every kind. ``prefix`` begins every token that a client chooses."""

    client: Client
    root_url: str
    program: str
    mark: str
    prefix: str = ""
    lookup_values: dict[str, None] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    purchase: str = ""
    fee: str = ""
    deposit: str = ""
    refused_bodies: dict[Place, Any] = field(default_factory=dict)
    token_by_path: dict[str, str] = field(default_factory=dict)

    def make(self) -> None:
        """Create all objects, and a second user as recipient of transfers."""
        self.learn(self.client.post("/v3/users", self._dressed({"token": "ben"})).json)
        for place in EXAMPLES:
            is_made = not place[1].startswith("/sandbox") or place[1] in IN_THE_SANDBOX
            if place[0] == "POST" and is_made and not names_in(place[1]):
                made = self.send(place)
                if place[1] == WATCHED:
                    self.wait_for(f"{WATCHED}/{made.json['token']}")
        self.learn(self.client.get(f"/v3/cards/{self.words['card_token']}/showpan").json)
        # Last, because credentials survive a reset: a seeded run then draws other tokens from here on.
        self.send(("POST", "/sandbox/credentials"))

    def wait_for(self, path: str) -> None:
        """Wait until the state of an object is DONE."""
        until(lambda: self.client.get(path).json["state"] == "DONE")

    def send(self, place: Place, path: str | None = None) -> Reply:
        """Send the example of a route, and learn the tokens of its answer."""
        reply = self.client.request(place[0], path or place[1], self.body_of(place))
        assert reply.status < 500, (place, reply.text)
        if reply.status < 300:
            self.learn(reply.json)
            if isinstance(reply.json, dict) and "token" in reply.json:
                self.token_by_path[place[1]] = reply.json["token"]
            self.undo(place)
        return reply

    def undo(self, place: Place) -> None:
        """Enable the object again that the route has disabled."""
        if place in UNDONE:
            undone = self.client.request(*place, self._dressed(UNDONE[place]))
            assert undone.status < 300, undone.text

    def body_of(self, place: Place) -> Any:
        """Return the route's example with the tokens of this program, after a new purchase if the example needs one."""
        example = EXAMPLES.get(place)
        if PURCHASE in str(example):
            path = FOLLOWS.get(place, "/v3/simulate/authorization")
            fields = {"is_pre_auth": True} if place in COMPLETES else {}
            bought = self.client.post(path, self._dressed({**EXAMPLES["POST", path], **fields}))
            assert bought.status == 201, bought.text
            self.purchase = bought.json["transaction"]["token"]
            self.learn(bought.json)
        if FEE in str(example):
            self.fee = self.charged()
        if DEPOSIT in str(example):
            self.deposit = self.announced()
        return self._dressed(example)

    def reusable_body_of(self, place: Place) -> Any:
        """Return the body of the route's last request if that was refused, else a new body.

        A refusal does not change the purchase that a body names, so the next request needs no new purchase.
        """
        return self.refused_bodies[place] if place in self.refused_bodies else self.body_of(place)

    def keep(self, place: Place, body: Any, reply: Reply) -> None:
        """Keep a refused body for the next request of the route."""
        if reply.status >= 400:
            self.refused_bodies[place] = body
        else:
            self.refused_bodies.pop(place, None)

    def charged(self) -> str:
        """Load money, charge a fee, and return the fee's transaction token."""
        for path in ("/v3/gpaorders", "/v3/feecharges"):
            body = {name: value for name, value in EXAMPLES["POST", path].items() if name != "token"}
            made = self.client.post(path, self._dressed(body))
            assert made.status == 201, made.text
        self.learn(made.json)
        return str(made.json["fees"][0]["transaction_token"])

    def announced(self) -> str:
        """Create a pending direct deposit and return its token."""
        path = "/v3/simulate/directdeposits"
        body = {name: value for name, value in EXAMPLES["POST", path].items() if name != "token"}
        made = self.client.post(path, self._dressed(body))
        assert made.status == 200, made.text
        self.learn(made.json)
        return str(made.json["token"])

    def learn(self, answer: Any) -> None:
        """Keep the values of an answer that may identify an object."""
        for name, value in named_values(answer):
            # A masked card number identifies nothing.
            if isinstance(value, str) and value and "_" not in (value if name == "pan" else ""):
                self.words[name] = value
                if TELLTALE.search(name):
                    self.lookup_values[value] = None

    def _dressed(self, value: Any, name: str = "") -> Any:
        match value:
            case dict():
                return {key: self._dressed(item, key) for key, item in value.items()}
            case list():
                return [self._dressed(item, name) for item in value]
            case str() if value == PURCHASE:
                return self.purchase
            case str() if value == FEE:
                return self.fee
            case str() if value == DEPOSIT:
                return self.deposit
            case str() if value == NUMBER:
                return self.words["account_number"]
            case str() if name == "pan":
                return self.words.get("pan", value)
            case str() if name in SHOWN:
                return f"{value} {self.mark}"
            case str() if name == "email":
                return f"{self.prefix}{self.mark}@example.com"
            case str() if name == "url":
                return value.replace(HERE, self.root_url).replace("/default/", f"/{self.program}/")
            case str() if name == "token" or name.endswith("_token"):
                return f"{self.prefix}{value}"
            case _:
                return value


def named_values(answer: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a JSON answer with the name of its field."""
    match answer:
        case dict():
            for key, value in answer.items():
                yield from named_values(value, key)
        case list():
            for value in answer:
                yield from named_values(value, name)
        case _:
            yield name, answer


def working_values(object_graph: ObjectGraph, place: Place) -> tuple[str, ...] | None:
    """Return values for the path's parameters with which the route finds an object of the graph; None if there are none.

    An empty list counts only if the route refuses an unknown token.
    """
    if place[1] in FRUITLESS:
        return FRUITLESS[place[1]]
    names = names_in(place[1])
    # The token in the answer to the path's POST is nearly always the right one.
    token = object_graph.token_by_path.get(place[1].partition("/{")[0])
    known = list(dict.fromkeys([*([token] if token else []), *TOKENS.values(), *object_graph.lookup_values, *WORDS]))
    second_best = None
    for values in itertools.product(*([TOKENS[name]] if name == "event_type" else known for name in names)):
        reply = ask(object_graph, place, values)
        assert reply.status < 500, (place, values, reply.text)
        if reply.status < 300 and not is_empty(reply):
            return values
        if reply.status < 300 and second_best is None:
            second_best = values
    is_choosy = not names or ask(object_graph, place, ["nobody"] * len(names)).status in (400, 404)
    return second_best if is_choosy else None


def ask(object_graph: ObjectGraph, place: Place, values: Sequence[str], **query: str) -> Reply:
    """Call a route with these values in its path and its example as body."""
    pairs = {**required_query(object_graph, place), **query}
    path = filled(place[1], values) + (f"?{urlencode(pairs)}" if pairs else "")
    body = object_graph.reusable_body_of(place)
    reply = object_graph.client.request(place[0], path, body)
    object_graph.keep(place, body, reply)
    if reply.status < 300:
        object_graph.learn(reply.json)
        object_graph.undo(place)
    return reply


def required_query(object_graph: ObjectGraph, place: Place) -> dict[str, str]:
    """Return the required query parameters of a route."""
    shape = ALL[place].query
    required = [parameter.name for parameter in msgspec.structs.fields(shape) if parameter.required] if shape is not None else []
    return {name: object_graph.words[name] for name in required}


def is_empty(reply: Reply) -> bool:
    """Return whether an answer is an empty list."""
    return isinstance(reply.json, dict) and reply.json.get("count") == 0
