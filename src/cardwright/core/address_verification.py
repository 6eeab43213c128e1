"""Address verification: the address that a purchase carries, compared with the cardholder's address on file.

As in the Address Verification Service (AVS) of card networks, the compared parts are the number in the street address and the
postal code. Each part has an outcome of two digits (wire reference, "Verification objects").
"""

import re
from unicodedata import normalize

MATCH, NO_MATCH, NOT_SENT, NOT_CHECKED = "00", "01", "02", "03"
"""Outcomes of one part."""

UNCHECKED = NOT_CHECKED * 2
"""The outcome of both parts where the card product checks no addresses."""

ZIP_DIGITS = 5
"""Digits of a ZIP code; with the four digits of ZIP+4 there are nine."""

ZIP_PLUS_4_DIGITS = 9

_NUMBER = re.compile(r"[0-9]+")


def outcome_of(
    street: str | None, postal_code: str | None, street_on_file: str | None, postal_code_on_file: str | None
) -> str | None:
    """Return the four digits for an address and the one on file; None when the message has neither part.

    A part is absent when it is None or has neither letters nor digits.
    """
    outcome = street_outcome(street, street_on_file) + postal_code_outcome(postal_code, postal_code_on_file)
    return None if outcome == NOT_SENT * 2 else outcome


def street_outcome(street: str | None, on_file: str | None) -> str:
    """Compare the first number of each street address, such as the 12 of ``12B Main St.``.

    An address on file without a number, such as a house name, matches the same letters; another address is not checked then.
    """
    sent, known = _plain(street), _plain(on_file)
    if not _compact(sent):
        return NOT_SENT
    if not _compact(known):
        return NOT_CHECKED
    number = _first_number(known)
    if number is None:
        return MATCH if _compact(sent) == _compact(known) else NOT_CHECKED
    return MATCH if _first_number(sent) == number else NO_MATCH


def postal_code_outcome(postal_code: str | None, on_file: str | None) -> str:
    """Compare letters and digits without case; of a ZIP+4 code only the ZIP code counts."""
    sent, known = _postal_code(postal_code), _postal_code(on_file)
    if not sent:
        return NOT_SENT
    if not known:
        return NOT_CHECKED
    return MATCH if sent == known else NO_MATCH


def _first_number(street: str) -> int | None:
    match = _NUMBER.search(street)
    return int(match[0]) if match is not None else None


def _postal_code(text: str | None) -> str:
    """Return the comparable form of a postal code. Clients that send a ZIP code as a number lose its leading zeros."""
    code = _compact(_plain(text))
    if not code.isdecimal():
        return code
    if len(code) == ZIP_PLUS_4_DIGITS:
        code = code[:ZIP_DIGITS]
    return code.lstrip("0") or "0"


def _plain(text: str | None) -> str:
    """Return the text with one form for each character: full-width digits become digits (Unicode NFKC)."""
    return normalize("NFKC", text or "")


def _compact(text: str) -> str:
    """Return only letters and digits, case-folded."""
    return "".join(filter(str.isalnum, text)).casefold()
