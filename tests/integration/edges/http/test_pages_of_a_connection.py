"""Bookmarks over HTTP: they belong to a connection, a program and a list."""

import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.support.fixtures import module_server, program_fixture
from tests.support.server import HOST, OpenConnection, RunningServer
from tests.support.shop import Shop

server = module_server(env={"CARDWRIGHT_IDLE_TIMEOUT_S": "600"})
shop = program_fixture(Shop)

PATH = "/v3/transactions?type=authorization"


@pytest.fixture
def connection(server: RunningServer) -> Iterator[OpenConnection]:
    """A connection that stays open."""
    made = OpenConnection(HOST, server.port, timeout=60)
    yield made
    made.close()


def page(
    connection: OpenConnection, shop: Shop, start: int, path: str = PATH, headers: Mapping[str, str] | None = None
) -> list[str]:
    """Return the tokens of a page with two entries."""
    credential = {"Authorization": shop.client._authorization}
    connection.request("GET", f"{path}&count=2&start_index={start}", headers={**credential, **(headers or {})})
    answer = json.loads(connection.getresponse().read())
    return [str(entry["token"]) for entry in answer["data"]]


def buy(shop: Shop, count: int) -> list[str]:
    """Return the tokens of new purchases, the newest first."""
    return [str(shop.buy()["token"]) for _ in range(count)][::-1]


def test_a_page_begins_behind_the_one_before(shop: Shop, connection: OpenConnection) -> None:
    """On the same connection new entries shift no page, and a page can be repeated. On another one the offset is plain."""
    before = buy(shop, 7)
    assert page(connection, shop, 0) == before[:2]
    after = buy(shop, 3) + before
    assert page(connection, shop, 2) == before[2:4]
    assert page(connection, shop, 2) == before[2:4]
    other = OpenConnection(HOST, shop.server.port, timeout=60)
    assert page(other, shop, 2) == after[2:4]
    other.close()
    assert page(connection, shop, 4) == before[4:6]
    assert page(connection, shop, 5) == after[5:7]
    assert page(connection, shop, 0) == after[:2]


@pytest.mark.parametrize("field", ["Via", "Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP"])
def test_a_proxy_gets_plain_offsets(shop: Shop, connection: OpenConnection, field: str) -> None:
    """Requests through a proxy neither use nor create bookmarks, because many readers may share its connection."""
    before, forwarded = buy(shop, 6), {field: "for=192.0.2.7"}
    page(connection, shop, 0, headers=forwarded)
    after = buy(shop, 1) + before
    assert page(connection, shop, 2) == after[2:4]
    assert page(connection, shop, 4, headers=forwarded) == after[4:6]
    after = buy(shop, 1) + after
    assert page(connection, shop, 4, headers=forwarded) == after[4:6]


def test_programs_share_a_connection_and_nothing_else(server: RunningServer, shop: Shop, connection: OpenConnection) -> None:
    """A bookmark of one program is not used for another one, at the same index of the same path."""
    other = Shop(server)
    ours, theirs = buy(shop, 5), buy(other, 5)
    assert page(connection, shop, 0) == ours[:2]
    theirs = buy(other, 1) + theirs
    assert page(connection, other, 2) == theirs[2:4]
    buy(shop, 1)
    assert page(connection, shop, 2) == ours[2:4]
    other.client.close()


@pytest.mark.parametrize("parameter", ["state=ALL", "sort_by=created_time", "user_token=ana", "reader=7"])
def test_every_parameter_names_the_list(shop: Shop, connection: OpenConnection, parameter: str) -> None:
    """A bookmark is not used for a list with another filter, another order or an additional parameter."""
    before = buy(shop, 6)
    page(connection, shop, 0)
    after = buy(shop, 2) + before
    if parameter.startswith("sort_by"):
        after = after[::-1]
    assert page(connection, shop, 2, f"{PATH}&{parameter}") == after[2:4]
    assert page(connection, shop, 2) == before[2:4]


def test_pages_that_are_asked_for_together_follow_one_another(shop: Shop, server: RunningServer) -> None:
    """Requests that are sent without waiting run in their order, so each uses the bookmark of the one before."""
    before, got = buy(shop, 12), list[str]()
    with socket.create_connection((HOST, server.port), timeout=60) as sock:
        for first in (0, 6):
            heads = [
                f"GET {PATH}&count=2&start_index={start} HTTP/1.1\r\nhost: {HOST}\r\n"
                f"authorization: {shop.client._authorization}\r\n\r\n"
                for start in range(first, first + 6, 2)
            ]
            sock.sendall("".join(heads).encode())
            answers = sock.makefile("rb")
            got += [token for _ in heads for token in tokens_of(answers)]
            buy(shop, 3)
    assert got == before


def tokens_of(answers: Any) -> list[str]:
    """Return the tokens in the next response of a connection."""
    size = 0
    while (line := answers.readline()) not in (b"\r\n", b""):
        if line.lower().startswith(b"content-length:"):
            size = int(line.split(b":")[1])
    return [str(entry["token"]) for entry in json.loads(answers.read(size))["data"]]


def test_a_reset_removes_the_bookmarks(shop: Shop, connection: OpenConnection) -> None:
    """A reset removes the bookmarks, because their entries are gone and the program's clock goes back."""
    buy(shop, 6)
    assert len(page(connection, shop, 0)) == 2
    assert shop.client.post("/sandbox/reset", {}).status == 200
    users = [shop.client.post("/users", {"token": f"user-{number}"}).json["token"] for number in range(4)]
    listed = "/v3/users?sort_by=createdTime"
    assert page(connection, shop, 0, listed) == users[:2]
    assert shop.client.post("/sandbox/reset", {}).status == 200
    users = [shop.client.post("/users", {"token": f"other-{number}"}).json["token"] for number in range(4)]
    assert page(connection, shop, 2, listed) == users[2:]
