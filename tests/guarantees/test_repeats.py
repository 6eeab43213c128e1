"""Replays: a create request in another spelling is the same request, for every route, every field and every spelling."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from cardwright.edges.http.examples import TOKENS as EXAMPLE_TOKENS
from cardwright.resources.common.route import Blank
from tests.stress.invalid_bodies import MISSING, Field, bare, fields_of, with_value
from tests.stress.object_graph import ALL, WATCHED, ObjectGraph, Place
from tests.stress.writings import ABSENT, DEFAULTS, TEXTS, TIMES, VALUES, Values, key_of, sample, writings
from tests.support.databases import chosen_databases, migrated_database, migrated_file
from tests.support.server import Reply, RunningServer

NO_CREATE = {
    ("POST", "/v3/ping"): "echoes the body",
    ("POST", "/sandbox/programs"): "its answer has credentials, which are shown only once, so a repeat is refused",
    ("POST", "/sandbox/whatif/authorization"): "creates nothing",
}
"""Routes with a token in the body that are not idempotent creates, with the reasons."""

TOKENS = (("token",), ("transaction_options", "transaction_token"))

TOKEN_TAKEN = (409, "409002")


def token_path(place: Place) -> tuple[str, ...] | None:
    """Return the path in the body of the token of the new object, or None."""
    shape = ALL[place].body
    paths = [field.path for field in fields_of(shape)] if shape is not None and place[0] == "POST" else []
    return next((path for path in TOKENS if path in paths), None)


CREATES = sorted(place for place in ALL if token_path(place) is not None and place not in NO_CREATE)

ALWAYS: dict[str, dict[tuple[str | int, ...], Any]] = {
    "webhook.": {("webhook", "endpoint"): "http://127.0.0.1:1/a"},
    "/v3/webhooks ": {("active",): False},
    "/v3/webhooks active": {("active",): True},
    "fees.": {("fees", 0, "token"): "monthly"},
    "/v3/users ssn": {("identifications",): None},
    "/v3/users uses_parent_account": {("parent_token",): "ben"},
    "/v3/cards fulfillment.": {("fulfillment", "card_personalization", "text", "name_line_1", "value"): "A"},
    "/v3/cardproducts config.fulfillment.card_personalization.":
        {("config", "fulfillment", "card_personalization", "text", "name_line_1", "value"): "A"},
    "/v3/cardproducts config.jit_funding.": {("config", "jit_funding", "program_funding_source", "enabled"): False},
    "/v3/cardproducts config.jit_funding.program_funding_source.enabled":
        {("config", "jit_funding", "program_funding_source", "funding_source_token"): "main_account"},
    "/v3/authcontrols/exemptmids mid": {("merchant_group_token",): None},
    "velocity_controls.remove": {("velocity_controls", "change"): None},
    "auth_controls.remove": {("auth_controls", "change"): None},
    "auth_controls.add.merchant_scope": {("auth_controls", "add", 0, "association", "user_token"): "ana"},
    "exempt_mids.add.merchant_group_token": {("exempt_mids", "add", 0, "mid"): None},
    "config.fulfillment.bin_prefixes.": {("config", "fulfillment", "bin_prefixes", 0, "bin_prefix"): "123456"},
    "expiration_offset.": {("expiration_offset", "unit"): "YEARS", ("expiration_offset", "value"): 3},
    "config.card_life_cycle.expiration_offset.": {
        ("config", "card_life_cycle", "expiration_offset", "unit"): "YEARS",
        ("config", "card_life_cycle", "expiration_offset", "value"): 3,
    },
}  # fmt: skip
"""Other values that a body needs for a field to be valid, by the beginning of route and path, or of the path alone."""

NEEDED = {
    "user_token", "sender_user_token", "recipient_user_token", "/v3/authcontrols/exemptmids mid", "exempt_mids.add.mid",
    "/v3/authcontrols/exemptmids merchant_group_token", "exempt_mids.add.merchant_group_token",
    "/v3/directdeposits/transitions reason_code", "velocity_controls.change.token", "auth_controls.change.token",
    "expiration_offset.unit", "expiration_offset.value",
    "/v3/cards fulfillment.card_personalization.text.name_line_1.value",
    "/v3/cardproducts config.fulfillment.card_personalization.text.name_line_1.value",
}  # fmt: skip
"""Fields that are optional in the shape and required by the rules."""

NEVER = {
    "business_token": "there are no businesses", "sender_business_token": "there are no businesses",
    "recipient_business_token": "there are no businesses", "use_mtls": "there is no client certificate",
    "programgateway_funding_source.enabled": "there are no gateway sources",
}  # fmt: skip
"""Fields without a valid value except the default, with the reasons."""


@pytest.fixture(scope="module")
def object_graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectGraph]:
    """Yield one object of every kind, more of some kinds, and money on the account. The webhook is inactive."""
    with (
        RunningServer(db=migrated_file(tmp_path_factory.mktemp("repeats") / "cardwright.db")) as server,
        server.client() as client,
    ):  # fmt: skip
        made = ObjectGraph(client, server.root_url, "default", "again")
        made.make()
        money = {"user_token": "ana", "amount": 1_000_000, "currency_code": "USD", "funding_source_token": "main_account"}
        for path, body in {
            "fundingsources/program": {"token": "other_account", "name": "Other"},
            "users": {"token": "cleo"},
            "cards": {"token": "cleos_card", "user_token": "cleo", "card_product_token": "coffee_card"},
            "gpaorders": money,
            "fees": {"token": "weekly", "name": "Weekly", "amount": 1, "currency_code": "USD"},
            "velocitycontrols": {"token": "weeks", "amount_limit": 9_000_000, "velocity_window": "WEEK", "currency_code": "USD"},
            "authcontrols": {"token": "no_bars", "name": "No bars", "merchant_scope": {"mcc": "5813"}},
            "authcontrols/exemptmids": {"token": "the_races", "name": "The races", "mid": "races"},
        }.items():
            reply = client.post(f"/v3/{path}", body)
            assert reply.status == 201, reply.text
        # Notifications of thousands of purchases would take as long as the purchases, and no test here reads them.
        hook = {name: value for name, value in made.body_of(("POST", "/v3/webhooks")).items() if name != "token"}
        assert client.put(f"/v3/webhooks/{EXAMPLE_TOKENS['webhook']}", {**hook, "active": False}).status == 200
        assert client.put("/v3/users/ana", {"ssn": "123456789", "birth_date": "2035-05-06"}).status == 200
        yield made
        assert "Traceback" not in server.output()


def name_of(field: Field) -> str:
    """Return the path of a field: its names, joined by dots."""
    return ".".join(part for part in field.path if isinstance(part, str))


def is_listed(names: Any, place: Place, name: str) -> bool:
    """Return True if a field of a route is among these names."""
    return key_of(dict.fromkeys(names), place[1], name) is not None


class Case:
    """A route and a field of its body, with bodies that differ only in this field."""

    numbers = itertools.count(1)

    def __init__(self, object_graph: ObjectGraph, place: Place, field: Field) -> None:
        self.object_graph, self.client, self.place, self.field = object_graph, object_graph.client, place, field
        shape, token = ALL[place].body, token_path(place)
        assert shape is not None
        assert token is not None
        self.shape, self.name = shape, name_of(field)
        number = next(self.numbers)
        body = {name: value for name, value in object_graph.body_of(place).items() if name not in ("token", "email")}
        body = with_value(body, token, f"again-{number}", shape)
        for key, changes in ALWAYS.items():
            if f"{place[1]} {self.name}".startswith(key) or self.name.startswith(key):
                for path, value in changes.items():
                    body = with_value(body, path, MISSING if value is None else value, shape)
        if place[1] == "/v3/depositaccounts":
            # A user may have only a few deposit accounts.
            body["user_token"] = self.user = self.made("users")
        self.body = body
        key = key_of(VALUES, place[1], self.name)
        self.values = self._own_values(number) or (sample(field) if key is None else VALUES[key])

    def made(self, path: str, **body: Any) -> str:
        """Create an object; return its token."""
        reply = self.client.post(f"/v3/{path}", body)
        assert reply.status == 201, reply.text
        return str(reply.json["token"])

    def _own_values(self, number: int) -> Values | None:
        """Return values that only this case can have, or None if any valid values fit."""
        if self.name == "email":
            return f'"a{number}@example.com"', f'"b{number}@example.com"'
        if self.place[1] == "/v3/depositaccounts" and self.name == "user_token":
            return f'"{self.user}"', '"cleo"'
        if self.name.endswith("from_card_token"):
            new = [self.made("cards", user_token="ana", card_product_token="coffee_card") for _ in range(2)]
            return f'"{new[0]}"', f'"{new[1]}"'
        if self.name in ("original_transaction_token", "direct_deposit_token", "account_number"):
            return json.dumps(self.body[self.name]), None
        return None

    @property
    def defaults(self) -> list[str]:
        """Values that mean the same as an absent field."""
        key = key_of(DEFAULTS, self.place[1], self.name)
        return [] if key is None else list(DEFAULTS[key])

    def is_in(self, names: Any) -> bool:
        """Return True if the field is among these names."""
        return is_listed(names, self.place, self.name)

    def send(self, value: str) -> Reply:
        """Send the body with this JSON in the field."""
        text = json.dumps(with_value(self.body, self.field.path, MISSING if value == ABSENT else "@@", self.shape))
        return self.client.request(*self.place, text.replace('"@@"', value).encode())

    def undo(self, made: Reply) -> None:
        """Deactivate or delete an object of which only a few can be active or unfinished."""
        path = f"{self.place[1]}/{made.json.get('token')}"
        if self.place[1] == "/v3/webhooks" and made.json["active"]:
            config = {**self.body["config"], "url": "http://127.0.0.1:1/"}
            assert self.client.put(path, {"name": "x", "events": ["*"], "config": config, "active": False}).status == 200
        if self.place[1] == "/v3/autoreloads" and made.json["active"]:
            assert self.client.put(path, {"active": False}).status == 200
        if self.place[1] == "/v3/authcontrols":
            assert self.client.put(path, {"active": False}).status == 200
        if self.place[1] in (WATCHED, "/v3/velocitycontrols"):
            assert self.client.delete(path).status < 300
        self.object_graph.undo(self.place)


def leaves_of(place: Place) -> list[Field]:
    """Return the fields of a body that contain a value. An object that must not be blank counts as one field."""
    shape = ALL[place].body
    assert shape is not None
    leaves, within = list[Field](), list[tuple[str | int, ...]]()
    for field in fields_of(shape):
        if field.path == token_path(place) or any(field.path[: len(path)] == path for path in within):
            continue
        kinds = [kind.item_type if isinstance(kind, inspect.VarTupleType) else kind for kind in map(bare, field.types)]
        objects = [kind.cls for kind in kinds if isinstance(kind, inspect.StructType)]
        if any(getattr(cls, "blank", None) is Blank.NOTHING for cls in objects):
            within.append(field.path)
            objects = []
        if not objects:
            leaves.append(field)
    return leaves


def default_of(case: Case, made: Reply) -> str | None:
    """Return the default of an absent field as JSON: the value in the answer, else the default of the shape."""
    shown = made.json
    for part in case.field.path:
        shown = shown.get(part) if isinstance(shown, dict) else None
    if case.place[1] == "/v3/cardtransitions":
        # Its answer has the result of each validation instead of the value.
        shown = None
    shown = case.field.default if shown is None else shown
    return None if shown is None else json.dumps(shown)


def is_default(value: str, defaults: list[str]) -> bool:
    """Return True if a value means the same as an absent field."""
    return json.loads(value) in [json.loads(default) for default in defaults]


def check_field(object_graph: ObjectGraph, place: Place, field: Field) -> Iterator[tuple[str, ...]]:
    """Send the field absent and with a value, in several spellings. Yield the faults."""
    defaults: list[str] = []
    name = name_of(field)
    for given in (False, True):
        if (not given and (field.is_required or is_listed(NEEDED, place, name))) or (given and is_listed(NEVER, place, name)):
            continue
        case = Case(object_graph, place, field)
        time = key_of(TIMES, place[1], case.name)
        value, second = case.values if time is None else (TIMES[time][0][0], TIMES[time][1])
        first = value if given else ABSENT
        made = case.send(first)
        if made.status >= 300:
            yield "REFUSED", case.name, first, made.text
            continue
        if given:
            same = list(writings(field, value) if time is None else TIMES[time][0][1:])
        else:
            shown = default_of(case, made)
            defaults = [*([] if shown is None else [shown, *writings(field, shown)]), *case.defaults]
            same = defaults[:]
        others = [other for other in (second, None if given else value) if other and not is_default(other, defaults)]
        if not field.is_required and not case.is_in(NEEDED):
            (same if not given or is_default(value, defaults) else others).extend([ABSENT, "null"])
        for other in same:
            if not is_same(made, reply := case.send(other)):
                yield "NOT SAME", case.name, first, other, reply.text
        for other in others:
            reply = case.send(other)
            if (reply.status, reply.json.get("error_code")) != TOKEN_TAKEN and not (case.is_in(NEVER) and reply.status == 400):
                yield "NOT OTHER", case.name, first, other, reply.text
        case.undo(made)


def is_same(first: Reply, reply: Reply) -> bool:
    """Return True if an answer equals the first one."""
    return (reply.status, identity(reply.json)) == (first.status, identity(first.json))


def identity(answer: Any) -> Any:
    """Return the comparable part of an answer. A backtest runs in the background, so only its token is compared."""
    return answer["token"] if isinstance(answer, dict) and "progress" in answer else answer


@pytest.mark.parametrize("place", CREATES, ids=" ".join)
def test_every_field_in_every_writing(object_graph: ObjectGraph, place: Place) -> None:
    """Another spelling of a value gets the first object again, and another value is refused with 409."""
    faults = [fault for field in leaves_of(place) for fault in check_field(object_graph, place, field)]
    for fault in faults:
        print("FAULT", fault)
    assert not faults


def test_times_are_known() -> None:
    """Every text field with the name of a time is in TIMES, or is in TEXTS because it is stored unchanged."""
    fields = [field for place in CREATES for field in leaves_of(place) if isinstance(bare(field.types[0]), inspect.StrType)]
    times = {str(field.path[-1]) for field in fields if str(field.path[-1]).endswith(("_date", "_time"))}
    assert times <= {key.rpartition(" ")[2] for key in TIMES} | TEXTS


# --- Whole bodies ------------------------------------------------------------------------


def rewritten(value: Any, shape: type[msgspec.Struct] | None) -> Any:
    """Return the same body with the keys in reverse order, an unknown field, nulls, and numbers as text."""
    match value:
        case dict() if shape is None:
            return dict(reversed(value.items()))
        case dict():
            assert shape is not None
            inner = {field.encode_name: shape_in(field.type) for field in inspect.type_info(shape).fields}  # type: ignore[attr-defined]
            is_open = not shape.__struct_config__.forbid_unknown_fields
            optional = [field.encode_name for field in msgspec.structs.fields(shape) if not field.required]
            absent = [name for name in optional if name not in value]
            kept = {name: rewritten(item, inner.get(name)) for name, item in reversed(value.items())}
            return {**({"no_such_field": {"a": [1]}} if is_open else {}), **kept, **dict.fromkeys(absent)}
        case list():
            return [rewritten(item, shape) for item in value]
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value}"
        case _:
            return value


def shape_in(kind: inspect.Type) -> type[msgspec.Struct] | None:
    """Return the shape of the objects in a field, or None."""
    kinds = [bare(member) for member in (kind.types if isinstance(kind, inspect.UnionType) else (kind,))]
    kinds = [bare(member.item_type) if isinstance(member, inspect.VarTupleType) else member for member in kinds]
    return next((member.cls for member in kinds if isinstance(member, inspect.StructType)), None)


@pytest.mark.parametrize("kind", chosen_databases())
def test_whole_bodies(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A body with other spellings everywhere is a replay, and a body under the token of another request is refused."""
    with (
        migrated_database(kind, request, tmp_path) as address, RunningServer(db=address) as server, server.client() as client,
    ):  # fmt: skip
        object_graph = ObjectGraph(client, server.root_url, "default", "whole")
        object_graph.make()
        used = dict[str, tuple[Place, Any]]()
        for number, place in enumerate(CREATES):
            shape, token = ALL[place].body, token_path(place)
            assert shape is not None
            assert token is not None
            body = {name: value for name, value in object_graph.body_of(place).items() if name != "email"}
            body = with_value(body, token, f"whole-{number}", shape)
            first = client.request(*place, body)
            assert first.status < 300, (place, first.text)
            again = client.request(*place, json.dumps(rewritten(body, shape), indent=1).encode())
            assert is_same(first, again), (place, again.text)
            object_graph.undo(place)
            if token == TOKENS[1]:
                used[f"whole-{number}"] = place, body
        # All simulations share one set of tokens, so the same body on another path is another request.
        codes = [
            client.request(*place, body).json.get("error_code")
            for chosen, (_, body) in used.items() for number, (place, _) in used.items() if number != chosen
        ]  # fmt: skip
        assert None not in codes
        assert TOKEN_TAKEN[1] in codes
        assert "Traceback" not in server.output()
