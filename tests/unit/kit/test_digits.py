"""Digits: the texts that number functions accept beside ASCII digits are not plain."""

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright.core.problems import Problem
from cardwright.kit.clock import parse_instant
from cardwright.kit.digits import is_plain
from cardwright.resources.common.fields import day_of, parse_duration
from cardwright.resources.controls.scope import parse_moment

ASCII_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

CHARACTERS = st.sampled_from("0123456789+-._eE \t\n\u00a0\u2003\u0661\u0967\uff11\U0001d7d9")


@given(st.text(CHARACTERS, max_size=8))
def test_a_plain_number_has_ascii_digits_only(text: str) -> None:
    """Every plain text that ``Decimal``, ``float`` or ``int`` accepts has the form of an ASCII number."""
    kinds: tuple[Callable[[str], object], ...] = (Decimal, float, int)
    for kind in kinds:
        try:
            kind(text)
        except (ValueError, InvalidOperation):
            continue
        assert is_plain(text) == (ASCII_NUMBER.fullmatch(text) is not None)


@pytest.mark.parametrize("text", ["1_0", "\u0661\u0660", "\uff11\uff10", " 10", "10 ", "10\n", "\u00a010"])
def test_the_functions_alone_accept_more(text: str) -> None:
    """Each of these texts is ten for ``int`` and ``Decimal``, so the check is needed."""
    assert int(text) == Decimal(text) == 10
    assert not is_plain(text)


@pytest.mark.parametrize(
    ("parse", "good", "bad"),
    [
        (parse_instant, "2026-01-31", ("\u0662\u0660\u0662\u0666-01-31", "\uff12026-01-31", " 2026-01-31", "2026-01-31 ")),
        (parse_instant, "2026-01-31T12:00:00Z", (
            "2026-01-31T1_:00:00Z", "2026-01-31T\u0661\u0662:00:00Z", "2026-01-31\u066312:00",
        )),
        (day_of, "2026-01-31", ("\u0662\u0660\u0662\u0666-01-31", "2026-01-\uff13\uff11", "2026_01_31", " 2026-01-31")),
        (parse_moment, "Sat, 31 Jan 2026 12:00:00 GMT", (
            "Sat, \u0663\u0661 Jan 2026 12:00:00 GMT", "Sat, 3_1 Jan 2026 12:00:00 GMT", "Sat, 31 Jan \uff12026 12:00:00 GMT",
            "Sat, 31 Jan 2026 12:00:00 GMT ",
        )),
        (lambda text: parse_duration("wait", text), "15s", ("1_5s", "\u0661\u0665s", "\uff115s", " 15s", "15s ", "15\u00a0s")),
    ],
)  # fmt: skip
def test_times_have_ascii_digits_only(parse: Callable[[str], object], good: str, bad: tuple[str, ...]) -> None:
    """Dates, date-times and durations accept ASCII digits, and refuse other digits, underscores and blanks at the ends."""
    parse(good)
    for text in bad:
        with pytest.raises((ValueError, Problem)):
            parse(text)
