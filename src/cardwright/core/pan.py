"""Card numbers: composition, checks and display."""

from cardwright.kit.masks import PAN_MAX, PAN_MIN, luhn_sum, mask, passes_luhn

__all__ = [
    "BARCODE_LENGTH",
    "DEFAULT_BIN",
    "PAN_LENGTH",
    "account_numbers",
    "barcode_from",
    "is_bin",
    "last_four",
    "luhn_digit",
    "mask",
    "pan_from",
    "passes_luhn",
]

DEFAULT_BIN = "111111"
"""The BIN of cards without another one in their product. Marqeta's public sandbox uses it too.

It belongs to no real issuer. The first digit is the industry, and ISO/IEC 7812-1 assigns 1 to airlines. Payment networks issue
under 2 to 6, and the airlines' travel card has fifteen digits. So no real card has sixteen digits that begin with 111111.
"""

PAN_LENGTH = 16
BARCODE_LENGTH = 20


def luhn_digit(partial: str) -> str:
    """Return the check digit that completes a number (ISO/IEC 7812-1 annex B)."""
    return str(-luhn_sum(partial + "0") % 10)


def is_bin(prefix: str) -> bool:
    """Return whether the text can begin a card number: 6 to 14 digits, the limits of a product's ``bin_prefix``."""
    return 6 <= len(prefix) <= 14 and prefix.isascii() and prefix.isdigit()


def account_numbers(prefix: str, length: int = PAN_LENGTH) -> int:
    """Return the number of account numbers that ``pan_from`` accepts: ``number`` is less than this.

    Raises ValueError for a prefix or length that does not fit.
    """
    if not is_bin(prefix):
        raise ValueError("a prefix has 6 to 14 digits")
    if not PAN_MIN <= length <= PAN_MAX:
        raise ValueError(f"a card number has {PAN_MIN} to {PAN_MAX} digits, not {length}")
    if length < len(prefix) + 2:
        raise ValueError(f"a prefix of {len(prefix)} digits leaves no account digit in {length}")
    return int(10 ** (length - len(prefix) - 1))


def pan_from(prefix: str, number: int, length: int = PAN_LENGTH) -> str:
    """Return a card number: prefix, ``number`` padded with zeros, check digit.

    Raises ValueError for a prefix, length or number that does not fit. The error text never contains the number.
    """
    if not 0 <= number < account_numbers(prefix, length):
        raise ValueError(f"the account number does not fit into {length - len(prefix) - 1} digits")
    partial = f"{prefix}{number:0{length - len(prefix) - 1}d}"
    return partial + luhn_digit(partial)


def last_four(pan: str) -> str:
    """Return the last four digits of a card number."""
    return pan[-4:]


def barcode_from(number: int) -> str:
    """Return the barcode of a card: twenty digits. Raises ValueError if the number has more."""
    if not 0 <= number < 10**BARCODE_LENGTH:
        raise ValueError(f"a barcode has {BARCODE_LENGTH} digits")
    return f"{number:0{BARCODE_LENGTH}d}"
