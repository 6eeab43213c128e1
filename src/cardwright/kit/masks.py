"""Masks: what may be shown of a card number, and how text and records lose their secrets before anybody reads them."""

import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

REDACTED = "[redacted]"
TOO_DEEP = "[too deep]"
MAX_DEPTH = 8

# ISO/IEC 7812-1: a card number has at most 19 digits; below 12 none is in use, and shorter numbers are everywhere in a log.
PAN_MIN, PAN_MAX = 12, 19
# A run longer than this that is no card number itself may still contain one, for example behind its ISO 8583 length ("16").
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
    "proxy_authorization", "cookie", "set_cookie", "master_key", "vault_key", "private_key", "api_key",
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
# The twelve last digits of a UUID pass Luhn one time in ten when they hold no letter, and a log without its tokens is of no use.
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
# Authorization: Basic x, also as the pair of bytes in which servers keep headers.
_HEADER = re.compile(r"""(authorization\\*["']?\s*[:=,]\s*b?\\*["']?(?:basic|bearer)\s+)[^\s"'\\,]+""", re.IGNORECASE)
_USERINFO = re.compile(r"(://)[^/\s@:]*:[^/\s@]*@")


def luhn_sum(digits: str) -> int:
    """The Luhn sum of ISO/IEC 7812-1 annex B: from the right, every second digit doubled and its digits added."""
    return sum(map(int, digits[::-2] + digits[-2::-2].translate(_DOUBLED)))


def passes_luhn(pan: str) -> bool:
    """Whether the text is ASCII digits whose last is the Luhn check digit of the others."""
    return pan.isascii() and pan.isdigit() and luhn_sum(pan) % 10 == 0


def mask(pan: str) -> str:
    """First six digits, underscores, last four: ``111111______4321``. Text too short to be a card number is hidden whole."""
    if len(pan) < PAN_MIN:
        return "_" * len(pan)
    return f"{pan[:6]}{'_' * (len(pan) - 10)}{pan[-4:]}"


def redact(text: str) -> str:
    """The text with its card numbers masked: runs of 12 to 19 digits that pass Luhn, also with single spaces or dashes inside.

    Runs longer than 19 digits are masked as well, since what they contain cannot be told. In a UUID that has a letter nothing is
    touched. What comes out holds no such number any more: digits left by a mask could form a new one with their neighbours, so a
    second pass hides those without leaving any. The price: an instant in milliseconds passes Luhn one time in ten and is then
    masked. Log instants as ISO text.
    """
    if _RUN.search(text) is None:
        return text
    return _each_run(_each_run(text, mask), _hide)


def redact_mapping(value: object, depth: int = MAX_DEPTH) -> object:
    """A copy of a record that may be shown: secret names lose their value, text and numbers their card numbers.

    Dicts, lists, tuples, sets, text and bytes are walked ``depth`` levels deep; below stands ``[too deep]``. A pair whose first
    item is a secret name is a header and loses its second. Other objects become their redacted ``repr``.
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
    """Whether a field, parameter or header of this name (text or bytes, any case, dashes or underscores) is never shown."""
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    return isinstance(text, str) and text.lower().replace("-", "_") in SECRET_NAMES


def _redact_field(name: object, value: object, depth: int) -> object:
    """One value under its name; a number that is masked already may stay under ``pan``."""
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
    # Python refuses to write integers of more than 4,300 digits, and a log line must not fail for that.
    if abs(value) >= 10**100:
        return "[long number]"
    text = str(int(value))
    return value if redact(text) == text else redact(text)


def _redact_text(text: str) -> str:
    """Card numbers masked, and the values of secret names written inside the text, as in the ``repr`` of a record."""
    text = _HEADER.sub(rf"\1{REDACTED}", text)
    text = _NAMED.sub(rf"\1{REDACTED}", text)
    return redact(_USERINFO.sub(rf"\1{REDACTED}@", text))


def _text(value: object) -> str:
    """What would be written for an object; one whose ``repr`` fails is named by its type."""
    try:
        return value if isinstance(value, str) else value.decode("latin-1") if isinstance(value, bytes) else repr(value)
    except Exception:
        # A ``repr`` is anybody's code and may raise anything. This is the log's own last step: the type is what it can say.
        return f"<{type(value).__name__}>"


def _hide(digits: str) -> str:
    return "_" * len(digits)


def _each_run(text: str, cover: Callable[[str], str]) -> str:
    """The text with ``cover`` put over every card number outside its UUIDs, which stand at the odd places of the split."""
    parts = _UUID.split(text)
    parts[::2] = [_RUN.sub(lambda run: _cover_cards(run.group(), cover), part) for part in parts[::2]]
    return "".join(parts)


def _cover_cards(run: str, cover: Callable[[str], str]) -> str:
    """A run of digit groups with every card number covered; groups stand at the even places of the split."""
    pieces = _SEPARATOR.split(run)
    # Digits of other scripts are written in ASCII, where Luhn is computed.
    groups = [piece if piece.isascii() else "".join(str(int(digit)) for digit in piece) for piece in pieces[::2]]
    for start, stop in reversed(_card_spans(groups)):
        pieces[2 * start : 2 * stop - 1] = [cover("".join(groups[start:stop]))]
    return "".join(pieces)


def _card_spans(groups: list[str]) -> list[tuple[int, int]]:
    """Which groups belong to card numbers. Overlapping finds become one: hiding only the first would show the second's end."""
    spans: list[tuple[int, int]] = []
    for start in range(len(groups)):
        if (stop := _card_end(groups, start)) is None:
            continue
        if spans and start < spans[-1][1]:
            start, stop = spans[-1][0], max(stop, spans.pop()[1])
        spans.append((start, stop))
    return spans


def _card_end(groups: list[str], start: int) -> int | None:
    """Where the longest card number that begins with this group ends."""
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
    """Whether a group longer than the usual card number has one inside."""
    windows = (group[start : start + USUAL_PAN] for start in range(len(group) - USUAL_PAN + 1))
    return len(group) > PAN_MAX or (len(group) > USUAL_PAN and any(map(passes_luhn, windows)))
