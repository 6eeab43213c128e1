"""`cardwright format`: JSON indented for reading, as a filter behind curl."""

import msgspec


def format_json(content: bytes) -> str:
    """Return JSON with one field a line. Amounts such as 10.00 keep their digits, which a parser would drop.

    Other content, such as an empty response or a text, is returned unchanged.
    """
    try:
        msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return content.decode(errors="replace")
    return msgspec.json.format(content, indent=2).decode() + "\n"
