"""Bad input: whatever is sent, the answer is a 4xx that says what is wrong with which field, and nothing is stored."""

import copy
import itertools
import json
import re
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
import pytest
from msgspec import inspect

from cardwright.core.problems import TOO_LARGE
from cardwright.edges.http.examples import BODIES, PURCHASE, TOKENS
from cardwright.resources.catalog import ROUTES
from cardwright.resources.route import Route, Scope
from tests.support.server import HOST, Client, Reply, RunningServer

CONTROL = {"token": "limit", "amount_limit": 500, "velocity_window": "DAY", "currency_code": "USD"}
GOOD = {**BODIES, ("POST", "/v3/velocitycontrols"): CONTROL, ("PUT", "/v3/velocitycontrols/{token}"): {"name": "Renamed"}}
"""A body for every route that takes one; what is wrong is put into it, so that nothing else is wrong with it."""

STEPS = (
    "/v3/fundingsources/program", "/v3/cardproducts", "/v3/users", "/v3/cards", "/v3/velocitycontrols",
    "/v3/simulate/authorization", "/v3/usertransitions", "/v3/webhooks",
)  # fmt: skip
"""The bodies that make the world; the webhook comes last, so that nothing is on its way to it."""

VALID = {"network_fees[].type": "ISSUER_FEE", "network_fees[].credit_debit": "C", "webhook.endpoint": "https://example.com/"}
"""Fields that have to be good in a way which their type does not tell."""

DIGITS = "9" * 5000
SURROGATE = "a\ud800b"
NUL = "a\x00b"


class Case(NamedTuple):
    """A body with one mistake, and what the answer has to name."""

    what: str
    body: bytes
    names: str | None


class Raw(str):
    """JSON to be sent as it is."""

    __slots__ = ()


# --- The world, and what is in its file -------------------------------------------------------------------------------


@dataclass
class Door:
    """The server's door, with the objects that a path may name behind it."""

    server: RunningServer
    client: Client
    database: Path
    tokens: dict[str, str] = field(default_factory=dict)

    def path(self, route: Route) -> str:
        """The route's path with tokens of what is there."""
        return re.sub(r"{(\w+)}", lambda found: self.tokens[f"{route.path}:{found[1]}"], full_path(route))

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table, read past the server."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as db:
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: db.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}


def full_path(route: Route) -> str:
    return f"/{'sandbox' if route.scope in (Scope.SANDBOX, Scope.SANDBOX_ONLY) else 'v3'}{route.path}"


