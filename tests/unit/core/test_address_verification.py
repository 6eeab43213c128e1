"""Address verification: tables of street addresses and postal codes with their outcomes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright.core.address_verification import (
    MATCH,
    NO_MATCH,
    NOT_CHECKED,
    NOT_SENT,
    outcome_of,
    postal_code_outcome,
    street_outcome,
)

OUTCOMES = {"match": MATCH, "no match": NO_MATCH, "not sent": NOT_SENT, "not checked": NOT_CHECKED}

POSTAL_CODES = """
    sent       | on file    | outcome
    94501      | 94501      | match
    94501      | 94502      | no match
    94501      | 94501-1234 | match
    94501-1234 | 94501      | match
    945011234  | 94501      | match
    94501      | 945011234  | match
    945011234  | 94501-1234 | match
    94501-1234 | 94501 1234 | match
    94501-1234 | 94501-9876 | match
    94502-1234 | 94501-1234 | no match
    94502-1234 | 94501      | no match
    9450       | 94501      | no match
    945012     | 94501      | no match
    02139      | 02139-4307 | match
    2139       | 02139      | match
    2139       | 20139      | no match
    00000      | 00000      | match
    SW1A 1AA   | SW1A 1AA   | match
    sw1a1aa    | SW1A 1AA   | match
    SW1A-1AA   | sw1a  1aa  | match
    SW1A 1AB   | SW1A 1AA   | no match
    SW1A       | SW1A 1AA   | no match
    K1A 0B1    | k1a0b1     | match
    k1a-0b1    | K1A 0B1    | match
    K1A 0B2    | K1A 0B1    | no match
    11         | SW1A 1AA   | no match
    01310-100  | 01310100   | match
    ９４５０１   | 94501      | match
               | 94501      | not sent
    -          | 94501      | not sent
               |            | not sent
    94501      |            | not checked
    SW1A 1AA   | -          | not checked
"""

STREETS = """
    sent                | on file             | outcome
    12 Main Street      | 12 Main Street      | match
    12 main st.         | 12 Main Street      | match
    12 Elm Road         | 12 Main Street      | match
    12                  | 12 Main Street      | match
    21 Main Street      | 12 Main Street      | no match
    1 Main Street       | 12 Main Street      | no match
    123 Main Street     | 12 Main Street      | no match
    12B Main Street     | 12 b, Main St       | match
    12 Main St Apt 4    | 12 Main Street      | match
    12 34th Street      | 12 34th St          | match
    #12 Main Street     | 12 Main Street      | match
    12-14 Main Street   | 12 Main Street      | match
    0012 Main Street    | 12 Main Street      | match
    Hauptstrasse 12     | Hauptstraße 12      | match
    Hauptstr. 12        | Hauptstraße 12      | match
    Hauptstr. 13        | Hauptstraße 12      | no match
    PO Box 120          | P.O. Box 120        | match
    P.O. Box 121        | PO Box 120          | no match
    １２ Main Street     | 12 Main Street      | match
    Main Street         | 12 Main Street      | no match
    Rose Cottage        | ROSE-COTTAGE        | match
    Lilac Cottage       | Rose Cottage        | not checked
    12 Rose Cottage     | Rose Cottage        | not checked
                        | 12 Main Street      | not sent
    .                   | 12 Main Street      | not sent
                        |                     | not sent
    12 Main Street      |                     | not checked
    12 Main Street      | .                   | not checked
"""


def rows_of(table: str) -> list[tuple[str, str, str]]:
    """Return the rows of a table: the sent part, the part on file, the outcome."""
    cells = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()[1:]]
    return [(sent, on_file, OUTCOMES[outcome]) for sent, on_file, outcome in cells]


@pytest.mark.parametrize(("sent", "on_file", "outcome"), rows_of(POSTAL_CODES))
def test_a_postal_code_is_compared_as_the_table_says(sent: str, on_file: str, outcome: str) -> None:
    """ZIP codes are compared by five digits, other codes by letters and digits. A missing part is not a mismatch."""
    assert postal_code_outcome(sent or None, on_file or None) == outcome


@pytest.mark.parametrize(("sent", "on_file", "outcome"), rows_of(STREETS))
def test_a_street_is_compared_as_the_table_says(sent: str, on_file: str, outcome: str) -> None:
    """The first number decides. Without a number on file, a different text is not checked."""
    assert street_outcome(sent or None, on_file or None) == outcome


def written(characters: str) -> st.SearchStrategy[str]:
    """Return spellings of the same letters and digits in any case, with spaces and hyphens between them."""
    between = st.sampled_from(("", "", "", " ", "-", "  "))
    each = [st.tuples(st.sampled_from((character.lower(), character.upper())), between) for character in characters]
    return st.tuples(*each).map(lambda pairs: "".join(map("".join, pairs)))


ascii_codes = st.text("ABCDEFGHJKLMNPRSTUVWXYZ0123456789", min_size=3, max_size=8).filter(lambda code: not code.isdigit())
zip_codes = st.integers(0, 99999).map("{:05d}".format)
plus_4 = st.integers(0, 9999).map("{:04d}".format)


@given(ascii_codes.flatmap(lambda code: st.tuples(written(code), written(code))))
def test_case_and_blanks_make_no_difference(pair: tuple[str, str]) -> None:
    """Two spellings of a code that differ only in case, spaces and hyphens match."""
    assert postal_code_outcome(*pair) == MATCH


@given(ascii_codes, ascii_codes)
def test_other_letters_or_digits_make_one(sent: str, on_file: str) -> None:
    """Two codes with letters match only if they are equal."""
    assert postal_code_outcome(sent, on_file) == (MATCH if sent == on_file else NO_MATCH)


@given(zip_codes, zip_codes, plus_4, plus_4, st.sampled_from(("", "-", " ")), st.sampled_from(("", "-", " ")))
def test_zip_codes_are_compared_by_five_digits(
    zip_code: str, other_zip_code: str, add_on: str, other_add_on: str, hyphen: str, other_hyphen: str
) -> None:
    """For codes of five or nine digits, with or without a separator, the first five digits decide."""
    expected = MATCH if zip_code == other_zip_code else NO_MATCH
    for sent in (zip_code, f"{zip_code}{hyphen}{add_on}"):
        for on_file in (other_zip_code, f"{other_zip_code}{other_hyphen}{other_add_on}"):
            assert postal_code_outcome(sent, on_file) == expected


texts = st.none() | st.text(max_size=20)


@given(texts, texts)
def test_nothing_on_file_is_never_a_mismatch(street: str | None, postal_code: str | None) -> None:
    """A part without an address on file is never a mismatch. A blank address on file counts as missing."""
    for nothing in (None, "", "  ", "-"):
        outcome = outcome_of(street, postal_code, nothing, nothing)
        assert outcome is None or NO_MATCH not in (outcome[:2], outcome[2:])


@given(texts, texts)
def test_an_address_matches_itself(street: str | None, postal_code: str | None) -> None:
    """The unchanged address on file matches in every part that has a letter or a digit."""
    outcome = outcome_of(street, postal_code, street, postal_code)
    assert outcome is None or {outcome[:2], outcome[2:]} <= {MATCH, NOT_SENT}
