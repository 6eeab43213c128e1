"""Isolated programs: no route shows or changes another program's objects, with its tokens in path, body and query."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from cardwright.resources.catalog import ROUTES
from cardwright.storage.database import Database
from cardwright.storage.tables import metadata, programs
from tests.stress.invalid_bodies import fields_of, with_value
from tests.stress.object_graph import (
    ALL,
    FRUITLESS,
    ObjectGraph,
    Place,
    ask,
    filled,
    is_empty,
    names_in,
    place_of,
    working_values,
)
from tests.support.databases import migrated_file
from tests.support.issuing import client_of, new_program
from tests.support.server import Client, Reply, RunningServer
from tests.support.waiting import until_all_are_delivered

GLOBAL = {("POST", "/sandbox/programs")}
"""Routes across programs: the tokens of programs are unique on a server."""

FREE_NAMES = {"box"}
"""Path parameters that a client chooses freely, so no object must exist."""

UNRESOLVED = {"bulk_issuance_token", "account_token", "real_time_fee_group_token"}
"""Fields that the test of bodies skips. The first two are stored without a look-up."""

NEW = "transaction_token"
"""The field with the token of a new object."""

RESET = ("POST", "/sandbox/reset")

# DELETE comes last, because it removes its object. The last test calls the reset.
PLACES = sorted((place for place in ALL if place != RESET), key=lambda place: place[0] == "DELETE")

# The last method of a path finds its working values. GET is last, because it changes nothing.
GENTLEST_LAST = [place for verb in ("POST", "PUT", "GET") for place in PLACES if place[0] == verb]

UNAUTHORIZED = '{"error_code":"401001","error_message":"Invalid credential has been detected"}'


@dataclass
class Twins:
    """Two programs with equal tokens for different objects, and the values that only the second program may see."""

    alpha: ObjectGraph
    bravo: ObjectGraph
    foreign: list[str]
    values_by_path: dict[str, tuple[str, ...] | None]
    address: str
    before: dict[str, list[Any]]

    def values(self, place: Place) -> tuple[str, ...]:
        """Return values of the path parameters that lead to an object of the first program."""
        values = self.values_by_path[place[1]]
        assert values is not None, (
            f"no object of the object graph is found by {name_of(place)}: tests/stress/object_graph.py must make one"
        )
        return values

    def check(self, reply: Reply, *sent: str) -> None:
        """Assert that the answer has no value of the second program, except values that were sent."""
        text = reply.text
        for value in sent:
            text = text.replace(value, "")
        leaked = [value for value in (self.bravo.mark, *self.foreign) if len(value) >= 7 and value in text]
        assert not leaked, f"{leaked} in {reply.text}"


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    """Yield two programs on one server."""
    address = migrated_file(tmp_path_factory.mktemp("twins") / "cardwright.db")
    with RunningServer(db=address) as server:
        alpha, bravo = (new_object_graph(server, name) for name in ("alpha-7q", "bravo-7q"))
        second_graph = ObjectGraph(bravo.client, server.root_url, bravo.program, bravo.mark, prefix="b-")
        for object_graph in (bravo, second_graph, alpha):
            object_graph.make()
        until_all_are_delivered(bravo.client)
        foreign = [value for value in {**bravo.lookup_values, **second_graph.lookup_values} if value not in alpha.lookup_values]
        values_by_path = {place[1]: working_values(alpha, place) for place in GENTLEST_LAST}
        yield Twins(alpha, bravo, foreign, values_by_path, address, rows_of(address, bravo.program))


def new_object_graph(server: RunningServer, name: str) -> ObjectGraph:
    return ObjectGraph(client_of(server, new_program(server, token=name)), server.root_url, name, name)


def rows_of(address: str, program: str) -> dict[str, list[Any]]:
    """Return all rows of a program."""
    database = Database(address)
    with database.read() as db:
        key = db.scalar(select(programs.c.id).where(programs.c.token == program))
        tables = [table for table in metadata.sorted_tables if "program_id" in table.c]
        rows = {table.name: sorted(map(repr, db.execute(table.select().where(table.c.program_id == key)))) for table in tables}
        rows["programs"] = sorted(map(repr, db.execute(programs.select().where(programs.c.id == key))))
    database.close()
    return rows


def name_of(place: Place) -> str:
    return " ".join(place)


def test_there_is_something_to_leak(twins: Twins) -> None:
    """Both programs have the same chosen tokens, and the second has at least 20 other values."""
    assert {
        "ana",
        "anas_card",
        "coffee_card",
        "main_account",
        "news",
    } <= twins.alpha.lookup_values.keys() & twins.bravo.lookup_values.keys()
    assert len(twins.foreign) >= 20


@pytest.mark.parametrize("place", PLACES, ids=name_of)
def test_foreign_tokens_find_nothing(twins: Twins, place: Place) -> None:
    """A route finds the object of its program, and with any token of the other program in its path it finds nothing."""
    own_values = twins.values(place)
    assert ask(twins.alpha, place, own_values).status < 300 or place[1] in FRUITLESS
    for number, name in enumerate(names_in(place[1])):
        for token in twins.foreign:
            values = [*own_values[:number], token, *own_values[number + 1 :]]
            reply = ask(twins.alpha, place, values)
            assert reply.status in (400, 404) or is_empty(reply) or name in FREE_NAMES, (values, reply.status, reply.text)
            twins.check(reply, token)


@pytest.mark.parametrize("place", [place for place in PLACES if place[0] == "GET"], ids=name_of)
def test_equal_tokens_find_the_object_of_their_program(twins: Twins, place: Place) -> None:
    """For a token that both programs have, and in every list, a program gets only its own objects."""
    twins.check(ask(twins.alpha, place, twins.values(place), **({"count": "100"} if ALL[place].paging else {})))


@pytest.mark.parametrize("place", [place for place in PLACES if ALL[place].query is not None], ids=name_of)
def test_foreign_tokens_filter_nothing_in(twins: Twins, place: Place) -> None:
    """A filter that names an object of the other program shows nothing of it."""
    shape = ALL[place].query
    assert shape is not None
    names = [parameter.name for parameter in msgspec.structs.fields(shape)]
    for name in (name for name in names if "token" in name or name in ("user", "card_product")):
        for token in twins.foreign:
            twins.check(ask(twins.alpha, place, twins.values(place), **{name: token}), token)


@pytest.mark.parametrize("place", [place for place in PLACES if ALL[place].body and place not in GLOBAL], ids=name_of)
def test_foreign_tokens_in_bodies_are_unknown(twins: Twins, place: Place) -> None:
    """A body that refers to an object of the other program gets 4xx."""
    shape = ALL[place].body
    assert shape is not None
    target = filled(place[1], twins.values(place))
    everything = [field.path for field in fields_of(shape)]
    names = [path for path in everything if path[-1] == "account_number" or str(path[-1]).endswith("_token")]
    referring = [path for path in names if path[-1] not in (*UNRESOLVED, NEW)]
    # A refused body changes nothing, so it can be used again.
    example = fresh(twins.alpha.body_of(place))
    for path in referring:
        for token in (token for token in twins.foreign if len(token) <= 36):
            body = with_value(example, path, token, shape)
            if (*path[:-1], "enabled") in everything:
                body = with_value(body, (*path[:-1], "enabled"), True)
            reply = twins.alpha.client.request(place[0], target, body)
            assert 400 <= reply.status < 500, (path, token, reply.status, reply.text)
            twins.check(reply, token)


def fresh(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body without token and email, so that it creates a new object instead of repeating an old one."""
    return {name: value for name, value in body.items() if name not in ("token", "email")}


