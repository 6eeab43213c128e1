"""Pages of every list: a reader with its own connection gets each entry once, and other readers miss none, despite arrivals."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from sqlalchemy import update

from cardwright.resources.catalog import ROUTES
from cardwright.storage.database import Database
from cardwright.storage.tables import cards
from tests.stress.object_graph import AMPLE, EXAMPLES, ObjectGraph, Place, place_of
from tests.support.databases import chosen_databases
from tests.support.fixtures import shared_server
from tests.support.issuing import client_of, new_program
from tests.support.server import HOST, Client, OpenConnection, RunningServer
from tests.support.waiting import until

server = shared_server(chosen_databases(), env={"CARDWRIGHT_IDLE_TIMEOUT_S": "600"})

FIRST = 7
"""Number of entries before the readers begin."""

ROUNDS = 3
"""Number of pages of each reader with arrivals after them."""

NAMES = ("id", "token", "transaction_token", "kind", "number")
"""Fields that identify the entries of a list."""

PHONE = "+15105550000"

_numbers = count(1)


# --- Arrivals -----------------------------------------------------------------------------


def send(object_graph: ObjectGraph, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Create an object; return the answer."""
    reply = object_graph.client.post(path, dict(body))
    assert reply.status < 300, (path, body, reply.text)
    return dict(reply.json or {})


def make(path: str, **changes: Any) -> Callable[[ObjectGraph], Any]:
    """Return a function that creates another object like the example of the OpenAPI document."""

    def arrive(object_graph: ObjectGraph) -> dict[str, Any]:
        return send(object_graph, path, {**EXAMPLES["POST", path], "token": f"more-{next(_numbers)}", **changes})

    return arrive


def join(object_graph: ObjectGraph, **fields: Any) -> dict[str, Any]:
    """Create a user."""
    return send(object_graph, "/v3/users", {"token": f"more-{next(_numbers)}", "phone": PHONE, "last_name": "Moss", **fields})


def buy(object_graph: ObjectGraph) -> str:
    """Make a purchase; return its token."""
    made = send(object_graph, "/v3/simulate/authorization", EXAMPLES["POST", "/v3/simulate/authorization"])
    return str(made["transaction"]["token"])


def increment(object_graph: ObjectGraph) -> None:
    """Increment the purchase of the object graph."""
    path = "/v3/simulations/cardtransactions/authorization.incremental"
    send(object_graph, path, {"preceding_related_transaction_token": object_graph.purchase, "amount": 0.01})


def announce(object_graph: ObjectGraph) -> str:
    """Simulate a direct deposit that stays pending."""
    return object_graph.announced()


def take_effect(object_graph: ObjectGraph) -> None:
    """Reject a direct deposit."""
    place = ("POST", "/v3/directdeposits/transitions")
    send(object_graph, place[1], {**EXAMPLES[place], "direct_deposit_token": announce(object_graph)})


def switch_user(object_graph: ObjectGraph) -> None:
    """Suspend a user and make it active again."""
    for status in ("SUSPENDED", "ACTIVE"):
        send(object_graph, "/v3/usertransitions", {"user_token": "ben", "status": status, "reason_code": "02", "channel": "API"})


def switch_card(object_graph: ObjectGraph) -> None:
    """Suspend a card and make it active again."""
    for state in ("SUSPENDED", "ACTIVE"):
        send(
            object_graph,
            "/v3/cardtransitions",
            {"card_token": "anas_card", "state": state, "channel": "API", "reason_code": "00"},
        )


def issue_similar(object_graph: ObjectGraph, address: str) -> None:
    """Issue a card and set its last four digits to 0000 by SQL, because the API draws them."""
    token = make("/v3/cards")(object_graph)["token"]
    with closing(Database(address)) as database, database.write() as db:
        db.execute(update(cards).where(cards.c.token == token).values(last_four="0000"))


def receive(object_graph: ObjectGraph) -> None:
    """Post a message to the box of the object graph."""
    send(object_graph, f"/sandbox/inbox/{object_graph.program}/mail", {"number": next(_numbers)})


def rest(_object_graph: ObjectGraph) -> None:
    """Do nothing, for a list that gets no more entries."""


class Source(NamedTuple):
    """A list: the function that adds an entry, the values of the path, the query, the body, and the maximum of additions."""

    arrive: Callable[..., Any]
    values: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    body: Any = None
    most: int = 1_000


ANA, OF_ANA = {"user_token": "ana"}, {"token": "ana"}
COFFEE_BUDGET = {"association": ANA, **AMPLE}

