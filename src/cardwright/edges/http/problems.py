"""Errors on the wire, made here alone: two text properties, nothing else."""

import msgspec

from cardwright.core.problems import INTERNAL, Problem


def error_body(code: str, message: str) -> bytes:
    """The wire's error body."""
    return msgspec.json.encode({"error_code": code, "error_message": message})


def problem_body(problem: Problem) -> bytes:
    """The body that tells a problem."""
    return error_body(problem.kind.code, str(problem))


INTERNAL_BODY = error_body(INTERNAL.code, INTERNAL.text)
