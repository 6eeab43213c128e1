"""Origins: requests that a page of another origin caused, and the names of a server on a loopback address."""

import pytest

from cardwright.kit.origins import is_cross_origin, is_local_host

HERE = {b"host": b"127.0.0.1:8181"}
NAMES = frozenset({"build-1", "0.0.0.0"})


@pytest.mark.parametrize(
    ("headers", "is_foreign"),
    [
        ({}, False),
        (HERE, False),
        (HERE | {b"origin": b"http://127.0.0.1:8181"}, False),
        (HERE | {b"origin": b"HTTP://127.0.0.1:8181"}, False),
        ({b"host": b"LOCALHOST:8181", b"origin": b"http://localhost:8181"}, False),
        ({b"host": b"cards.example.com", b"origin": b"https://cards.example.com"}, False),
        (HERE | {b"origin": b"http://127.0.0.1:3000"}, True),
        (HERE | {b"origin": b"http://localhost:8181"}, True),
        (HERE | {b"origin": b"https://evil.example"}, True),
        (HERE | {b"origin": b"null"}, True),
        (HERE | {b"origin": b""}, True),
        ({b"origin": b"http://127.0.0.1:8181"}, True),
        ({b"origin": b"null"}, True),
        ({b"host": b"", b"origin": b"null"}, True),
        (HERE | {b"sec-fetch-site": b"same-origin", b"origin": b"http://127.0.0.1:8181"}, False),
        (HERE | {b"sec-fetch-site": b"none"}, False),
        # A proxy has changed the name in Host.
        ({b"host": b"backend:8181", b"sec-fetch-site": b"same-origin", b"origin": b"https://cards.example.com"}, False),
        (HERE | {b"sec-fetch-site": b"cross-site"}, True),
        (HERE | {b"sec-fetch-site": b"same-site", b"origin": b"http://127.0.0.1:3000"}, True),
        (HERE | {b"sec-fetch-site": b"cross-site", b"origin": b"http://127.0.0.1:8181"}, True),
        (HERE | {b"sec-fetch-site": b""}, True),
    ],
)
def test_a_request_of_another_origin_is_recognised(headers: dict[bytes, bytes], is_foreign: bool) -> None:
    """``Sec-Fetch-Site`` decides, or else the comparison of ``Origin`` with ``Host``. A request without both is not foreign."""
    assert is_cross_origin(headers) is is_foreign


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        (b"localhost", True),
        (b"localhost:8181", True),
        (b"LocalHost.:8181", True),
        (b"cards.localhost:1", True),
        (b"127.0.0.1:8181", True),
        (b"127.8.9.10", True),
        (b"[::1]:8181", True),
        (b"[0:0:0:0:0:0:0:1]", True),
        (b"build-1:8181", True),
        (b"BUILD-1", True),
        (b"0.0.0.0:8181", True),
        (b"", False),
        (b":8181", False),
        (b"evil.example:8181", False),
        (b"localhost.evil.example", False),
        (b"evillocalhost", False),
        (b"127.0.0.1.evil.example", False),
        (b"127.1", False),
        (b"2130706433", False),
        (b"192.168.0.1:8181", False),
        (b"169.254.169.254", False),
        (b"[::2]:8181", False),
        (b"[fe80::1]", False),
        (b"::1", False),
        (b"localhost:8181:80", False),
        (b"localhost:x", False),
        (b"user@localhost", False),
        (b"localhost\xff", False),
        ("１２７.0.0.1".encode(), False),
        (b"localhost evil.example", False),
        (b"evil.example, localhost", False),
    ],
)
def test_a_loopback_server_knows_its_names(host: bytes, is_local: bool) -> None:
    """Names and addresses that cannot be rebound are local, and the given names. Everything else is another host."""
    assert is_local_host(host, NAMES) is is_local
