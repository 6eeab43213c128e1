"""Card numbers: they are composed with a check digit, refused if their parts do not fit, and masked in the middle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright.core import pan

digits = st.text("0123456789", min_size=1, max_size=18)


@pytest.mark.parametrize(
    ("partial", "digit"),
    [
        ("7992739871", "3"),  # the textbook example
        ("411111111111111", "1"),
        ("37828224631000", "5"),  # fifteen digits: the doubling starts at the right
        ("0", "0"),
    ],
)
def test_known_check_digits(partial: str, digit: str) -> None:
    """Published numbers of even and odd length have their known check digits."""
    assert pan.luhn_digit(partial) == digit
    assert pan.passes_luhn(partial + digit)


@given(digits)
def test_the_check_digit_makes_a_number_pass(partial: str) -> None:
    """A number passes with its check digit and fails with any other last digit."""
    right = pan.luhn_digit(partial)
    assert [last for last in "0123456789" if pan.passes_luhn(partial + last)] == [right]


@given(digits, st.data())
def test_one_wrong_digit_is_noticed(partial: str, data: st.DataObject) -> None:
    """A valid number with any single digit changed fails the Luhn check."""
    number = partial + pan.luhn_digit(partial)
    index = data.draw(st.integers(0, len(number) - 1))
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != number[index]]))
    assert not pan.passes_luhn(number[:index] + other + number[index + 1 :])


@pytest.mark.parametrize("text", ["", "4111 1111 1111 1111", "411111111111111x", "４１１１１１１１１１１１１１１１", "-18"])
def test_only_ascii_digits_are_a_number(text: str) -> None:
    """Empty text, separators, letters, signs and digits of other scripts fail the Luhn check."""
    assert not pan.passes_luhn(text)


@given(st.data(), st.text("0123456789", min_size=6, max_size=14), st.integers(12, 19))
def test_a_composed_number_keeps_its_parts(data: st.DataObject, prefix: str, length: int) -> None:
    """A composed number contains its prefix and account, so two accounts never share a number."""
    length = max(length, len(prefix) + 2)
    number = data.draw(st.integers(0, pan.account_numbers(prefix, length) - 1))
    composed = pan.pan_from(prefix, number, length)
    assert len(composed) == length
    assert composed.startswith(prefix)
    assert int(composed[len(prefix) : -1]) == number
    assert pan.passes_luhn(composed)


def test_the_default_number() -> None:
    """A card number with the default prefix has 16 digits, nine of them for the account."""
    assert pan.account_numbers(pan.DEFAULT_BIN) == 10**9
    assert pan.pan_from(pan.DEFAULT_BIN, 432) == "1111110000004326"


@pytest.mark.parametrize(
    ("prefix", "number", "length"),
    [
        ("11111", 1, 16),
        ("111111111111111", 1, 19),
        ("11111x", 1, 16),
        ("１１１１１１", 1, 16),
        ("111111", 10**9, 16),
        ("111111", -1, 16),
        ("111111", 1, 11),
        ("111111", 1, 20),
        ("11111111111111", 0, 15),
    ],
)
def test_parts_that_do_not_fit_are_refused(prefix: str, number: int, length: int) -> None:
    """Invalid prefixes, account numbers that are negative or too large, and invalid lengths raise ValueError."""
    with pytest.raises(ValueError, match="digit"):
        pan.pan_from(prefix, number, length)


def test_a_refusal_does_not_repeat_the_number() -> None:
    """The error text of an account that does not fit does not contain the account."""
    with pytest.raises(ValueError, match="9 digits") as refused:
        pan.pan_from("111111", 48_210_937_561)
    assert "48210937561" not in str(refused.value)


def test_what_is_shown() -> None:
    """The mask shows the first six and last four digits. A number that is too short shows no digit."""
    assert pan.mask("1111110000004321") == "111111______4321"
    assert pan.mask("378282246310005") == "378282_____0005"
    assert pan.mask("12345678901") == "___________"
    assert pan.last_four("1111110000004321") == "4321"


def test_barcodes() -> None:
    """A barcode has 20 digits, padded with zeros. Negative and larger numbers raise ValueError."""
    assert pan.barcode_from(42) == "00000000000000000042"
    assert pan.barcode_from(10**20 - 1) == "9" * 20
    for number in (-1, 10**20):
        with pytest.raises(ValueError, match="20 digits"):
            pan.barcode_from(number)
