"""Router: a tree of path segments in which a literal segment takes precedence over a parameter."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from cardwright.resources.common.route import Route


@dataclass(slots=True)
class _Node:
    literal: dict[str, "_Node"] = field(default_factory=dict)
    parameter: "_Node | None" = None
    routes: dict[str, tuple[Route, tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """The routes of a path by verb, and the values of its parameters."""

    routes: dict[str, tuple[Route, tuple[str, ...]]]
    values: tuple[str, ...]


class Router:
    """The routes of one scope prefix."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        node, names = self._root, []
        for segment in route.path.strip("/").split("/"):
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literal.setdefault(segment, _Node())
        assert route.verb not in node.routes, f"two routes for {route.verb} {route.path}"
        node.routes[route.verb] = (route, tuple(names))

    def find(self, segments: list[str]) -> RouteMatch | None:
        """Return the routes of a path, or None if there are none."""
        return _walk(self._root, segments, ())


def _walk(node: _Node, segments: list[str], values: tuple[str, ...]) -> RouteMatch | None:
    if not segments:
        return RouteMatch(node.routes, values) if node.routes else None
    head, rest = segments[0], segments[1:]
    if head in node.literal and (match := _walk(node.literal[head], rest, values)) is not None:
        return match
    # An empty segment or a NUL is no valid parameter.
    if node.parameter is None or not head or "\x00" in head:
        return None
    return _walk(node.parameter, rest, (*values, head))