@pytest.mark.parametrize("place", PLACES, ids=name_of)
def test_wrong_credentials_get_401(twins: Twins, place: Place) -> None:
    """Every route gives the same 401 for missing, incomplete, swapped or wrong credentials, even with an invalid body."""
    alpha, bravo = (pair_of(object_graph.client) for object_graph in (twins.alpha, twins.bravo))
    swapped = [(alpha[0], bravo[1]), (bravo[0], alpha[1]), alpha[::-1]]
    pairs = [("x", "y"), (alpha[0], "x"), ("x", alpha[1]), (alpha[0], ""), *swapped]
    headers = [f"Basic {base64.b64encode(':'.join(pair).encode()).decode()}" for pair in pairs]
    headers += ["", "Basic", "Basic !!", f"Basic {base64.b64encode(b'x').decode()}", f"Bearer {alpha[1]}", "Basic /w=="]
    path = place[1].replace("{", "").replace("}", "")
    for header in headers:
        reply = twins.alpha.client.request(place[0], path, b"{" if ALL[place].body else None, headers={"Authorization": header})
        assert (reply.status, reply.text) == (401, UNAUTHORIZED), header


def pair_of(client: Client) -> tuple[str, str]:
    """Return the credentials of a client."""
    application, _, access = base64.b64decode(client._authorization.split()[1]).decode().partition(":")
    return application, access


def test_every_route_was_tried() -> None:
    """The tests above cover every route of the catalog."""
    assert {*PLACES, RESET} == {place_of(route) for route in ROUTES}


def test_the_other_program_is_as_it_was(twins: Twins) -> None:
    """After all tests above and a reset of the first program, no row of the second program has changed."""
    assert twins.alpha.client.post("/sandbox/reset", {}).status == 200
    until_all_are_delivered(twins.bravo.client)
    assert rows_of(twins.address, twins.bravo.program) == twins.before
