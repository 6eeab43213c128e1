"""Parsing: bodies and query strings to shapes, with errors that name the field."""

import re
from typing import Any, get_args, get_type_hints
from urllib.parse import parse_qsl

import msgspec

from cardwright.core.problems import (
    INVALID_INPUT,
    MALFORMED,
    TOO_LARGE,
    WRONG_CONTENT_TYPE,
    Problem,
    bad_parameter,
)
from cardwright.edges.http.blanks import check_blanks
from cardwright.edges.http.decimals import check_decimals
from cardwright.kit.page import Page
from cardwright.resources.common.route import Paging

DEPTH_MAX = 32
"""Maximum nesting of a body. The deepest legal body, a card product, has eight levels."""

START_INDEX_MAX = 1_000_000_000

_LOCATED = re.compile(r"^(?P<problem>.*?)(?: - at `(?P<where>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `([^`]+)`")
_UNKNOWN = re.compile(r"^Object contains unknown field `([^`]*)`")
_RANGE = re.compile(r"^Expected `(?:int|float|decimal)` (?:<|>)")
_SIZE = re.compile(r"^Expected `(?:str|array|object|bytes)` of length")


def parse_body(raw: bytes, content_type: str, shape: type[msgspec.Struct]) -> Any:
    """Parse a request's body to a shape. A string that contains a number or a boolean is accepted as that value (observed).

    Raises a problem for a wrong content type, malformed JSON or an invalid field.
    """
    if not content_type.lower().startswith("application/json"):
        raise Problem(WRONG_CONTENT_TYPE, content_type.split(";")[0].strip() or "nothing")
    check_depth(raw)
    try:
        body = msgspec.json.decode(raw, type=shape, strict=False)
    except msgspec.ValidationError as error:
        raise problem_of(error, raw, shape) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Problem(MALFORMED, str(error)) from None
    check_decimals(raw, shape)
    if b"\\u0000" in raw and (where := _nul_in(plain(raw), "body")) is not None:
        raise Problem(INVALID_INPUT, f"{where} may not contain the character U+0000")
    check_blanks(body, lambda: plain(raw))
    return body


def plain(raw: bytes) -> Any:
    """Parse a body without a shape.

    Raises MALFORMED for any error, even inside unknown fields, which the parser of a shape skips.
    """
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Problem(MALFORMED, str(error)) from None


def check_depth(raw: bytes) -> None:
    """Raise MALFORMED for nesting beyond ``DEPTH_MAX``, before a parser recurses into the body."""
    if raw.count(b"{") + raw.count(b"[") <= DEPTH_MAX:
        return
    depth, quoted, escaped = 0, False, False
    for byte in raw:
        if escaped:
            escaped = False
        elif quoted:
            escaped, quoted = byte == 0x5C, byte != 0x22
        elif byte == 0x22:
            quoted = True
        elif byte in b"{[":
            depth += 1
            if depth > DEPTH_MAX:
                raise Problem(MALFORMED, f"nested deeper than {DEPTH_MAX} levels")
        elif byte in b"}]":
            depth -= 1


def problem_of(error: msgspec.ValidationError, raw: bytes, shape: type[msgspec.Struct]) -> Problem:
    """Return the problem for a decoding error: 400001 for a missing field, size or range, 400037 for a wrong type."""
    match = _LOCATED.match(str(error))
    assert match is not None
    reason, where = match["problem"], (match["where"] or "$").removeprefix("$").lstrip(".")
    if missing := _MISSING.match(reason):
        names = [missing[1]] if where else _missing_names(raw, shape)
        prefix = f"{where}." if where else ""
        return Problem(INVALID_INPUT, ", ".join(f"{prefix}{name} may not be null" for name in names))
    if unknown := _UNKNOWN.match(reason):
        name = f"{where}.{unknown[1]}" if where else unknown[1]
        return Problem(INVALID_INPUT, f"{name} is an unknown field; the fields are: {', '.join(_names_at(shape, where))}")
    if _SIZE.match(reason):
        return Problem(INVALID_INPUT, f"{where or 'body'} size is wrong: {reason}")
    if _RANGE.match(reason):
        return Problem(INVALID_INPUT, f"{where or 'body'} is out of range: {reason}")
    if reason.startswith("Expected") and "got `null`" in reason:
        return Problem(INVALID_INPUT, f"{where or 'body'} may not be null")
    return Problem(MALFORMED, f"{where or 'body'}: {reason}")


