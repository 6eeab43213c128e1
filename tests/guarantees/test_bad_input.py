"""Invalid input: every field of every body with invalid values, and invalid bodies, paths, queries and methods, get 4xx."""

import contextlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from tests.stress.invalid_bodies import Field, fields_of, texts_of, with_value, wrong_values
from tests.stress.object_graph import ALL, WATCHED, ObjectGraph, Place, filled, required_query, working_values
from tests.support.server import HOST, Reply, RunningServer

PLACES = sorted(ALL)
WITH_BODY = [place for place in PLACES if ALL[place].body is not None and place != ("POST", "/sandbox/reset")]
WITH_PAGES = [place for place in PLACES if ALL[place].paging is not None]
WITH_QUERY = [place for place in PLACES if ALL[place].query is not None]

Rows = Callable[[], dict[str, int]]

ALL_SORTS_OF_TEXT = ("‮‏", "￿￾", "💳" * 5, "e\u0301", "'; DROP TABLE users; --", "%s%n", "{{7*7}}", "../../etc", "\t\r\n", " ")
"""Unusual texts, which are stored unchanged or refused, without a 5xx."""


def name_of(place: Place) -> str:
    return " ".join(place)


def check(reply: Reply, *names: str) -> None:
    """Assert an error in the wire format: a code of six digits that begins with the status, and a message with these names."""
    assert 400 <= reply.status < 500, (reply.status, reply.text)
    assert set(reply.json) == {"error_code", "error_message"}, reply.text
    code, message = reply.json["error_code"], reply.json["error_message"]
    assert re.fullmatch(r"[0-9]{6}", code), reply.text
    assert code.startswith(str(reply.status)), reply.text
    assert message, reply.text
    assert not [name for name in names if name not in message], (names, reply.text)


def target(object_graph: ObjectGraph, place: Place) -> str:
    """Return a path of the route that leads to an object."""
    values = TARGETS[place]
    assert values is not None, (
        f"no object of the object graph is found by {name_of(place)}: tests/stress/object_graph.py must make one"
    )
    query = "&".join(f"{name}={value}" for name, value in required_query(object_graph, place).items())
    return filled(place[1], values) + (f"?{query}" if query else "")


TARGETS: dict[Place, tuple[str, ...] | None] = {}
"""Values of the path parameters of all routes."""


@pytest.fixture(scope="module", autouse=True)
def targets(object_graph: ObjectGraph) -> None:
    """Find working values before the tests create thousands of tokens, because each token in the program is a candidate."""
    # DELETE removes its object, so it comes last.
    for place in sorted(PLACES, key=lambda place: place[0] == "DELETE"):
        if place in WITH_BODY or place in WITH_PAGES or place in WITH_QUERY:
            TARGETS[place] = working_values(object_graph, place)


def body_of(object_graph: ObjectGraph, place: Place) -> dict[str, Any]:
    """Return the route's example without token and email, because a create checks for a repeat before it validates the rest."""
    return {name: value for name, value in object_graph.body_of(place).items() if name not in ("token", "email")}


# --- Fields ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", WITH_BODY, ids=name_of)
def test_every_wrong_field_is_named(object_graph: ObjectGraph, rows: Rows, place: Place) -> None:
    """A missing, null, too short, too long, mistyped or out-of-range field gets 4xx with its name, and no row is written."""
    path, body, shape = target(object_graph, place), body_of(object_graph, place), ALL[place].body
    assert shape is not None
    before = rows()
    for number, field in enumerate(fields_of(shape)):
        for value in wrong_values(field, number):
            reply = object_graph.client.request(place[0], path, with_value(body, field.path, value, shape))
            assert 400 <= reply.status < 500, (field.path, value, reply.status, reply.text)
            check(reply, field.name)
    assert rows() == before


