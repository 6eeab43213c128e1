"""OpenAPI 3.1 document: generated from the route table, its shapes and the table of problems."""

import inspect
import re
from collections.abc import Iterator, Sequence
from functools import cache
from http import HTTPStatus
from types import ModuleType
from typing import Any

from cardwright import __version__
from cardwright.core import problems
from cardwright.edges.http.descriptions import descriptions
from cardwright.edges.http.examples import BODIES, GUIDE, TOKENS
from cardwright.edges.http.parse import START_INDEX_MAX
from cardwright.edges.http.schemas import Schemas, prose
from cardwright.resources import catalog
from cardwright.resources.common.route import Paging, Reply, Route, Scope
from cardwright.storage.records import Listing, encoder

Json = dict[str, Any]

ABOUT = """\
A card-issuing platform with Just-in-Time Funding, wire-compatible with Marqeta's Core API.

- **Credentials**: HTTP Basic on every request, the application token as user name and the access token as password.
- **Tokens** identify objects. Choose one when you create an object; without one, the server generates it. A repeated request \
with the same token is idempotent: it returns the same object. A different request with that token gets 409.
- **Amounts** are numbers in major units, such as `10.00`. A string that contains a number is accepted too.
- **Bodies** are parsed leniently. Unknown fields are ignored, except in a backtest, and `null` counts as absent. \
`"true"` is accepted as a boolean, and `"10"` as a number.
- **Lists** have pages: add the `count` of a page to `start_index` until `is_more` is false. Over one open connection \
every object is listed once; otherwise a new object can repeat an earlier one on the next page.
- **Times** are UTC. Each program has a clock, which the sandbox can stop and advance; see *Sandbox*.
"""

ERROR_RULES: dict[int, str] = {
    400: "The request is not valid, or its body refers to an object that does not exist.",
    401: "The credentials are missing or wrong.",
    403: "Not available in production mode.",
    404: "The path refers to an object that does not exist.",
    409: "The token was used before with a different body.",
    413: "The body or the requested page is too large.",
    415: "The body is not `application/json`.",
}

PROBLEM = {"$ref": "#/components/schemas/Problem"}

SAME_AS = {
    "acceptedcountries": "accepted_countries", "balances": "user", "customheaders": "webhook", "decisions": "transaction",
    "parent": "user", "program": "funding_source",
}  # fmt: skip
"""Words in paths and parameter names that refer to an object of another kind."""


@cache
def document_bytes() -> bytes:
    """Return the JSON of the document. It is generated once, at the first call."""
    return encoder.encode(document())


def document() -> Json:
    """Return the document. Every route of the catalog is an operation in it."""
    schemas = Schemas(catalog.ROUTES)
    homes, ids = home_of_routes(), operation_ids(catalog.ROUTES)
    paths: dict[str, Json] = {}
    for route in catalog.ROUTES:
        operation = _operation(route, ids, homes[route].TAG, schemas)
        paths.setdefault(full_path(route), {})[route.verb.lower()] = operation
    texts: dict[str, list[str]] = {}
    for home in dict.fromkeys(homes.values()):
        texts.setdefault(home.TAG, []).append(prose(home.__doc__ or ""))
    tags = [{"name": name, "description": "\n\n".join(parts)} for name, parts in texts.items()]
    by_place = {(route.verb, full_path(route)): ids[route] for route in catalog.ROUTES}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Cardwright",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"basic": []}],
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
            "schemas": dict(schemas.components()),
            "responses": {_response_name(status): _problem_response(status) for status in _kinds_by_status()},
        },
        "x-guide": [{"title": title, "operations": [by_place[place] for place in places]} for title, places in GUIDE],
    }


# --- Names and resources of operations --------------------------------------------------


def full_path(route: Route) -> str:
    """Return the path with the prefix of its scope."""
    return ("/sandbox" if route.scope in (Scope.SANDBOX, Scope.SANDBOX_ONLY) else "/v3") + route.path


def home_of_routes() -> dict[Route, ModuleType]:
    """Return the module of each route, in the order of the catalog. An action may be in another module than its route."""
    modules = [module for module in vars(catalog).values() if isinstance(module, ModuleType)]
    homes = {route: module for module in modules for route in getattr(module, "routes", ())}
    return {route: homes[route] for route in catalog.ROUTES}


def operation_ids(routes: Sequence[Route]) -> dict[Route, str]:
    """Return the unique name of each operation: that of its action, unless the route has an ``operation_id``."""
    ids = {route: route.operation_id or route.action.__name__ for route in routes}
    assert len(set(ids.values())) == len(ids), "two operations have one name; give one of the routes an operation_id"
    return ids


# --- Operations ------------------------------------------------------------------------


def _operation(route: Route, ids: dict[Route, str], tag: str, schemas: Schemas) -> Json:
    operation: Json = {"operationId": ids[route], "tags": [tag], "summary": prose(route.summary)}
    if description := _description(route):
        operation["description"] = description
    if parameters := [*_path_parameters(route), *_query_parameters(route, schemas)]:
        operation["parameters"] = parameters
    if route.body is not None:
        content = {"schema": schemas.of(route.body), **_example(route)}
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    operation["responses"] = {**_good_response(route, ids, schemas), **_bad_responses(route)}
    return operation


def _description(route: Route) -> str:
    """Return the description: the action's docstring after its first line, the query's docstring, and the available modes."""
    docstring = inspect.cleandoc(route.action.__doc__ or "")
    parts = [docstring.partition("\n")[2], (route.query.__doc__ or "") if route.query is not None else ""]
    if route.scope is Scope.SANDBOX_ONLY:
        parts.append("Not available in production mode.")
    if route.scope is Scope.SIMULATION:
        parts.append("Available in production mode only when the setting `CARDWRIGHT_ALLOW_SIMULATE` is true.")
    return "\n\n".join(text for part in parts if (text := prose(part)))


