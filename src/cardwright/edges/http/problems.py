"""Problem responses: JSON errors with a code and a message, which only this module renders."""

import msgspec

from cardwright.core.problems import INTERNAL, UNAVAILABLE, Problem
from cardwright.storage.failures import InDoubt, Unavailable, public_reason

LATE, STOPPING, UNCONFIRMED = "the request took too long", "the server is stopping", "the database did not confirm the commit"
"""Reasons of a 503."""

TRY_AGAIN = "try again later"
NOT_BOOKED, NOT_CHANGED = f"nothing was booked, {TRY_AGAIN}", f"nothing was changed, {TRY_AGAIN}"
"""Effects of a 503 for a read, a message and another write, each with the next step."""

MAYBE_DONE = "the request may have been carried out: repeat it with the same token if you chose one, else look it up first"
"""The effect of a write that had begun when its request was cancelled."""

CROSS_ORIGIN = "a page of another origin sent the request; send it from a server, or from a page of this address"
"""The detail of a 403 for a request that changes data."""


def error_body(code: str, message: str) -> bytes:
    """Return the JSON of an error."""
    return msgspec.json.encode({"error_code": code, "error_message": message})


def problem_body(problem: Problem) -> bytes:
    """Return the JSON of a problem."""
    return error_body(problem.kind.code, str(problem))


def unavailable(reason: str, effect: str) -> Problem:
    """Return the problem for a request that temporarily cannot be served. ``effect`` includes the next step."""
    return Problem(UNAVAILABLE, f"{reason}; {effect}")


def database_problem(error: Unavailable, effect: str) -> Problem:
    """Return the problem for a failure of the database. ``effect`` applies unless the commit is in doubt."""
    if isinstance(error, InDoubt):
        return unavailable(UNCONFIRMED, MAYBE_DONE)
    return unavailable(public_reason(error), effect)


INTERNAL_BODY = error_body(INTERNAL.code, INTERNAL.text)
