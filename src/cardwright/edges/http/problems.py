"""Errors on the wire, made here alone: two text properties, nothing else."""

import msgspec

from cardwright.core.problems import INTERNAL, UNAVAILABLE, Problem
from cardwright.storage.failures import Contended, InDoubt, SchemaChanged, Unavailable
from cardwright.storage.outage import AWAY

UNKNOWN = "the connection to the database was lost during the commit; look up whether the request was carried out"


def error_body(code: str, message: str) -> bytes:
    """The wire's error body."""
    return msgspec.json.encode({"error_code": code, "error_message": message})


def problem_body(problem: Problem) -> bytes:
    """The body that tells a problem."""
    return error_body(problem.kind.code, str(problem))


def unavailable(error: Unavailable) -> Problem:
    """The problem that tells of a failure of the database. Its reason names hosts and files, which are for the log."""
    match error:
        case InDoubt():
            return Problem(UNAVAILABLE, UNKNOWN)
        case SchemaChanged():
            return Problem(UNAVAILABLE, str(error))
        case Contended():
            return Problem(UNAVAILABLE, "other work takes too long, nothing was changed, try again later")
        case _:
            return Problem(UNAVAILABLE, AWAY)


INTERNAL_BODY = error_body(INTERNAL.code, INTERNAL.text)
