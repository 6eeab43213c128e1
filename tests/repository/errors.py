"""Errors: the page of error codes and decline reasons, ``docs/reference/errors.md``. `make reference` writes it.

Codes and messages come from ``core/problems.py`` and ``core/responses.py``, causes and next steps from ``errors.toml`` beside the
page.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from itertools import groupby

from cardwright.core import problems
from cardwright.core.problems import Kind
from cardwright.core.responses import ADDRESS_VERDICTS, APPROVALS, SECURITY_CODE_VERDICTS, Reason
from tests.repository.folders import ROOT

PAGE = ROOT / "docs" / "reference" / "errors.md"
CAUSES = ROOT / "docs" / "reference" / "errors.toml"

KINDS = {name: kind for name, kind in vars(problems).items() if isinstance(kind, Kind)}
"""Every kind of problem by its name in ``core/problems.py``."""

Entry = Mapping[str, str]
"""A cause and a next step (``action``), and for a reason the part that is a choice."""

INTRODUCTION = """\
# Errors and decline reasons

<!-- `make reference` writes this page from core/problems.py, core/responses.py and errors.toml. -->

A request that Cardwright does not carry out gets an HTTP status and an [error code](#error-codes). A decline is not an error: the
HTTP status is 201, and the transaction has the state `DECLINED` and a [response code](#response-codes).
`cardwright explain TOKEN` and `GET /sandbox/decisions/{token}` show the check that declined a transaction, with its inputs.

## Error codes

The body of an error has two texts. `error_code` is the HTTP status and three digits. `error_message` is the message below, in
which `…` stands for the details. The codes observed on the real API are marked in `core/problems.py`; the others are choices.
If several objects share a code, the message tells them apart.
"""

RETRIES = """\
### Retries

| status | outcome of the request | retry |
| --- | --- | --- |
| 400 to 405, 409 to 422, 431 | nothing was done | only after a change of the request or of the object |
| 408, 429 | nothing was done | after a delay |
| 500 | unknown | after a look-up of the object |
| 503 | the message says what was done | after a delay, with the same token |

A repeated request with the same token and the same body is carried out once. It gets the first answer.
"""

RESPONSES = """\
## Response codes

The first two columns are `response.code` and `response.memo` of a transaction. The third is the response code that a card network
gets (ISO 8583 data element 39). Rows without an entry in the last column are documented. For all other rows, the code or the
memo is not publicly known. All network codes except `00` and `51` are the nearest codes of ISO 8583.
"""

NETWORK = """\
### Response message to the network

The older simulations answer with `raw_iso8583`, the response message that a network would get:

| field | approved | declined |
| --- | --- | --- |
| `39` | the response code, four digits | `00` and the network code, such as `0051` |
| `38` (approval code), `54` (balances) | present | absent |
| `44`: `1` and `4` | the memo | the memo |
| `44`: `3` | the network code | the network code |

The network code is less exact than the response code: nine response codes share `57`, and three share `62`.
"""

VERIFICATIONS = """\
## Verification codes

A request with a security code or an address gets the outcome of the comparison, even if it is approved. The codes are in
`card_security_code_verification.response` and `address_verification.response` of the transaction.
"""


def read_entries() -> dict[str, dict[str, Entry]]:
    """Return the entries of ``problems`` and ``reasons`` by name."""
    return tomllib.loads(CAUSES.read_text("utf-8"))


def page() -> str:
    """Return the page. Raises KeyError for a code without an entry."""
    entries = read_entries()
    parts = [
        INTRODUCTION,
        *_problem_tables(entries["problems"]),
        RETRIES,
        RESPONSES,
        _table(
            ("code", "memo", "network", "cause", "action", "choice"),
            (
                (
                    reason.code,
                    reason.memo,
                    reason.network_code,
                    *_texts(entries["reasons"][reason.name]),
                    _choice(entries, reason),
                )
                for reason in sorted(Reason, key=lambda reason: reason.code)
            ),
        ),
        f"`{'`, `'.join(sorted(reason.code for reason in APPROVALS))}` are approvals.\n",
        NETWORK,
        VERIFICATIONS,
        _table(("security code", "memo"), SECURITY_CODE_VERDICTS.values()),
        "The first two digits of the next codes are the outcome of the street address, the last two that of the postal code.\n",
        _table(("address", "memo"), ADDRESS_VERDICTS.items()),
    ]
    return "\n".join(parts)


def _problem_tables(entries: Mapping[str, Entry]) -> Iterator[str]:
    """Yield a heading and a table for each HTTP status."""
    ordered = sorted(KINDS.items(), key=lambda item: item[1].code)
    for status, kinds in groupby(ordered, key=lambda item: item[1].status):
        yield f"### {status} {HTTPStatus(status).phrase}\n"
        yield _table(
            ("code", "message", "cause", "action"),
            ((f"`{kind.code}`", kind.text.replace("{}", "…"), *_texts(entries[name])) for name, kind in kinds),
        )


def _texts(entry: Entry) -> tuple[str, str]:
    return entry["cause"], entry["action"]


def _choice(entries: Mapping[str, Mapping[str, Entry]], reason: Reason) -> str:
    return entries["reasons"][reason.name].get("choice", "")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |") for cells in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
