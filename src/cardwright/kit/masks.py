"""Masks: masked card numbers, and the redaction of secrets in text and records."""

import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

REDACTED = "[redacted]"
TOO_DEEP = "[too deep]"
MAX_DEPTH = 8

# ISO/IEC 7812-1: a card number has at most 19 digits. Numbers of fewer than 12 digits are not in use, but frequent in logs.
PAN_MIN, PAN_MAX = 12, 19
# A longer run that is not a card number may still contain one, for example after its ISO 8583 length ("16").
USUAL_PAN = 16

# fmt: off
SECRET_NAMES = frozenset({
    # cards
    "pan", "primary_account_number", "card_number", "token_pan", "cvv", "cvv2", "cvv_number", "icvv", "cvc", "cvc2", "3csc",
    "chip_cvv_number", "chip_cvv_contactless_number", "track1", "track2", "track_1_data", "track_2_data", "pin", "new_pin",
    "pin_block",
    # credentials
    "password", "new_password", "current_password", "old_password", "basic_auth_password", "secret", "client_secret",
    "webhook_secret", "access_token", "application_token", "client_access_token", "control_token", "authorization",
    "proxy_authorization", "cookie", "set_cookie", "master_key", "new_master_key", "vault_key", "private_key", "api_key",
    # people
    "ssn", "tin", "nin", "sin", "identifications", "passport_number", "id_card_number", "account_number",
    "sender_account_number", "bank_account_number", "iban",
})
# fmt: on
"""Names of fields whose value is never shown, in lower case, with underscores."""

_DOUBLED = str.maketrans("0123456789", "0246813579")
_RUN = re.compile(r"\d(?:[ -]?\d){11,}")
_MASKED = re.compile(r"\d{6}_+\d{4}")
_SEPARATOR = re.compile(r"([ -])")
# UUIDs with a letter stay, because log lines need their tokens. One in ten runs of twelve digits at their end passes Luhn.
_UUID = re.compile(
    r"(?<![0-9A-Za-z])(?=[0-9-]{0,35}[a-fA-F])([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})(?![0-9A-Za-z])"
)

_NAMES = "|".join(sorted((name.replace("_", "[_-]") for name in SECRET_NAMES), key=len, reverse=True))
# "password": "x", 'pin': 1234, cvv_number='123', password=x; but not the prose "password: too short".
_NAMED = re.compile(
    rf"""(?<![A-Za-z0-9])((?:{_NAMES})(?:\\*["'])?(?:\s*:\s*(?=b?\\*["']|\d)|\s*=\s*))"""
    r"""(?:\[redacted\]|b?(\\*["'])[\s\S]{0,4096}?(?<!\\)\2|[^\s&,;)}\]]+)""",
    re.IGNORECASE,
)
# Authorization: Basic x, also as a pair of bytes, the form of headers in servers.
_HEADER = re.compile(r"""(authorization\\*["']?\s*[:=,]\s*b?\\*["']?(?:basic|bearer)\s+)[^\s"'\\,]+""", re.IGNORECASE)
_USERINFO = re.compile(r"(://)[^/\s@:]*:[^/\s@]*@")


def luhn_sum(digits: str) -> int:
    """Return the Luhn sum of ISO/IEC 7812-1 annex B: from the right, every second digit is doubled and its digits are added."""
    return sum(map(int, digits[::-2] + digits[-2::-2].translate(_DOUBLED)))


def passes_luhn(pan: str) -> bool:
    """Return whether the text has only ASCII digits and ends with the Luhn check digit of the others."""
    return pan.isascii() and pan.isdigit() and luhn_sum(pan) % 10 == 0


def mask(pan: str) -> str:
    """Return first six digits, underscores, last four: ``111111______4321``.

    Text shorter than a card number is hidden completely.
    """
    if len(pan) < PAN_MIN:
        return "_" * len(pan)
    return f"{pan[:6]}{'_' * (len(pan) - 10)}{pan[-4:]}"


def redact(text: str) -> str:
    """Return the text with its card numbers masked: runs of 12 to 19 digits that pass Luhn, also with spaces or dashes inside.

    Single spaces or dashes between digits count as inside. Runs of more than 19 digits are masked too, because their content is
    unknown. UUIDs with a letter stay. Digits next to a mask could form a new number with their neighbours, so a second pass
    hides those completely. One in ten instants in milliseconds passes Luhn and is masked: log instants as ISO text.
    """
    if _RUN.search(text) is None:
        return text
    return _each_run(_each_run(text, mask), _hide)


