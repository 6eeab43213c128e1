"""Rules for the secrets of an operator: the reasons why a token or a key is too weak for production."""

from collections.abc import Iterator

TOKEN_MIN = 16
"""Minimum number of characters of a token."""

KEY_BYTES_MIN = 16
"""Minimum number of different bytes in a key. Of 32 random bytes, fewer differ with a probability below 10^-16."""

DOCUMENTED_KEYS = (
    "f6c7651b0dbda650d2a300bfafb60d921821a2ea1e533a8cffd9a2ab28efcff5",
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
)
"""Keys that the documentation and the tests show, so everybody knows them."""


def token_faults(application_token: str, access_token: str) -> Iterator[tuple[str, str]]:
    """Yield the name of each weak token and the reason."""
    for name, token in (("application_token", application_token), ("access_token", access_token)):
        if len(token) < TOKEN_MIN:
            yield name, f"production needs at least {TOKEN_MIN} characters, and it has {len(token)}"
        if token != token.strip():
            yield name, "it begins or ends with white space"
    if ":" in application_token:
        yield "application_token", "it contains a colon, which ends the user name in HTTP Basic authentication"
    if application_token == access_token:
        yield "access_token", "it equals the application token"


def key_fault(key: str) -> str | None:
    """Return the reason why a well-formed key in hexadecimal digits is weak, or None."""
    content = bytes.fromhex(key)
    if content in map(bytes.fromhex, DOCUMENTED_KEYS):
        return "it is an example of the documentation, which everybody knows"
    if len(set(content)) < KEY_BYTES_MIN:
        return f"it is not random: it has {len(set(content))} different bytes, and production needs at least {KEY_BYTES_MIN}"
    return None