@pytest.mark.parametrize("place", WITH_BODY, ids=name_of)
def test_text_that_is_no_text(object_graph: ObjectGraph, rows: Rows, place: Place) -> None:
    """NUL characters, lone surrogates and bytes that are not UTF-8 get 4xx in every text field, and no row is written."""
    path, body, shape = target(object_graph, place), body_of(object_graph, place), ALL[place].body
    assert shape is not None
    before = rows()
    escapes = (b"\\u0000", b"\\ud800", b"a\\udc00b", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x00")
    for number, field in enumerate(texts_of(shape)):
        for escape in (escapes[0], escapes[1 + number % (len(escapes) - 1)]):
            raw = json.dumps(with_value(body, field.path, "@@", shape)).encode().replace(b"@@", escape)
            check(object_graph.client.request(place[0], path, raw))
    assert rows() == before


@pytest.mark.parametrize("place", WITH_BODY, ids=name_of)
def test_unusual_values_do_no_harm(object_graph: ObjectGraph, place: Place) -> None:
    """Unusual but legal text, huge numbers and duplicate keys never get 5xx."""
    path, shape = target(object_graph, place), ALL[place].body
    assert shape is not None
    body = None
    for number, field in enumerate(fields_of(shape)):
        for value in unusual_values(field, number):
            # A refused body can be sent again. An accepted one may have used up the purchase that it names.
            body = body or body_of(object_graph, place)
            reply = object_graph.client.request(place[0], path, with_value(body, field.path, value, shape))
            assert reply.status < 500, (field.path, value, reply.text)
            if reply.status < 400:
                body = None
            if place[1] == WATCHED and reply.status == 201:
                # Otherwise it would write rows while another test counts them.
                object_graph.wait_for(filled(f"{WATCHED}/{{token}}", [reply.json["token"]]))
    object_graph.undo(place)
    raw = json.dumps(body_of(object_graph, place))[1:]
    assert (
        object_graph.client.request(place[0], path, f'{{"name":5,"amount":"x","token":"{"x" * 99}",{raw}'.encode()).status < 500
    )


def unusual_values(field: Field, number: int) -> Iterator[Any]:
    """Yield unusual values of the field's types. Each field gets only some of the texts, because all fields treat text alike."""
    for kind in field.types:
        match kind:
            case inspect.StrType():
                text = ALL_SORTS_OF_TEXT[number % len(ALL_SORTS_OF_TEXT)]
                yield from (text[: kind.max_length or 100], "💳" * min(kind.max_length or 3000, 3000))
            case inspect.IntType():
                yield from (-1, 0, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, "9" * 5000)
            case inspect.DecimalType():
                yield from ("0", "0.00", "1e2", "0e-999999", "999999999999999", "1" * 400, 10**400, "-0")
            case inspect.DictType():
                yield from ({"k" * 256: "v"}, {"": ""}, {"k": "v" * 256}, {"\x00": "v"}, {f"k{n}": "v" for n in range(21)})
            case _:
                pass


# --- Bodies ------------------------------------------------------------------------------

NO_BODIES = {
    "empty": b"", "blank": b" \n", "an array": b"[]", "text": b'"x"', "a number": b"1", "null": b"null", "words": b"not JSON",
    "half": b'{"token":', "twice": b"{}{}", "a comma too many": b'{"token":"x",}', "single quotes": b"{'token':'x'}",
    "a byte order mark": b"\xef\xbb\xbf{}", "UTF-16": '{"token":"x"}'.encode("utf-16"),
    "NaN": b'{"amount":NaN}', "Infinity": b'{"amount":-Infinity}', "hexadecimal": b'{"amount":0x10}', "octal": b'{"amount":01}',
    "arrays, 10,000 deep": b"[" * 10_000, "objects, 10,000 deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "metadata, 10,000 deep": b'{"metadata":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "compressed": b"\x1f\x8b\x08\x00",
}  # fmt: skip
"""Invalid bodies by their fault."""


@pytest.mark.parametrize("place", WITH_BODY, ids=name_of)
def test_what_is_no_body(object_graph: ObjectGraph, rows: Rows, place: Place) -> None:
    """A body that is not a JSON object, is nested too deeply or too large, or has another content type gets 400, 413 or 415."""
    path, before = target(object_graph, place), rows()
    for fault, raw in NO_BODIES.items():
        reply = object_graph.client.request(place[0], path, raw)
        assert reply.status == 400, (fault, reply.status, reply.text)
        check(reply)
    too_large = b'{"name":"' + b"x" * 2_000_000 + b'"}'
    reply = object_graph.client.request(place[0], path, too_large)
    assert reply.status == 413
    check(reply)
    good = json.dumps(body_of(object_graph, place)).encode()
    before["transactions"] = rows()["transactions"]
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml", "", "json", "multipart/form-data; a=b"):
        reply = object_graph.client.request(place[0], path, good, headers={"Content-Type": kind})
        assert reply.status == 415, kind
        check(reply)
    changed = {name: count for name, count in rows().items() if count != before[name]}
    assert changed.keys() <= {"holder_transactions", "journal", "movements", "outbox", "transactions"}, changed


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def raw_exchange(server: RunningServer, object_graph: ObjectGraph, head: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send bytes unchanged; return status and body of the answer, status 0 if the server closed the connection without one."""
    with socket.create_connection((HOST, server.port), timeout=60) as connection:
        text = f"{head}\r\nHost: {HOST}\r\nAuthorization: {object_graph.client._authorization}\r\nConnection: close\r\n\r\n"
        answer = b""
        # The server may close the connection before a body that is too large is sent completely.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(text.encode("latin-1") + body)
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                answer += chunk
    status, _, rest = answer.partition(b"\r\n")
    return (int(status.split()[1]) if status else 0), rest.partition(b"\r\n\r\n")[2]


def test_chunked_bodies(server: RunningServer, object_graph: ObjectGraph) -> None:
    """A chunked body is accepted. A body that is too large, or invalid chunks, get 4xx or a closed connection."""
    head = "POST /v3/users HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
    assert raw_exchange(server, object_graph, head, chunked(b'{"first_', b'name":', b'"Ana"}'))[0] == 201
    status, body = raw_exchange(server, object_graph, head, chunked(*[b" " * 65536] * 40))
    assert status in (0, 413), (status, body)
    assert raw_exchange(server, object_graph, head, b"zz\r\nnonsense\r\n")[0] in (0, 400)
    assert raw_exchange(server, object_graph, head, chunked(b""))[0] == 400


# --- Paths and methods -------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES, ids=name_of)
def test_other_methods(object_graph: ObjectGraph, place: Place) -> None:
    """A method that a path does not have gets 405, and the message names the methods that the path has."""
    path = place[1].replace("{", "").replace("}", "")
    known = {verb for verb, other in PLACES if other == place[1]}
    for verb in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} - known:
        reply = object_graph.client.request(verb, path, b"{}")
        if reply.status != 404 and place[1].startswith("/sandbox/inbox/"):
            continue
        assert reply.status in (405, 404), (verb, reply.status, reply.text)
        check(reply)
    reply = object_graph.client.request("PATCH", path)
    assert reply.status == 405
    check(reply, place[0])


NOWHERE = (
    "/v3/nowhere", "/v3/", "/v3", "/v3/users/ana/nowhere", "/v3/users//ana", "/v4/users", "/V3/users", "/v3/users/../users/ana",
    "/v3/users/%00", "/v3/users/a%00b", "/v3/cards/%", "/v3/cards/%zz", "/v3/cards/%ff%fe", "/v3/cards/%ed%a0%80",
    "/v3/cards/" + "x" * 5000, "/sandbox/nowhere", "/sandbox/", "/sandbox/inbox/a/b/c", "/v3/cards/barcode/%F0%9F%92%B3",
    *(f"/v3/transactions/{token}" for token in (
        "f" * 36, "f" * 32, "-" * 36, "ffffffff-ffff-7fff-bfff-ffffffffffff", "00000000-0000-7000-8000-000000000000",
    )),
)  # fmt: skip


@pytest.mark.parametrize("path", NOWHERE, ids=lambda path: path[:40])
def test_paths_that_lead_nowhere(server: RunningServer, object_graph: ObjectGraph, path: str) -> None:
    """Unknown paths and tokens, and invalid encodings, get 4xx, below /v3 and /sandbox in the wire format."""
    status, body = raw_exchange(server, object_graph, f"GET {path} HTTP/1.1")
    assert 400 <= status < 500, (status, body)
    if path.startswith(("/v3/", "/sandbox/")):
        # Every valid HTTP request to the API gets an error in the wire format.
        assert json.loads(body)["error_code"].startswith(str(status)), body


# --- Queries -----------------------------------------------------------------------------

BAD_PAGES = {
    "count": ("-1", "101", "1000000", "abc", "", "1.5", "1e9", "9" * 30, "9" * 5000, "0x10", "%D9%A3", "%00", "null"),
    "start_index": ("-1", "abc", "", "1.5", "9" * 30, "1000000001", "%00", "NaN"),
    "sort_by": ("nonsense", "-nonsense", "--createdTime", "doc", "-program_id", "%00", "created_ms;drop", "x" * 3000),
    "fields": ("%00", "%ff"),
}  # fmt: skip


@pytest.mark.parametrize("place", WITH_PAGES, ids=name_of)
def test_pages_that_are_none(object_graph: ObjectGraph, place: Place) -> None:
    """Invalid values of count, start_index and sort_by get 4xx with the name of the parameter, on every list."""
    path = target(object_graph, place)
    sign = "&" if "?" in path else "?"
    for name, values in BAD_PAGES.items():
        for value in values:
            reply = object_graph.client.request(place[0], f"{path}{sign}{name}={value}", object_graph.body_of(place))
            if is_tolerated(place, name, value):
                assert reply.status < 500, (name, value, reply.text)
            else:
                assert 400 <= reply.status < 500, (name, value, reply.status, reply.text)
                check(reply, *(() if "%" in value or reply.status == 413 else (name,)))
    for fields in ("nonsense", ",,,", "token,,", "x" * 3000, "token.x", "*"):
        reply = object_graph.client.request(place[0], f"{path}{sign}fields={fields}", object_graph.body_of(place))
        assert reply.status == 200, (fields, reply.text)


def is_tolerated(place: Place, name: str, value: str) -> bool:
    """Return True for sort_by at the webhook inbox, which ignores it, and for an empty value."""
    return (place[1] == "/sandbox/inbox/{box}" and name == "sort_by") or not value


BAD_FILTERS = (
    "", "x", "-1", "1.5", "9" * 30, "9" * 5000, "-9223372036854775809", "NaN", "2026-13-45", "9999-12-31T23:59:59Z", "0000-01-01",
    "1969-12-31", "true", "null", ",,", "%00", "%ff", "%F0%9F%92%B3", "x" * 3000,
)  # fmt: skip


@pytest.mark.parametrize("place", WITH_QUERY, ids=name_of)
def test_filters_that_are_none(object_graph: ObjectGraph, place: Place) -> None:
    """Invalid values of any filter never get 5xx."""
    path, shape = target(object_graph, place), ALL[place].query
    assert shape is not None
    sign = "&" if "?" in path else "?"
    for parameter in msgspec.structs.fields(shape):
        for value in BAD_FILTERS:
            reply = object_graph.client.request(place[0], f"{path}{sign}{parameter.name}={value}", object_graph.body_of(place))
            assert reply.status < 500, (parameter.name, value, reply.text)
            if reply.status >= 400:
                check(reply)


QUERIES = ("?", "?&&&", "?=", "?=x", "?a", "?%", "?%zz=1", "?a=%ff", "?%00=1", "?" + "a=1&" * 60, "?a=" + "x" * 30_000)


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query[:10])
def test_query_strings_that_are_none(server: RunningServer, object_graph: ObjectGraph, query: str) -> None:
    """A query string that cannot be parsed is refused or ignored, and never gets 5xx."""
    status, body = raw_exchange(server, object_graph, f"GET /v3/users{query} HTTP/1.1")
    assert status in (200, 400, 414, 431), (status, body)


ODD_TOKENS = ("a b", "a?b", "a#b", "a%2Fb", "ä", "💳", "..", "a+b", "'", '"', "a&b=c", "a/b", "\\", "a;b", "<b>", "null")


@pytest.mark.parametrize("token", ODD_TOKENS)
def test_odd_tokens_are_refused_or_find_their_object(object_graph: ObjectGraph, token: str) -> None:
    """A token with unusual characters is refused, or finds its object."""
    made = object_graph.client.post("/users", {"token": token})
    if made.status >= 400:
        check(made, "token")
        return
    reply = object_graph.client.get(filled("/users/{token}", [token]))
    assert (reply.status, reply.json["token"]) == (200, token), reply.text
