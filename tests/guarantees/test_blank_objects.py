"""Unknown fields: an object with only unknown fields is refused in every body, so a misspelled name removes no limit or check."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from cardwright.resources.common.route import Blank, Shape
from tests.stress.invalid_bodies import Path, bare, fields_of, with_value
from tests.stress.object_graph import ALL, ObjectGraph, Place, filled, names_in
from tests.support.server import Client, RunningServer
from tests.support.shop import Shop

HARMLESS = {
    "CardAcceptor": "it describes the merchant of a message; Cardwright ignores some of its fields on the wire",
    "EventMerchant": "the same in Simulations 2.0",
    "Terminal": "it describes a terminal; Cardwright ignores some of its fields on the wire",
    "PointOfSale": "the same",
    "NetworkMetadata": "it is echoed and has no effect; it has more fields on the wire",
    "NameVerificationResponse": "it is echoed and has no effect; it has more fields on the wire",
    "ScaLimits": "it has no fields here, so all its fields are unknown",
}
"""Shapes of objects that may have only unknown fields."""

CHOICES = ("association", "merchant_scope")
"""Objects that select the cards or merchants of a control. Without a field, the control applies to all of them."""

BODIES = sorted(place for place in ALL if ALL[place].body is not None)

STRANGE = {"no_such_field": "x"}


def objects_of(place: Place) -> Iterator[tuple[Path, type[Shape], bool]]:
    """Yield the fields of a body that contain objects, the shapes of the objects, and True if the field is an array."""
    shape = ALL[place].body
    assert shape is not None
    for field in fields_of(shape):
        for kind in field.types:
            match kind:
                case inspect.StructType():
                    yield field.path, kind.cls, False  # type: ignore[misc]
                case inspect.VarTupleType() if isinstance(inner := bare(kind.item_type), inspect.StructType):
                    yield field.path, inner.cls, True  # type: ignore[misc]
                case _:
                    pass


def send(client: Client, place: Place, path: Path, value: Any, body: Any) -> tuple[int, str]:
    """Send a body with this value in one place; return status and error message of the answer."""
    shape = ALL[place].body
    reply = client.request(place[0], filled(place[1], ["x"] * len(names_in(place[1]))), with_value(body, path, value, shape))
    return reply.status, reply.json["error_message"] if reply.status >= 400 else ""


@pytest.mark.parametrize("place", BODIES, ids=" ".join)
def test_unknown_fields_alone_are_refused(object_graph: ObjectGraph, rows: Callable[[], dict[str, int]], place: Place) -> None:
    """An object with unknown fields only gets 400 with a message that names the object and its fields, and no row is written."""
    body = {name: value for name, value in object_graph.body_of(place).items() if name not in ("token", "email")}
    before = rows()
    for path, shape, is_array in objects_of(place):
        if shape.__name__ in HARMLESS:
            continue
        status, message = send(object_graph.client, place, path, [STRANGE] if is_array else STRANGE, body)
        assert status == 400, (path, message)
        assert str(path[-1]) in message
        fields = msgspec.structs.fields(shape)
        if not any(field.required for field in fields):
            assert not [field.encode_name for field in fields if field.encode_name not in message], (path, message)
    assert rows() == before


@pytest.mark.parametrize("place", BODIES, ids=" ".join)
def test_scope_with_only_nulls_is_refused(object_graph: ObjectGraph, place: Place) -> None:
    """An association or a scope with nulls only gets 400. It is not an empty object, which selects all cards or merchants."""
    for path, shape, _ in objects_of(place):
        if path[-1] in CHOICES:
            assert shape.blank is Blank.NOTHING, (path, shape)
            name = msgspec.structs.fields(shape)[0].encode_name
            status, message = send(object_graph.client, place, path, {name: None}, object_graph.body_of(place))
            assert (status, str(path[-1]) in message, name in message) == (400, True, True), (path, message)


def test_what_is_harmless_is_known() -> None:
    """Every shape that accepts objects with only unknown fields is in the table above, with the reason."""
    shapes = {shape for place in BODIES for _, shape, _ in objects_of(place)}
    assert {shape.__name__ for shape in shapes if shape.blank is Blank.ANYTHING} == HARMLESS.keys()


# --- Effects without the rule -------------------------------------------------------------

DAY = {"amount_limit": 1, "currency_code": "USD", "velocity_window": "DAY"}


@pytest.fixture(scope="module")
def shop(server: RunningServer) -> Iterator[Shop]:
    """Yield a program with two cardholders."""
    made = Shop(server)
    yield made
    made.client.close()


def refused(client: Client, method: str, path: str, body: dict[str, Any], *names: str) -> None:
    """Assert that a body gets 400 with these names in its message."""
    reply = client.request(method, f"/v3{path}" if not path.startswith("/sandbox") else path, body)
    assert (reply.status, reply.json["error_code"]) == (400, "400001"), reply.text
    assert not [name for name in names if name not in reply.json["error_message"]], reply.text


def test_control_with_an_unknown_scope_is_refused(shop: Shop) -> None:
    """A control for a single card, which does not exist, gets 400, and purchases of other cardholders are still approved."""
    client, wrong = shop.client, {"association": {"card_token": "jit"}}
    shop.make("velocitycontrols", token="anas", association={"user_token": "ana"}, **{**DAY, "amount_limit": 500})
    shop.make("authcontrols", token="anas", name="x", association={"user_token": "ana"}, merchant_scope={"mid": "casino"})
    refused(client, "POST", "/velocitycontrols", {**DAY, **wrong}, "association", "user_token", "card_product_token")
    refused(client, "PUT", "/velocitycontrols/anas", wrong, "association")
    refused(client, "POST", "/velocitycontrols", {**DAY, "merchant_scope": {"mids": ["m9"]}}, "merchant_scope", "mcc_group")
    refused(client, "PUT", "/velocitycontrols/anas", {"merchant_scope": {"mids": ["m9"]}}, "merchant_scope")
    refused(client, "POST", "/authcontrols", {"name": "x", "merchant_scope": {"mcc": "5411"}, **wrong}, "association")
    refused(client, "PUT", "/authcontrols/anas", {"merchant_scope": {"merchant_group": "x"}}, "merchant_group_token")
    refused(client, "POST", "/authcontrols/exemptmids", {"name": "x", "mid": "casino", **wrong}, "association")
    refused(client, "POST", "/sandbox/shadow-controls", {**DAY, **wrong}, "association")
    changes = {"velocity_controls": {"add": [{**DAY, **wrong}]}}
    refused(client, "POST", "/sandbox/backtests", changes, "velocity_controls.add[0].association")
    money_in = {"money_in_transaction": {"include_credit_types": ["ALL"]}}
    refused(client, "POST", "/velocitycontrols", {**DAY, **money_in}, "money_in_transaction", "include_credits_types")
    shop.fill(50)
    assert shop.buy(20, "plain")["state"] == "PENDING"
    assert shop.buy(20)["state"] == "PENDING"


def test_absent_null_and_empty_mean_the_program(shop: Shop) -> None:
    """A control with an absent, null or empty association applies to every card. An update with null keeps the association."""
    for association in ({}, {"association": None}, {"association": {}}):
        made = shop.make("velocitycontrols", **{**DAY, "amount_limit": 900_000}, **association)
        assert made["association"] == {}
    path = f"/velocitycontrols/{made['token']}"
    for body, shown in (
        ({"association": {"user_token": "ana", "card_token": "jit"}}, {"user_token": "ana"}),
        ({"association": None}, {"user_token": "ana"}),
        ({"association": {}}, {}),
    ):
        reply = shop.client.put(path, body)
        assert (reply.status, reply.json["association"]) == (200, shown)


def test_no_check_is_lost(shop: Shop) -> None:
    """An unknown field in a validation, or in card or transaction options, gets 400, so that no check is skipped silently."""
    new = shop.make("cards", user_token="ana", card_product_token="jit")["token"]
    claims = {"validations": {"user": {"ssn_last_four": "1234"}}}
    refused(shop.client, "POST", "/cardtransitions", {"card_token": new, "state": "SUSPENDED", "channel": "API", **claims}, "ssn")
    body = {"card_token": "jit", "amount": 1, "mid": "m1"}
    refused(shop.client, "POST", "/simulate/authorization", {**body, "card_options": {"cvv2": "123"}}, "card_options", "cvv")
    options = {"transaction_options": {"transaction_tokens": "t"}}
    refused(shop.client, "POST", "/simulate/authorization", {**body, **options}, "transaction_token")


def test_no_search_for_everybody(shop: Shop) -> None:
    """A user lookup by an unknown field gets 400, and a lookup without a field lists all users."""
    refused(shop.client, "POST", "/users/lookup", {"e_mail": "ana@example.com"}, "body", "email")
    for body in ({}, {"email": None}):
        assert shop.client.post("/users/lookup", body).json["count"] == 2


def test_no_exemption_ends_by_mistake(shop: Shop) -> None:
    """An empty body deactivates an exemption, and a body with a misspelled field gets 400."""
    shop.make("authcontrols/exemptmids", token="open", name="x", mid="casino")
    refused(shop.client, "PUT", "/authcontrols/exemptmids/open", {"activ": True}, "active")
    assert shop.get("/authcontrols/exemptmids/open")["active"]
    assert shop.client.put("/authcontrols/exemptmids/open", {}).status == 204
    assert not shop.get("/authcontrols/exemptmids/open")["active"]


def test_filters_without_a_value_find_nothing(object_graph: ObjectGraph) -> None:
    """A filter for the objects of one user, product or other token gets 400 or finds nothing if it has no value."""
    for place in sorted(ALL):
        query = ALL[place].query
        if query is None or place[0] != "GET" or ALL[place].paging is None or names_in(place[1]):
            continue
        for field in msgspec.structs.fields(query):
            if field.encode_name.endswith("_token") or field.encode_name in ("user", "card_product"):
                reply = object_graph.client.get(f"{place[1]}?{field.encode_name}=&{needed(place)}")
                assert reply.status == 400 or reply.json["count"] == 0, (place, field.encode_name, reply.text)


def needed(place: Place) -> str:
    """Return the required query parameters of a list."""
    return "date=2035-01-01" if "settlement" in place[1] else "last_four=0000" if place[1] == "/v3/cards" else ""
