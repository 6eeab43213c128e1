"""Endpoints: their ids depend on program, scheme, host and port, and on nothing else of a URL."""

import pytest

from cardwright.outbox.endpoint import endpoint_id_of

URL = "https://hooks.example.com/a"


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/another/path?with=query",
        "https://hooks.example.com",
        "https://hooks.example.com:443/a",
        "HTTPS://Hooks.Example.COM/a",
        "https://hooks.example.com./a",
    ],
)
def test_urls_of_one_endpoint_have_one_id(url: str) -> None:
    """Path, query, upper case and the default port make no other endpoint."""
    assert endpoint_id_of(1, url) == endpoint_id_of(1, URL)


@pytest.mark.parametrize(
    ("program_id", "url"),
    [
        (1, "http://hooks.example.com/a"),
        (1, "https://hooks.example.com:444/a"),
        (1, "https://hook.example.com/a"),
        (1, "not a URL"),
        (11, URL),
        (2, URL),
    ],
)
def test_another_scheme_host_port_or_program_is_another_endpoint(program_id: int, url: str) -> None:
    """A different scheme, host, port or program gives a different id."""
    assert endpoint_id_of(program_id, url) != endpoint_id_of(1, URL)


def test_ids_are_below_those_of_webhooks() -> None:
    """The ids are negative and fit into 64 bits."""
    ids = [endpoint_id_of(program_id, f"https://{number}.example.com/") for program_id in range(20) for number in range(50)]
    assert len(set(ids)) == 1_000
    assert all(-(2**63) < endpoint_id < 0 for endpoint_id in ids)