def parse_query(pairs: dict[str, str], shape: type[msgspec.Struct]) -> Any:
    """Parse the parameters of a query string to a shape. Unknown parameters are ignored. Raises a problem for an invalid one."""
    try:
        return msgspec.convert(pairs, shape, strict=False)
    except msgspec.ValidationError as error:
        match = _LOCATED.match(str(error))
        assert match is not None
        missing = _MISSING.match(match["problem"])
        name = missing[1] if missing else (match["where"] or "$").removeprefix("$.")
        raise bad_parameter(name, "is required" if missing else match["problem"]) from None


def parse_pairs(query: bytes) -> dict[str, str]:
    """Parse a query string. Of a repeated parameter the last value counts. Raises a problem for invalid encoding."""
    try:
        pairs = dict(parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=50))
    except (UnicodeDecodeError, ValueError):
        raise bad_parameter("query string", "must be percent-encoded UTF-8 with at most 50 parameters") from None
    for name, value in pairs.items():
        if "\x00" in value or "\x00" in name:
            raise bad_parameter(name.replace("\x00", "?"), "may not contain the character U+0000")
    return pairs


def parse_page(pairs: dict[str, str], paging: Paging) -> Page:
    """Parse the page parameters of a list. Raises a problem for a value out of bounds."""
    count = _whole(pairs, "count", paging.count)
    if count > paging.count_max:
        raise Problem(TOO_LARGE, f"count may be at most {paging.count_max}")
    if count < paging.count_min:
        raise bad_parameter("count", f"must be between {paging.count_min} and {paging.count_max}")
    start_index = _whole(pairs, "start_index", 0)
    if not 0 <= start_index <= START_INDEX_MAX:
        raise bad_parameter("start_index", f"must be between 0 and {START_INDEX_MAX}")
    return Page(count, start_index, pairs.get("sort_by") or paging.sort_by)


def _whole(pairs: dict[str, str], name: str, default: int) -> int:
    text = pairs.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise bad_parameter(name, "must be a whole number")
    return int(text)


def _missing_names(raw: bytes, shape: type[msgspec.Struct]) -> list[str]:
    """Return all absent required fields. The decoder reports only the first."""
    body = plain(raw)
    required = [field.encode_name for field in msgspec.structs.fields(shape) if field.required]
    return [name for name in required if body.get(name) is None]


def _names_at(shape: type[msgspec.Struct], where: str) -> list[str]:
    """Return the field names of the object at a path in the body."""
    for name in filter(None, where.split(".")):
        hint = get_type_hints(shape)[name]
        shape = next(kind for kind in (*get_args(hint), hint) if isinstance(kind, type) and issubclass(kind, msgspec.Struct))
    return [field.encode_name for field in msgspec.structs.fields(shape)]


def _nul_in(value: Any, where: str) -> str | None:
    """Return the path of the first text with a NUL, which PostgreSQL cannot store, or None."""
    match value:
        case str():
            return where if "\x00" in value else None
        case dict():
            inner = ((key, f"{where}.{key}".replace("\x00", "?"), item) for key, item in value.items())
            paths = (name if "\x00" in key else _nul_in(item, name) for key, name, item in inner)
        case list():
            paths = (_nul_in(item, f"{where}[{index}]") for index, item in enumerate(value))
        case _:
            return None
    return next((name for name in paths if name is not None), None)