def token_of(route: Route, name: str, purchase: str) -> str:
    """A path parameter's value: the object that this part of the API is about."""
    first = route.path.split("/")[1]
    if name != "token":
        return {"user_token": "ana", "parent_token": "ana"}.get(name) or TOKENS.get(name, "unknown")
    named = {
        "cardproducts": "coffee_card", "users": "ana", "cards": "anas_card", "webhooks": "news", "balances": "ana",
        "fundingsources": "main_account", "velocitycontrols": "limit", "transactions": purchase, "decisions": purchase,
    }  # fmt: skip
    of_user = "/user/" in route.path
    return "ana" if of_user else "anas_card" if "/card/" in route.path else named.get(first, "unknown")


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A server on a SQLite file with one object of each kind."""
    database = tmp_path_factory.mktemp("bad") / "cardwright.db"
    with RunningServer(db=str(database), seed=1) as server, server.client() as client:
        purchase = ""
        for path in STEPS:
            body = copy.deepcopy(GOOD["POST", path])
            if path == "/v3/usertransitions":
                body |= {"status": "ACTIVE"}
            reply = client.post(path, body)
            assert reply.status in (201, 412), reply.text
            purchase = purchase or (reply.json["transaction"]["token"] if "simulate" in path else "")
        GOOD_PURCHASE.append(purchase)
        names = [(route, name) for route in ROUTES for name in re.findall(r"{(\w+)}", route.path)]
        yield Door(server, client, database, {f"{r.path}:{name}": token_of(r, name, purchase) for r, name in names})


GOOD_PURCHASE: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_changes(door: Door) -> Iterator[None]:
    """Every test of this file leaves every table as it was, row by row."""
    before = door.rows()
    yield
    after = door.rows()
    counts = {name: (len(rows), len(after[name])) for name, rows in before.items()}
    assert before == after, {name: count for name, count in counts.items() if before[name] != after[name]}


# --- What an answer has to be -----------------------------------------------------------------------------------------


def fault(what: str, reply: Reply, names: str | None = None, status: int | None = None) -> list[str]:
    """What is wrong with an answer to a bad request; empty when nothing is."""
    body, said = reply.json, f"{what[:150]}: {reply.status} {reply.text[:200]}"
    if not 400 <= reply.status < 500 or (status is not None and reply.status != status):
        return [f"not {status or '4xx'}: {said}"]
    if not isinstance(body, dict) or set(body) != {"error_code", "error_message"} or not body["error_message"]:
        return [f"not the wire's error: {said}"]
    if not re.fullmatch(rf"{reply.status}[0-9]{{3}}", body["error_code"]):
        return [f"not an error code: {said}"]
    told = re.sub(r"\[[^]]*\]", "[]", body["error_message"])
    return [f"does not name {names}: {said}"] if names is not None and names not in told else []


def no_faults(faults: list[str]) -> None:
    """Fails with all of them."""
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults[:60])


# --- Bodies with one mistake each -------------------------------------------------------------------------------------


def json_of(value: Any) -> bytes:
    """JSON in which a Raw stands as it is."""
    match value:
        case Raw():
            return value.encode("utf-8", "surrogatepass")
        case dict():
            return b"{" + b",".join(json.dumps(name).encode() + b":" + json_of(inner) for name, inner in value.items()) + b"}"
        case list() | tuple():
            return b"[" + b",".join(json_of(inner) for inner in value) + b"]"
        case _:
            return json.dumps(value).encode()


def kinds_of(kind: inspect.Type) -> list[inspect.Type]:
    """The types that a field takes besides null and absence."""
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return [k for k in kinds if not isinstance(k, inspect.NoneType | inspect.UnsetType)]


def filler(kind: inspect.Type, path: str) -> Any:
    """A value that a field takes."""
    if path in VALID:
        return VALID[path]
    match kinds_of(kind)[0]:
        case inspect.StructType(fields=fields):
            return {f.encode_name: filler(f.type, f"{path}.{f.encode_name}") for f in fields if f.required}
        case inspect.StrType(min_length=least):
            return "1" * (least or 1)
        case inspect.LiteralType(values=values):
            return values[0]
        case inspect.EnumType(cls=cls):
            return next(iter(cls)).value
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return [filler(item, f"{path}[]")]
        case inspect.DictType():
            return {}
        case inspect.BoolType():
            return True
        case _:
            return 1


def wrong_values(kind: inspect.Type) -> Iterator[tuple[str, Any]]:
    """Values that a field must not take."""
    kinds = kinds_of(kind)
    has = tuple(type(k) for k in kinds)
    if inspect.AnyType in has:
        return
    yield from (("object", {"a": 1}),) if not {inspect.DictType, inspect.StructType} & set(has) else ()
    yield from (("list", [1]),) if not {inspect.VarTupleType, inspect.ListType} & set(has) else ()
    if {inspect.DictType, inspect.StructType, inspect.VarTupleType, inspect.ListType} & set(has):
        yield from (("number", 5), ("string", "nonsense"), ("boolean", True))
    for k in kinds:
        yield from wrong_for(k, is_only=len(kinds) == 1)


def wrong_for(kind: inspect.Type, *, is_only: bool) -> Iterator[tuple[str, Any]]:
    match kind:
        case inspect.StrType(min_length=least, max_length=most):
            yield from (("surrogate", SURROGATE), ("NUL", NUL))
            yield from (("number", 5), ("boolean", True), ("fraction", 1.5)) if is_only else ()
            yield from (("too long", "x" * (most + 1)),) if most is not None else ()
            yield from (("too short", "x" * (least - 1)),) if least else ()
        case inspect.LiteralType() | inspect.EnumType():
            yield from (("unknown", "NO_SUCH"), ("empty", "X" * 5000), ("number", 77), ("boolean", True), ("NUL", NUL))
        case inspect.BoolType():
            yield from (("string", "maybe"), ("number", 5), ("fraction", 1.5), ("huge", Raw(DIGITS)))
        case inspect.IntType(ge=least, le=most):
            yield from (("string", "many"), ("fraction", 1.5), ("exponent", Raw("1e999999"))) if is_only else ()
            yield from (("thousands of digits", Raw(DIGITS)), ("thousands of digits, quoted", DIGITS))
            yield from (("too small", least - 1), ("far too small", -(10**30))) if least is not None else ()
            yield from (("too large", most + 1), ("far too large", 10**30)) if most is not None else ()
        case inspect.DecimalType():
            yield from (("negative", -1), ("negative text", "-0.01"), ("three decimals", 1.005), ("text", "ten"), ("empty", ""))
            yield from ((f"text {text}", text) for text in ("NaN", "sNaN", "Infinity", "-Infinity", "1e999999", "1e-999999"))
            yield from (("boolean", True), ("huge", 10**30), ("huge text", DIGITS), ("small", "1e-9999999999999999999"))
            numbers = ("1e999999", "1e-999999", "1e9999999999999999999", DIGITS, "0." + "0" * 5000 + "1", "1e99999999999")
            yield from ((f"bare {number[:30]}", Raw(number)) for number in numbers)
        case inspect.VarTupleType(min_length=least, max_length=most, item_type=item):
            yield from (("too few", []),) if least else ()
            yield from (("too many", [filler(item, "")] * (most + 1)),) if most is not None else ()
        case inspect.DictType():
            # Headers and metadata: text to something plain.
            yield from (("list inside", {"a": [1]}), ("object inside", {"a": {}}), ("NUL inside", {"a": NUL}), ("NUL name", {NUL: "a"}))
            yield ("thousands of digits inside", {"a": Raw(DIGITS)})
            yield ("surrogate inside", {"a": SURROGATE})


Setter = Callable[[Any], Any]


def mistakes(fields: tuple[inspect.Field, ...], put: Callable[[Setter], bytes], prefix: str = "") -> Iterator[Case]:
    """Every mistake in every field, at any depth. ``put`` sends a body in which a function has changed the object here."""
    for f in fields:
        path = f"{prefix}{f.encode_name}"

        def setting(value: Any, name: str = f.encode_name) -> Setter:
            return lambda here: {**here, name: value}

        if f.required:
            yield Case("missing", put(lambda here, n=f.encode_name: {k: v for k, v in here.items() if k != n}), path)
            yield Case("null", put(setting(None)), path)
        for what, value in wrong_values(f.type):
            # A parser that fails on the text itself does not know yet where it is.
            is_text = "bare" in what or what in ("exponent", "surrogate") or "inside" in what or "digits" in what or what == "huge"
            yield Case(f"{path} {what}", put(setting(value)), None if is_text else path)
            if "bare" not in what and "digits" not in what:
                twice = f"{json.dumps(f.encode_name)}:{json_of(value).decode('utf-8', 'surrogatepass')}"
                yield Case(f"{path} {what}, twice", put(lambda here, t=twice: here | {Raw("twice"): t}), None)
        yield from (Case(f"{path} bare {t}", put(setting(Raw(t))), None) for t in ("NaN", "Infinity", "-Infinity", "01", "'a'"))
        for k in kinds_of(f.type):
            yield from inner_mistakes(k, f, put, path)


def inner_mistakes(kind: inspect.Type, f: inspect.Field, put: Callable[[Setter], bytes], path: str) -> Iterator[Case]:
    """The mistakes inside a field that holds objects."""
    name = f.encode_name
    match kind:
        case inspect.StructType(fields=inner):
            def within(change: Setter) -> bytes:
                return put(lambda here: {**here, name: change(here.get(name) or filler(kind, path))})

            yield from mistakes(inner, within, f"{path}.")
        case inspect.VarTupleType(item_type=inspect.StructType(fields=inner) as item):
            def within_first(change: Setter) -> bytes:
                return put(lambda here: {**here, name: [change(filler(item, f"{path}[]"))]})

            yield from mistakes(inner, within_first, f"{path}[].")
        case inspect.VarTupleType(item_type=inspect.StrType() as item):
            for what, value in wrong_values(item):
                is_text = what == "surrogate"
                yield Case(f"{path}[] {what}", put(lambda here, v=value: {**here, name: [v]}), None if is_text else path)


def cases_of(route: Route) -> Iterator[Case]:
    """Every mistake that the route's body can have."""
    good = copy.deepcopy(GOOD[route.verb, full_path(route)])
    if good.get("original_transaction_token") == PURCHASE:
        good["original_transaction_token"] = GOOD_PURCHASE[0]
    shape = inspect.type_info(route.body)
    assert isinstance(shape, inspect.StructType)
    # An object of its own, for a replay of the one that is there would need no look at anything.
    good = {**good, "token": "new"} if route.verb == "POST" and "token" in good else good
    return mistakes(shape.fields, lambda change: json_of_twice(change(good)), "")


def json_of_twice(body: Any) -> bytes:
    """JSON; a Raw name holds a pair of name and value that is written after all others, though the name may be there already."""
    return json_of(body)


WITH_BODY = [route for route in ROUTES if route.body is not None]
with_body = pytest.mark.parametrize("route", WITH_BODY, ids=lambda route: f"{route.verb} {full_path(route)}")


@with_body
def test_every_field_is_checked_and_named(door: Door, route: Route) -> None:
    """Each field missing, null, too long, too short, of another type, out of range or no text at all: 4xx that names it."""
    faults = []
    for case in cases_of(route):
        reply = door.client.request(route.verb, door.path(route), case.body)
        faults += fault(case.what, reply, case.names) if True else []
    no_faults(faults)
