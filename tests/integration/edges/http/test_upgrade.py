"""Requests with ``Upgrade: h2c``: the header is ignored (RFC 9110, 7.8), and the response is the same as without it."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import migrated_file
from tests.support.protocol import Running, read_answer, run_protocol
from tests.support.server import HOST, RunningServer

UPGRADE = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
LENGTH = b"content-length: 5\r\n\r\nhello"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"

# Recorded from `HttpClient.newHttpClient()` of OpenJDK 17.0.15, in the pieces that it wrote. Only the Host differs.
JAVA_HEAD = (
    "{verb} {path} HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: {length}\r\nHost: 127.0.0.1:45593\r\n"
    "HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA\r\nUpgrade: h2c\r\nUser-Agent: Java-http-client/17.0.15\r\n"
    "Authorization: Basic dGVzdF9hcHBsaWNhdGlvbjp0ZXN0X2FjY2Vzc190b2tlbg==\r\n"
)
JAVA_CONTENT_TYPE = "Content-Type: application/json\r\n"
JAVA_GUIDE = [
    ("GET", "/v3/ping", ""),
    ("POST", "/v3/fundingsources/program", '{"token": "guide_funding", "name": "Guide Program Funding"}'),
    (
        "POST",
        "/v3/cardproducts",
        '{"token": "guide_product", "name": "Guide Virtual Card", "start_date": "2026-01-01", "config": '
        '{"fulfillment": {"payment_instrument": "VIRTUAL_PAN"}, "card_life_cycle": {"activate_upon_issue": true}, '
        '"jit_funding": {"program_funding_source": {"enabled": true, "funding_source_token": "guide_funding", '
        '"refunds_destination": "PROGRAM_FUNDING_SOURCE"}}}}',
    ),
    ("POST", "/v3/users", '{"token": "guide_user", "first_name": "Mara", "last_name": "Okafor"}'),
    ("PUT", "/v3/users/guide_user", '{"last_name": "Okafor-Lind"}'),
    ("POST", "/v3/cards", '{"token": "guide_card", "user_token": "guide_user", "card_product_token": "guide_product"}'),
    ("POST", "/v3/simulate/authorization", '{"card_token": "guide_card", "amount": 25, "mid": "1234567890"}'),
]


def java_pieces() -> Iterator[tuple[bytes, bytes]]:
    """Yield head and body of each request. The client wrote most of them separately."""
    for verb, path, body in JAVA_GUIDE:
        head = JAVA_HEAD.format(verb=verb, path=path, length=len(body)) + (JAVA_CONTENT_TYPE if body else "")
        yield f"{head}\r\n".encode(), body.encode()


@pytest.mark.parametrize("verb", [b"POST", b"PUT"])
@pytest.mark.parametrize("body", [LENGTH, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("path", [b"/v3/a", b"/body"])
def test_a_body_is_read_wherever_the_bytes_are_split(verb: bytes, body: bytes, path: bytes) -> None:
    """A body is read on both paths and with both framings, split at every byte. The connection serves later requests."""
    request = b"%s %s HTTP/1.1\r\nhost: x\r\n%s%s" % (verb, path, UPGRADE, body)
    expected = (200, b"/v3/a  5") if path == b"/v3/a" else (200, b"page")

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        protocol = running.protocols[0]
        for index in range(1, len(request)):
            # The transport delivers the two pieces in two calls.
            protocol.data_received(request[:index])
            protocol.data_received(request[index:])
            assert await read_answer(reader) == expected
        writer.write(request * 3 + b"GET /v3/b HTTP/1.1\r\nhost: x\r\n\r\n")
        assert [await read_answer(reader) for _ in range(4)] == [expected] * 3 + [(200, b"/v3/b  0")]
        assert all(dict(head.headers).get(b"upgrade") is None for head in running.handler.requests)
        assert set(running.handler.bodies) <= {b"hello"}
        writer.close()

    run_protocol(say)


def test_a_limit_holds_for_a_request_with_an_upgrade_too() -> None:
    """The limit of a body also applies to a request with an upgrade, although its head is parsed twice."""

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(b"POST /body HTTP/1.1\r\nhost: x\r\n%scontent-length: 101\r\n\r\n" % UPGRADE)
        status, body = await read_answer(reader)
        assert (status, json.loads(body)["error_code"]) == (413, "413001")
        assert await reader.read() == b""
        writer.close()

    run_protocol(say, body_max_bytes=100)


@pytest.mark.parametrize("is_apart", [True, False])
def test_the_bytes_of_a_java_client_walk_through_the_guide(tmp_path: Path, is_apart: bool) -> None:
    """The bytes of a Java HttpClient create program, card and purchase, with head and body separate or together."""
    statuses = []
    with (
        RunningServer(db=migrated_file(tmp_path / "cardwright.db")) as server,
        socket.create_connection((HOST, server.port), 30) as client,
    ):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = client.makefile("rb")
        for head, body in java_pieces():
            for piece in (head, body) if is_apart else (head + body,):
                client.sendall(piece)
            statuses.append(int(answers.readline().split()[1]))
            fields = dict(line.lower().strip().split(b": ", 1) for line in iter(answers.readline, b"\r\n"))
            answer = json.loads(answers.read(int(fields[b"content-length"])))
    assert statuses == [200, 201, 201, 201, 200, 201, 201]
    assert answer["transaction"]["response"]["code"] == "0000"