def _example(route: Route) -> Json:
    example = BODIES.get((route.verb, full_path(route)))
    return {} if example is None else {"example": example}


def _path_parameters(route: Route) -> Iterator[Json]:
    for name in re.findall(r"{(\w+)}", route.path):
        kind = kind_of(route.path, name)
        parameter: Json = {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        parameter["description"] = descriptions().path.get(kind, "")
        token = TOKENS.get(kind)
        yield parameter if token is None else {**parameter, "example": token}


def _query_parameters(route: Route, schemas: Schemas) -> Iterator[Json]:
    paging = list(_paging_parameters(route.paging)) if route.paging is not None else []
    for name, (schema, is_required) in schemas.fields_of(route.query):
        if name not in {parameter["name"] for parameter in paging}:
            bare = {key: value for key, value in schema.items() if key != "description"}
            yield {
                "name": name,
                "in": "query",
                "required": is_required,
                "description": schema.get("description", ""),
                "schema": bare,
            }
    yield from paging
    if route.fields:
        text = "The fields of the answer, separated by commas. A nested field needs the names of its parents too."
        yield {"name": "fields", "in": "query", "description": text, "schema": {"type": "string"}, "example": "token"}


def _paging_parameters(paging: Paging) -> Iterator[Json]:
    count = {"type": "integer", "minimum": paging.count_min, "maximum": paging.count_max, "default": paging.count}
    start = {"type": "integer", "minimum": 0, "maximum": START_INDEX_MAX, "default": 0}
    yield {"name": "count", "in": "query", "description": "The maximum number of objects in the answer.", "schema": count}
    yield {
        "name": "start_index",
        "in": "query",
        "description": "The position of the first object in the list, from 0.",
        "schema": start,
    }
    text = "The field to sort by; a `-` before it means descending order."
    yield {"name": "sort_by", "in": "query", "description": text, "schema": {"type": "string", "default": paging.sort_by}}


# --- Answers ---------------------------------------------------------------------------


def _good_response(route: Route, ids: dict[Route, str], schemas: Schemas) -> Json:
    returned = inspect.signature(route.action).return_annotation
    if returned is None:
        return {"204": {"description": "Success, without a body."}}
    if returned is Reply:
        return {str(route.status): {"description": "The answer of the endpoint.", "content": {"application/json": {}}}}
    is_list = route.paging is not None or returned is Listing
    schema = (schemas.list_of if is_list else schemas.of)(route.answer, is_cut=route.fields)
    response: Json = {"description": HTTPStatus(route.status).phrase, "content": {"application/json": {"schema": schema}}}
    if links := _links(route, ids):
        response["links"] = links
    return {str(route.status): response}


def _bad_responses(route: Route) -> Json:
    """Return the problems that follow from the route's form, and ``default`` for all other problems."""
    has_body, has_query = route.body is not None, route.paging is not None or route.query is not None
    applies = {
        400: has_body or has_query,
        401: True,
        403: route.scope in (Scope.SANDBOX_ONLY, Scope.SIMULATION),
        404: "{" in route.path,
        409: route.verb == "POST" and route.status == 201,
        413: has_body or route.paging is not None,
        415: has_body,
    }
    responses = {
        str(status): {"$ref": f"#/components/responses/{_response_name(status)}"} for status in applies if applies[status]
    }
    return {**responses, "default": {"description": "Any other problem.", "content": {"application/json": {"schema": PROBLEM}}}}


def _kinds_by_status() -> dict[int, list[tuple[str, problems.Kind]]]:
    kinds = [(name.lower(), kind) for name, kind in vars(problems).items() if isinstance(kind, problems.Kind)]
    return {status: [(name, kind) for name, kind in kinds if kind.status == status] for status in ERROR_RULES}


def _response_name(status: int) -> str:
    return f"Problem{status}"


def _problem_response(status: int) -> Json:
    """Return the response for a status, with each problem of that status as an example."""
    examples = {
        name: {"value": {"error_code": kind.code, "error_message": kind.text.replace("{}", "…")}}
        for name, kind in _kinds_by_status()[status]
    }
    return {"description": ERROR_RULES[status], "content": {"application/json": {"schema": PROBLEM, "examples": examples}}}


# --- Links: operations that accept a token of an answer ----------------------------------


def kind_of(path: str, name: str) -> str:
    """Return the kind of object that a path parameter refers to, such as user or card.

    The name of the parameter decides, or for ``token`` the word before it in the path.
    """
    before = path.partition(f"/{{{name}}}")[0].rpartition("/")[2]
    word = before if name == "token" else name.removesuffix("_token")
    return SAME_AS.get(word, word.removesuffix("s"))


def _links(route: Route, ids: dict[Route, str]) -> Json:
    """Return the operations on a created object whose only path parameter is its token."""
    if route.verb != "POST" or route.status != 201:
        return {}
    kind, pointer = kind_of(f"{route.path}/{{token}}", "token"), "$response.body#/token"
    if route.scope is Scope.SIMULATION:
        kind, pointer = "transaction", "$response.body#/transaction/token"
    links: Json = {}
    for other in ids:
        names = re.findall(r"{(\w+)}", other.path)
        if len(names) == 1 and kind_of(other.path, names[0]) == kind:
            links[ids[other]] = {"operationId": ids[other], "parameters": {names[0]: pointer}}
    return links
