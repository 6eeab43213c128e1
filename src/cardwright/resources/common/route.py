"""Rows of the route table: routing, checks, the OpenAPI document and the credential matrix are all read from them."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import msgspec

LONG_S = 30.0
"""Seconds for requests that may have much to read or to remove."""


class Blank(Enum):
    """What an object in a request may hold without a value in any known field. An empty object is always legal."""

    ANYTHING = "unknown fields and nulls"
    NULLS = "nulls of known fields, and unknown fields beside them"
    NOTHING = "nothing"


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What travels on the wire, in either direction.

    Unknown fields of a request are ignored (wire reference, "JSON rules"). An object inside a request that has unknown
    fields only is refused: a misspelled name would otherwise take a limit or a check away. ``blank`` is what a shape may
    hold when it says nothing; None means NULLS for an object inside a request and ANYTHING for a whole body.
    """

    blank: ClassVar[Blank | None] = None


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


# Compared by identity: routes are keys of dictionaries that every request looks into.
@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One operation. ``body`` and ``answer`` are shapes; an ``async`` action is served by the engine, others get a transaction.

    ``fields``: the answer can be cut to the fields that a caller names. ``writes``: whether the action changes anything;
    a POST that only looks something up does not, and need not wait for its turn among the writers. ``limit_s``: see
    ``longer_s``; lists and the sandbox have ``LONG_S``, all others the usual limit, unless they say otherwise.
    ``operation_id``: the operation's name in the OpenAPI document where the action's name is not unique. The module that
    lists the route names the operation's tag (``TAG``).
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
    limit_s: float | None = None
    operation_id: str | None = None

    @property
    def longer_s(self) -> float | None:
        """Seconds that a request may take instead of the usual limit."""
        if self.limit_s is None and (self.paging is not None or self.scope in (Scope.SANDBOX, Scope.SANDBOX_ONLY)):
            return LONG_S
        return self.limit_s

    @property
    def summary(self) -> str:
        """The action's first docstring sentence."""
        return (self.action.__doc__ or self.action.__name__).strip().splitlines()[0]


def get(path: str, action: Callable[..., Any], answer: Any = None, **options: Any) -> Route:
    """A read; answers 200, and 404 when the path's token is unknown."""
    return Route("GET", path, action, answer=answer, writes=options.pop("writes", False), **options)


def post(path: str, body: type[msgspec.Struct], action: Callable[..., Any], answer: Any = None, **options: Any) -> Route:
    """A create; answers 201 with the whole resource unless said otherwise."""
    return Route("POST", path, action, body=body, answer=answer, status=options.pop("status", 201), fields=False, **options)


def put(path: str, body: type[msgspec.Struct], action: Callable[..., Any], answer: Any = None, **options: Any) -> Route:
    """A partial update; answers 200 with the whole resource."""
    return Route("PUT", path, action, body=body, answer=answer, fields=False, **options)
