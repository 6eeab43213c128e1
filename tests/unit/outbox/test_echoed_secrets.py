"""Endpoints: texts of an endpoint are shown without the secrets that it may echo."""

import base64
import html
import json
from urllib.parse import quote

import pytest

from cardwright.kit.masks import REDACTED
from cardwright.outbox.endpoint import Endpoint

PASSWORD, SECRET, HEADER = 'Harb0r"\\/<Passw0rd>!', "Quiet'Harbor&7421+L", "Bearer pier/7 token"
ENDPOINT = Endpoint(
    url="http://127.0.0.1/", username="harbor", password=PASSWORD, secret=SECRET, custom_header={"X-A": HEADER, "X-B": "7"}
)
PAIR = base64.b64encode(f"harbor:{PASSWORD}".encode()).decode()


@pytest.mark.parametrize("secret", [PASSWORD, SECRET, HEADER, PAIR])
@pytest.mark.parametrize(
    "write",
    [
        str,
        json.dumps,
        repr,
        lambda text: json.dumps(text).replace("/", "\\/"),
        lambda text: json.dumps(json.dumps(text)),
        lambda text: json.dumps(text).replace("<", "\\u003c").replace("&", "\\u0026").replace("'", "\\u0027"),
        html.escape,
        quote,
    ],
    ids=["plain", "json", "repr", "php", "json twice", "json for html", "html", "url"],
)
def test_echoed_secrets_are_not_shown(secret: str, write: object) -> None:
    """An echoed secret is replaced in every usual notation."""
    assert callable(write)
    echoed = write(secret)
    shown = ENDPOINT.shown(f"you sent {echoed} to me")
    assert echoed not in shown
    assert REDACTED in shown


def test_other_texts_stay() -> None:
    """A text without secrets is unchanged. A header value of one character counts as no secret."""
    assert ENDPOINT.shown('{"ok":true,"pier":7,"user":"harbor"}') == '{"ok":true,"pier":7,"user":"harbor"}'


def test_a_secret_within_a_secret_leaves_no_rest() -> None:
    """If one secret is the beginning of another, the whole longer one is replaced."""
    endpoint = Endpoint(url="http://127.0.0.1/", password="long-password", custom_header={"X-A": "long-password-and-rest"})
    assert endpoint.shown("long-password-and-rest, long-password") == f"{REDACTED}, {REDACTED}"