def redact_mapping(value: object, depth: int = MAX_DEPTH) -> object:
    """Return a copy of a record that is safe to show: without secrets by name, and with masked card numbers.

    Dicts, lists, tuples, sets, text and bytes are copied ``depth`` levels deep; deeper values become ``[too deep]``. A pair
    whose first item is a secret name is a header and loses its second item. Other objects become their redacted ``repr``.
    """
    match value:
        case None | bool():
            return value
        case str():
            return _redact_text(value)
        case int():
            return _redact_number(value)
        case float():
            return value if redact(repr(value)) == repr(value) else redact(repr(value))
        case bytes() | bytearray():
            return _redact_text(value.decode("latin-1")).encode("latin-1")
        case Mapping() | list() | tuple() | AbstractSet() if depth == 0:
            return TOO_DEEP
        case Mapping():
            return {_redact_text(_text(key)): _redact_field(key, item, depth - 1) for key, item in value.items()}
        case list() | tuple() | AbstractSet():
            items = _redact_items(list(value), depth - 1)
            return tuple(items) if isinstance(value, tuple) else items
        case _:
            return _redact_text(_text(value))


def is_secret(name: object) -> bool:
    """Return whether the values of this name are never shown.

    The name is text or bytes, in any case, with dashes or underscores.
    """
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    return isinstance(text, str) and text.lower().replace("-", "_") in SECRET_NAMES


def _redact_field(name: object, value: object, depth: int) -> object:
    """Return the value of a field, redacted by its name. A masked number may stay under ``pan``."""
    if not is_secret(name) or value is None or (isinstance(value, str) and _MASKED.fullmatch(value)):
        return redact_mapping(value, depth)
    return REDACTED


def _redact_items(items: list[object], depth: int) -> list[object]:
    if len(items) == 2 and is_secret(items[0]):
        return [items[0], REDACTED]
    return [redact_mapping(item, depth) for item in items]


def _redact_number(value: int) -> int | str:
    if abs(value) < 10 ** (PAN_MIN - 1):
        return value
    # Python raises ValueError for the text of an integer with more than 4,300 digits; a log line must not fail for that.
    if abs(value) >= 10**100:
        return "[long number]"
    text = str(int(value))
    return value if redact(text) == text else redact(text)


def _redact_text(text: str) -> str:
    """Return the text with masked card numbers, and without the values of secret names in it, as in the ``repr`` of a record."""
    text = _HEADER.sub(rf"\1{REDACTED}", text)
    text = _NAMED.sub(rf"\1{REDACTED}", text)
    return redact(_USERINFO.sub(rf"\1{REDACTED}@", text))


def _text(value: object) -> str:
    """Return the text of an object. An object whose ``repr`` fails is represented by its type."""
    try:
        return value if isinstance(value, str) else value.decode("latin-1") if isinstance(value, bytes) else repr(value)
    except Exception:
        # A ``repr`` is foreign code and may raise any exception, but a log line must not fail.
        return f"<{type(value).__name__}>"


def _hide(digits: str) -> str:
    return "_" * len(digits)


def _each_run(text: str, cover: Callable[[str], str]) -> str:
    """Return the text with ``cover`` applied to each card number outside its UUIDs. UUIDs have the odd indexes of the split."""
    parts = _UUID.split(text)
    parts[::2] = [_RUN.sub(lambda run: _cover_cards(run.group(), cover), part) for part in parts[::2]]
    return "".join(parts)


def _cover_cards(run: str, cover: Callable[[str], str]) -> str:
    """Return a run of digit groups with every card number covered. Groups have the even indexes of the split."""
    pieces = _SEPARATOR.split(run)
    # Digits of other scripts become ASCII digits for the Luhn sum.
    groups = [piece if piece.isascii() else "".join(str(int(digit)) for digit in piece) for piece in pieces[::2]]
    for start, stop in reversed(_card_spans(groups)):
        pieces[2 * start : 2 * stop - 1] = [cover("".join(groups[start:stop]))]
    return "".join(pieces)


def _card_spans(groups: list[str]) -> list[tuple[int, int]]:
    """Return the ranges of groups with card numbers. Overlapping numbers become one range, so that no end remains visible."""
    spans: list[tuple[int, int]] = []
    for start in range(len(groups)):
        if (stop := _card_end(groups, start)) is None:
            continue
        if spans and start < spans[-1][1]:
            start, stop = spans[-1][0], max(stop, spans.pop()[1])
        spans.append((start, stop))
    return spans


def _card_end(groups: list[str], start: int) -> int | None:
    """Return the end of the longest card number that begins with this group; None if there is none."""
    end = start + 1 if _contains_card(groups[start]) else None
    digits = ""
    for stop in range(start, len(groups)):
        digits += groups[stop]
        if len(digits) > PAN_MAX:
            break
        if len(digits) >= PAN_MIN and passes_luhn(digits):
            end = stop + 1
    return end


def _contains_card(group: str) -> bool:
    """Return whether a group longer than the usual card number contains one."""
    windows = (group[start : start + USUAL_PAN] for start in range(len(group) - USUAL_PAN + 1))
    return len(group) > PAN_MAX or (len(group) > USUAL_PAN and any(map(passes_luhn, windows)))
