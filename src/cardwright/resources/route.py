"""Rows of the route table: routing, checks, the OpenAPI document and the credential matrix are all read from them."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from cardwright.kit.deadline import ANSWER_S


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What travels on the wire, in either direction. Unknown fields of a request are ignored (wire reference, "JSON rules")."""


class Scope(Enum):
    """Where a route lives and when it is there."""

    WIRE = "/v3"
    SANDBOX = "/sandbox"
    SANDBOX_ONLY = "/sandbox, not in production mode"
    SIMULATION = "/v3, in production mode only when allowed"


@dataclass(frozen=True, slots=True)
class Paging:
    """How a list is paged: default and largest ``count``, default ``sort_by``."""

    count: int = 5
    count_max: int = 100
    sort_by: str = "-lastModifiedTime"
    count_min: int = 1


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer whose status the action decides. ``body`` is JSON."""

    status: int
    body: str


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. ``body`` and ``answer`` are shapes; an ``async`` action is served by the heart, others get a transaction.

    ``fields``: the answer can be cut to the fields that a caller names. ``writes``: whether the action changes anything;
    a POST that only looks something up does not, and need not wait for its turn among the writers. ``limit_s``: seconds from
    arrival after which the request is answered 503; longer where the action itself waits for something or works on much.
    """

    verb: str
    path: str
    action: Callable[..., Any]
    body: type[msgspec.Struct] | None = None
    answer: Any = None
    status: int = 200
    query: type[msgspec.Struct] | None = None
    paging: Paging | None = None
    scope: Scope = Scope.WIRE
    fields: bool = True
    writes: bool = True
    limit_s: float = ANSWER_S

    @property
    def summary(self) -> str:
        """The action's first docstring sentence."""
        return (self.action.__doc__ or self.action.__name__).strip().splitlines()[0]


def get(path: str, action: Callable[..., Any], answer: Any = None, **more: Any) -> Route:
    """A read; answers 200, and 404 when the path's token is unknown."""
    return Route("GET", path, action, answer=answer, writes=more.pop("writes", False), **more)


def post(path: str, body: type[msgspec.Struct], action: Callable[..., Any], answer: Any = None, **more: Any) -> Route:
    """A create; answers 201 with the whole resource unless said otherwise."""
    return Route("POST", path, action, body=body, answer=answer, status=more.pop("status", 201), fields=False, **more)


def put(path: str, body: type[msgspec.Struct], action: Callable[..., Any], answer: Any = None, **more: Any) -> Route:
    """A partial update; answers 200 with the whole resource."""
    return Route("PUT", path, action, body=body, answer=answer, fields=False, **more)
