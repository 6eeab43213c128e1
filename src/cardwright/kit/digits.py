"""Digits: the check that a text writes its numbers in ASCII digits."""


def is_plain(text: str) -> bool:
    """Return False for the spellings that ``int``, ``float`` and ``Decimal`` accept beside those of JSON and ISO 8601.

    These are digits of other scripts, underscores between digits, and blanks at both ends. Two readers of such a text could see
    different numbers. The functions themselves refuse every other text that is not a number.
    """
    return text.isascii() and "_" not in text and text == text.strip()
