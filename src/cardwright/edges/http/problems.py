"""Errors on the wire, made here alone: two text properties, nothing else."""

import msgspec

from cardwright.core.problems import INTERNAL, OUT_OF_ORDER, Problem
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
            return Problem(OUT_OF_ORDER, UNKNOWN)
        case SchemaChanged():
            return Problem(OUT_OF_ORDER, str(error))
        case Contended():
            return Problem(OUT_OF_ORDER, "other work takes too long, nothing was changed, try again later")
        case _:
            return Problem(OUT_OF_ORDER, AWAY)


INTERNAL_BODY = error_body(INTERNAL.code, INTERNAL.text)