SOURCES: dict[Place, Source] = {
    ("GET", "/v3/fundingsources/program"): Source(make("/v3/fundingsources/program")),
    ("GET", "/v3/cardproducts"): Source(make("/v3/cardproducts")),
    ("GET", "/v3/accountholdergroups"): Source(make("/v3/accountholdergroups")),
    ("GET", "/v3/users"): Source(join),
    ("GET", "/v3/users/{parent_token}/children"): Source(partial(join, parent_token="ben"), {"parent_token": "ben"}),
    ("GET", "/v3/users/phonenumber/{phone_number}"): Source(join, {"phone_number": PHONE}),
    ("POST", "/v3/users/lookup"): Source(join, body={"last_name": "mos"}),
    ("GET", "/v3/usertransitions/user/{user_token}"): Source(switch_user, {"user_token": "ben"}),
    ("GET", "/v3/cards"): Source(issue_similar, query={"last_four": "0000"}),
    ("GET", "/v3/cards/user/{token}"): Source(make("/v3/cards"), OF_ANA),
    ("GET", "/v3/cardtransitions/card/{token}"): Source(switch_card, {"token": "anas_card"}),
    ("GET", "/v3/gpaorders/unloads"): Source(make("/v3/gpaorders/unloads", amount=0.01)),
    ("GET", "/v3/fees"): Source(make("/v3/fees")),
    ("GET", "/v3/realtimefeegroups"): Source(make("/v3/realtimefeegroups")),
    ("GET", "/v3/autoreloads"): Source(make("/v3/autoreloads")),
    ("GET", "/v3/peertransfers/user/{user_token}"): Source(make("/v3/peertransfers", amount=0.01), ANA),
    ("GET", "/v3/peertransfers/user/{user_token}/sender"): Source(make("/v3/peertransfers", amount=0.01), ANA),
    ("GET", "/v3/peertransfers/user/{user_token}/recipient"): Source(
        make("/v3/peertransfers", amount=0.01), {"user_token": "ben"}
    ),
    ("GET", "/v3/programtransfers/types"): Source(make("/v3/programtransfers/types")),
    ("GET", "/v3/programtransfers"): Source(make("/v3/programtransfers", amount=0.01)),
    ("GET", "/v3/depositaccounts/user/{token}"): Source(make("/v3/depositaccounts"), OF_ANA, most=4),
    ("GET", "/v3/depositaccounts/{user_token}/transitions"): Source(
        make("/v3/depositaccounts", user_token="ben"), {"user_token": "ben"}, most=4
    ),
    ("GET", "/v3/directdeposits"): Source(announce),
    ("GET", "/v3/directdeposits/transitions"): Source(take_effect),
    ("GET", "/v3/transactions"): Source(buy),
    ("GET", "/v3/transactions/{token}/related"): Source(increment, {"token": "purchase"}),
    ("GET", "/v3/transactions/fundingsource/{funding_source_token}"): Source(buy, {"funding_source_token": "main_account"}),
    ("GET", "/v3/velocitycontrols"): Source(make("/v3/velocitycontrols")),
    ("GET", "/v3/velocitycontrols/user/{user_token}/available"): Source(make("/v3/velocitycontrols", **COFFEE_BUDGET), ANA),
    ("GET", "/v3/authcontrols"): Source(make("/v3/authcontrols")),
    ("GET", "/v3/authcontrols/exemptmids"): Source(make("/v3/authcontrols/exemptmids")),
    ("GET", "/v3/mccgroups"): Source(make("/v3/mccgroups")),
    ("GET", "/v3/merchantgroups"): Source(make("/v3/merchantgroups")),
    ("GET", "/v3/acceptedcountries"): Source(make("/v3/acceptedcountries")),
    ("GET", "/v3/webhooks"): Source(make("/v3/webhooks", active=False)),
    ("GET", "/sandbox/backtests/{token}/flips"): Source(rest, {"token": "strict"}),
    ("GET", "/sandbox/shadow-controls"): Source(make("/sandbox/shadow-controls")),
    ("GET", "/sandbox/shadow-controls/{token}/declines"): Source(buy, {"token": "tiny"}),
    ("GET", "/sandbox/inbox/{box}"): Source(receive, {"box": "mail"}),
    ("GET", "/sandbox/deliveries"): Source(buy),
    ("GET", "/sandbox/reports/settlement/lines"): Source(buy),
}

SORTS = ("createdTime", "-createdTime", "lastModifiedTime", "id", "-id", "token", "-token")
"""Orders of a list of resources other than the default one."""

