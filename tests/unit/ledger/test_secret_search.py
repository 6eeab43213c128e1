"""Search for secrets in clear text: every planted secret is found, and nothing else, compared with a plain search."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright.ledger.invariants.secrets import WORD_BYTES, Search, Secret
from cardwright.outbox.endpoint import SECRET_MIN

SECRETS = ("Harb0r-Passw0rd!", 'Pier"7\\/token', "Bearer 1", "Bearer 12", "Bearer 1-éé")
CODES = frozenset({"123", "007"})
NOISE = st.text('Bearer 12-!7"\\/x\0é', max_size=40)


def search(*texts: str) -> Search:
    return Search((Secret("a header", f"row {text}", text) for text in texts), CODES)


@given(st.lists(st.sampled_from(SECRETS) | NOISE, max_size=8))
def test_the_search_finds_what_a_plain_search_finds(parts: list[str]) -> None:
    """A secret is found at every position, also beside others and where one is the beginning of another."""
    text = "".join(parts).encode()
    expected = {f"a header of row {secret}" for secret in SECRETS if secret.encode() in text}
    escaped = {f"a header of row {secret}" for secret in SECRETS if json.dumps(secret)[1:-1].encode() in text}
    kinds = set(search(*SECRETS).kinds_in(text)) - {"a security code of a card"}
    assert expected <= kinds <= expected | escaped | {f"a header of row {SECRETS[1]}"}
    assert not kinds or search(*SECRETS).finds_any(text)


def test_a_secret_in_json_is_found() -> None:
    """A secret with quotation marks and backslashes is found in the form that JSON gives it, with and without escaped slashes."""
    document = json.dumps({"notes": f"try {SECRETS[1]} there"})
    for text in (document, document.replace("/", "\\/")):
        assert list(search(*SECRETS).kinds_in(text.encode())) == [f"a header of row {SECRETS[1]}"]


def test_short_values_are_no_secrets() -> None:
    """A header value below the minimum is not searched for, because it also occurs by chance."""
    assert 2 * WORD_BYTES - 1 <= SECRET_MIN
    short = "x" * (SECRET_MIN - 1)
    assert list(search(short).kinds_in(f"a {short} b".encode())) == []


@pytest.mark.parametrize(
    ("text", "is_code"),
    [
        ('{"cvv_number":"123"}', True),
        ('{"chip_cvv_number": "007"}', True),
        ('"{\\"CVV2\\":\\"123\\"}"', True),
        ("cvv=123&amount=1", True),
        ('{"card_security_code":123}', True),
        ("\x83\xa3cvv\xa3123", True),
        ('{"cvv_number":"124"}', False),
        ('{"cvv_number":"1234"}', False),
        ('{"amount":123}', False),
        ('{"all_zero_card_security_code":false,"amount":123}', False),
        ("the cvv does not match 123", False),
    ],
)
def test_a_security_code_counts_in_its_field(text: str, is_code: bool) -> None:
    """Three digits count only as the value of a field that names a security code, and only if a card has this code."""
    kinds = list(search().kinds_in(text.encode("latin-1")))
    assert kinds == (["a security code of a card"] if is_code else [])
    assert search().finds_any(text.encode("latin-1")) or not is_code
