"""Routes: rows of the route table, the source of routing, checks, the OpenAPI document and the credential tests."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import msgspec

LONG_S = 30.0
"""The time limit, in seconds, of requests that may read or delete many rows."""


class Blank(Enum):
    """The content that an object in a request may have without a value in a known field. An empty object is always accepted."""

    ANYTHING = "unknown fields and nulls"
    NULLS = "nulls of known fields, and unknown fields beside them"
    NOTHING = "nothing"


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The type of a JSON object in a request or a response.

    Unknown fields of a request are ignored (wire reference, "JSON rules"). An object inside a request is refused if all its
    fields are unknown, because a misspelled name would silently drop a limit or a check. ``blank`` is the content that the
    object may have without a value; None means NULLS for an object inside a request and ANYTHING for a whole body.
    """

    blank: ClassVar[Blank | None] = None


class Scope(Enum):
    """The prefix of a route, and the modes in which it is available."""

    WIRE = "/v3"
    SANDBOX = "/sandbox"
    SANDBOX_ONLY = "/sandbox, not in production mode"
    SIMULATION = "/v3, in production mode only when allowed"


@dataclass(frozen=True, slots=True)
class Paging:
    """The paging of a list: default, maximum and minimum ``count``, and default ``sort_by``."""

    count: int = 5
    count_max: int = 100
    sort_by: str = "-lastModifiedTime"
    count_min: int = 1


@dataclass(frozen=True, slots=True)
class Reply:
    """A response whose status the action sets. ``body`` is JSON."""

    status: int
    body: str


# Compared by identity: each request looks up its route in dictionaries, and hashing all fields would cost time.
@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One operation of the API.

    ``body`` and ``answer`` are shapes. The engine serves an ``async`` action; any other action runs in a database transaction.
    ``fields`` is True if a caller can restrict the response to named fields. ``writes`` is False for a POST that only reads,
    which then does not wait for a write transaction. ``limit_s`` overrides the time limit, see ``longer_s``. ``operation_id``
    names the operation in the OpenAPI document if the action's name is not unique. The module that lists the route has the
    operation's tag (``TAG``).
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
        """Return the seconds that a request may take in place of the usual limit; None for the usual limit.

        Lists and the sandbox have ``LONG_S`` unless the route has its own ``limit_s``.
        """
        if self.limit_s is None and (self.paging is not None or self.scope in (Scope.SANDBOX, Scope.SANDBOX_ONLY)):
            return LONG_S
        return self.limit_s

    @property
    def summary(self) -> str:
        """Return the first line of the action's docstring."""
        return (self.action.__doc__ or self.action.__name__).strip().splitlines()[0]


def get(path: str, action: Callable[..., Any], answer: Any = None, **options: Any) -> Route:
    """Return the route of a read. It answers 200."""
    return Route("GET", path, action, answer=answer, writes=options.pop("writes", False), **options)


def post(path: str, body: type[msgspec.Struct], action: Callable[..., Any], answer: Any = None, **options: Any) -> Route:
    """Return the route of a create. It answers 201 with the whole resource unless ``options`` has another status."""
    return Route("POST", path, action, body=body, answer=answer, status=options.pop("status", 201), fields=False, **options)


def put(path: str, body: type[msgspec.Struct], action: Callable[..., Any], answer: Any = None, **options: Any) -> Route:
    """Return the route of a partial update. It answers 200 with the whole resource."""
    return Route("PUT", path, action, body=body, answer=answer, fields=False, **options)