CASES: list[tuple[Place, Source]] = [
    *SOURCES.items(),
    *((("GET", "/v3/users"), Source(join, query={"sort_by": sort_by})) for sort_by in SORTS),
    (("POST", "/v3/users/lookup"), Source(join, query={"sort_by": "-token"}, body={"last_name": "mos"})),
    (("GET", "/sandbox/deliveries"), Source(buy, query={"sort_by": "createdTime"})),
    (("GET", "/v3/transactions"), Source(buy, query={"sort_by": "created_time", "user_token": "ana"})),
]


# --- Readers ------------------------------------------------------------------------------


class Reader:
    """A client that adds the length of each page to ``start_index``, over one connection or a new one for each page."""

    def __init__(self, client: Client, port: int, place: Place, path: str, source: Source, size: int, *, kept_open: bool) -> None:
        self.verb, self.path, self.source, self.size, self.kept_open = place[0], path, source, size, kept_open
        self.headers = {"Authorization": client._authorization, "Content-Type": "application/json"}
        self.got = Counter[tuple[Any, ...]]()
        self.is_more = True
        self._port, self._index = port, 0
        self._connection = OpenConnection(HOST, port, timeout=60)

    def turn(self) -> None:
        """Read a page."""
        query = {**self.source.query, "count": self.size, "start_index": self._index}
        body = None if self.source.body is None else json.dumps(self.source.body)
        self._connection.request(self.verb, f"{self.path}?{urlencode(query)}", body, self.headers)
        answer = self._connection.getresponse()
        page = json.loads(answer.read())
        assert answer.status == 200, page
        self.got.update(tuple(entry.get(name) for name in NAMES) for entry in page["data"])
        self._index, self.is_more = self._index + page["count"], page["is_more"]
        if not self.kept_open:
            self._connection.close()
            self._connection = OpenConnection(HOST, self._port, timeout=60)

    def rest(self) -> "Reader":
        """Read the remaining pages."""
        while self.is_more:
            self.turn()
        self._connection.close()
        return self

    @property
    def repeated(self) -> list[tuple[Any, ...]]:
        """Entries that came more than once."""
        return [entry for entry, times in self.got.items() if times > 1]


@pytest.fixture(scope="module")
def object_graph(server: RunningServer) -> Iterator[ObjectGraph]:
    """Yield a program with one object of every kind, ten flips of a backtest, and a shadow control with a limit of 0.01."""
    program = new_program(server, token="pages")
    with client_of(server, program) as client:
        made = ObjectGraph(client, server.root_url, "pages", "pages")
        made.make()
        send(made, "/sandbox/shadow-controls", {"token": "tiny", "name": "Tiny", **AMPLE, "amount_limit": 0.01})
        for _ in range(10):
            made.purchase = buy(made)
        strict = {"add": [{"name": "Strict", **AMPLE, "amount_limit": 0.01}]}
        send(made, "/sandbox/backtests", {"token": "strict", "name": "Strict", "velocity_controls": strict})
        until(lambda: client.get("/sandbox/backtests/strict").json["state"] == "DONE")
        yield made


def test_no_list_is_left_out() -> None:
    """Every route with pages has an entry in SOURCES."""
    lists = {place_of(route) for route in ROUTES if route.paging is not None}
    assert lists == SOURCES.keys(), "SOURCES has one entry for each list"


@pytest.mark.parametrize(("place", "source"), CASES, ids=[" ".join((*place, *source.query.values())) for place, source in CASES])
def test_readers_do_not_disturb_one_another(
    server: RunningServer, object_graph: ObjectGraph, place: Place, source: Source
) -> None:
    """With arrivals between the pages, a reader over one connection gets each entry once.

    A reader that opens a connection for each page misses none. Pages have two or three entries.
    """
    arguments = [object_graph, server.db] if source.arrive is issue_similar else [object_graph]
    arrivals = (source.arrive(*arguments) for _ in range(source.most))
    first = min(FIRST, source.most - 1)
    for _ in range(first):
        next(arrivals)
    values = {name: object_graph.purchase if value == "purchase" else value for name, value in source.values.items()}
    path = place[1].format(**values).replace("+", "%2B")
    new = partial(Reader, object_graph.client, server.port, place, path, source)
    before = new(10, kept_open=False).rest().got
    assert len(before) >= first
    assert before.total() == len(before)
    readers = [new(2, kept_open=True), new(3, kept_open=True), new(2, kept_open=False)]
    for _ in range(ROUNDS):
        for reader in readers:
            if reader.is_more:
                reader.turn()
            next(arrivals, None)
    for reader in readers:
        reader.rest()
        assert before.keys() <= reader.got.keys()
    assert [reader.repeated for reader in readers[:2]] == [[], []]
