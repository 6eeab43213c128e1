"""One object of every kind in a program, made by the examples of the API's own document, and the routes that lead to them."""

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
"""Stands for the token of a direct deposit that nothing has happened to."""

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
"""Bodies that suit an object graph: the document's examples would refuse most of its purchases."""

EXAMPLES: dict[Place, Any] = {**BODIES, **OTHER_BODIES}

WATCHED = "/sandbox/backtests"
"""What is made here goes on by itself; only when it is done does nothing change any more."""

IN_THE_SANDBOX = (WATCHED, "/sandbox/shadow-controls")
"""Objects outside of the wire's API that paths lead to."""

UNDONE: dict[Place, dict[str, Any]] = {
    ("POST", "/v3/cardtransitions"): {"card_token": "anas_card", "state": "ACTIVE", "channel": "API"},
    ("POST", "/v3/usertransitions"): {"user_token": "ana", "status": "ACTIVE", "reason_code": "00", "channel": "API"},
}
"""What hinders everything else, and the body with which the same route makes it good again."""

COMPLETES = {("POST", "/v3/simulate/financial/advice"): "/v3/simulate/financial"}
"""What follows a pre-authorization rather than any purchase, and where that is made."""

FRUITLESS = {"/v3/fundingsources/user/{user_token}": ("ana",)}
"""Paths that never find anything, because nobody can make yet what they look for, and values that are as good as any."""

SHOWN = frozenset({"name", "first_name", "last_name", "city", "payload", "favourite", "colour", "reason"})
"""Fields whose text we choose, so that one program's differs from another's."""

TELLTALE = re.compile(r"(^|_)token$|^barcode$|^phone$|^pan$|^identifier$|^account_number$")
"""Names of fields by whose values something could be asked for."""

WORDS = ("transaction", "cardtransition", "usertransition", TOKENS["box"], TOKENS["phone_number"], "gpa")
"""What else a path may ask for."""


def place_of(route: Route) -> Place:
    """The key of a route in the tables above."""
    return route.verb, full_path(route)


ALL: dict[Place, Route] = {place_of(route): route for route in ROUTES}


def names_in(path: str) -> list[str]:
    """The parameters of a path."""
    return re.findall(r"\{(\w+)\}", path)


def filled(path: str, values: Sequence[str]) -> str:
    """A path with values for its parameters."""
    for name, value in zip(names_in(path), values, strict=True):
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    return path


_EVENTS = "/v3/simulations/cardtransactions"
_FOLLOWING = ("advice", "clearing", "incremental", "reversal")


def _begun_by(event: str) -> str:
    """The event that begins what this one follows: its name without the word that says how it goes on."""
    return ".".join(word for word in event.split(".") if word not in _FOLLOWING)


FOLLOWS = COMPLETES | {
    (verb, path): _begun_by(path) for (verb, path), body in BODIES.items() if path.startswith(_EVENTS) and PURCHASE in str(body)
}
"""What follows something else than a purchase of the older kind, and where that is made."""


@dataclass
class ObjectGraph:
    """A program with something of everything in it. ``prefix`` stands before every token that a client chooses."""

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
        """Makes everything, and somebody to send money to."""
        self.learn(self.client.post("/v3/users", self._dressed({"token": "ben"})).json)
        for place in EXAMPLES:
            is_made = not place[1].startswith("/sandbox") or place[1] in IN_THE_SANDBOX
            if place[0] == "POST" and is_made and not names_in(place[1]):
                made = self.send(place)
                if place[1] == WATCHED:
                    self.wait_for(f"{WATCHED}/{made.json['token']}")
        self.learn(self.client.get(f"/v3/cards/{self.words['card_token']}/showpan").json)

    def wait_for(self, path: str) -> None:
        """Waits until what goes on by itself is done."""
        until(lambda: self.client.get(path).json["state"] == "DONE")

    def send(self, place: Place, path: str | None = None) -> Reply:
        """Sends the example of a route; what it answers is a source of further tokens."""
        reply = self.client.request(place[0], path or place[1], self.body_of(place))
        assert reply.status < 500, (place, reply.text)
        if reply.status < 300:
            self.learn(reply.json)
            if isinstance(reply.json, dict) and "token" in reply.json:
                self.token_by_path[place[1]] = reply.json["token"]
            self.undo(place)
        return reply

    def undo(self, place: Place) -> None:
        """Makes good what this route has done."""
        if place in UNDONE:
            undone = self.client.request(*place, self._dressed(UNDONE[place]))
            assert undone.status < 300, undone.text

    def body_of(self, place: Place) -> Any:
        """The route's example in this program's words, after a purchase when it needs one."""
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
        """The body of the route's last request if that was refused, else a new one; see ``keep``.

        A refusal leaves the purchase that a body names as it was, so the next request needs no new purchase.
        """
        return self.refused_bodies[place] if place in self.refused_bodies else self.body_of(place)

    def keep(self, place: Place, body: Any, reply: Reply) -> None:
        """Keeps a body that was refused for the next request of the route."""
        if reply.status >= 400:
            self.refused_bodies[place] = body
        else:
            self.refused_bodies.pop(place, None)

    def charged(self) -> str:
        """The transaction of a fee that was just charged, with money that was just loaded for it."""
        for path in ("/v3/gpaorders", "/v3/feecharges"):
            body = {name: value for name, value in EXAMPLES["POST", path].items() if name != "token"}
            made = self.client.post(path, self._dressed(body))
            assert made.status == 201, made.text
        self.learn(made.json)
        return str(made.json["fees"][0]["transaction_token"])

    def announced(self) -> str:
        """A direct deposit that waits for its day."""
        path = "/v3/simulate/directdeposits"
        body = {name: value for name, value in EXAMPLES["POST", path].items() if name != "token"}
        made = self.client.post(path, self._dressed(body))
        assert made.status == 200, made.text
        self.learn(made.json)
        return str(made.json["token"])

    def learn(self, answer: Any) -> None:
        """Remembers the values in an answer by which something could be asked for."""
        for name, value in named_values(answer):
            # A masked number leads nowhere.
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
    """Every value in a JSON answer with the name of its field."""
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
    """Values for the path's parameters with which the route finds something of the object graph's; None when there are none.

    An empty list is something too where a token that nobody has is not found.
    """
    if place[1] in FRUITLESS:
        return FRUITLESS[place[1]]
    names = names_in(place[1])
    # The token that the path's own POST answered is nearly always the right one.
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
    """Calls a route with these values in its path, with its example as body."""
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
    """What the route's query must have."""
    shape = ALL[place].query
    required = [parameter.name for parameter in msgspec.structs.fields(shape) if parameter.required] if shape is not None else []
    return {name: object_graph.words[name] for name in required}


def is_empty(reply: Reply) -> bool:
    """Whether an answer is a list without entries."""
    return isinstance(reply.json, dict) and reply.json.get("count") == 0
