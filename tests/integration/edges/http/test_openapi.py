"""OpenAPI document: every route, shape and problem, and examples that the platform accepts."""

import copy
import re
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import schemathesis

from cardwright.core import problems
from cardwright.edges.http import openapi, schemas
from cardwright.edges.http.descriptions import descriptions
from cardwright.edges.http.examples import BODIES, GUIDE, HERE, NUMBER
from cardwright.resources.catalog import ROUTES
from cardwright.resources.common.route import Route
from tests.support.fixtures import module_server
from tests.support.issuing import client_of, new_program, read_of
from tests.support.server import Client, Reply, RunningServer

DOCUMENT: dict[str, Any] = msgspec.json.decode(openapi.document_bytes())
OPERATIONS = {(verb.upper(), path): operation for path, verbs in DOCUMENT["paths"].items() for verb, operation in verbs.items()}
CALLS_MAX = 1_500
"""Maximum number of calls of Python functions for each operation. The document needs about 600."""

BODY_ROUTES = [route for route in ROUTES if route.body is not None]


def name_of(route: Route) -> str:
    return f"{route.verb} {openapi.full_path(route)}"


def operation_of(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = OPERATIONS[route.verb, openapi.full_path(route)]
    return operation


def parameters_of(route: Route, place: str) -> dict[str, dict[str, Any]]:
    return {parameter["name"]: parameter for parameter in operation_of(route).get("parameters", []) if parameter["in"] == place}


def nodes_of(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in the document."""
    match node:
        case dict():
            yield node
            for inner in node.values():
                yield from nodes_of(inner)
        case list():
            for inner in node:
                yield from nodes_of(inner)
        case _:
            pass


def find(reference: str) -> Any:
    node: Any = DOCUMENT
    for key in reference.removeprefix("#/").split("/"):
        node = node[key]
    return node


def validator_of(schema: Mapping[str, Any]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]})


# --- The whole document ---------------------------------------------------------------------


def test_document_is_openapi() -> None:
    """The document is valid OpenAPI 3.1, and a missing title is detected."""
    schemathesis.openapi.from_dict(copy.deepcopy(DOCUMENT)).validate()
    broken = copy.deepcopy(DOCUMENT)
    del broken["info"]["title"]
    with pytest.raises(jsonschema_rs.ValidationError):
        schemathesis.openapi.from_dict(broken).validate()


@pytest.mark.parametrize("name", DOCUMENT["components"]["schemas"])
def test_schema_is_json_schema(name: str) -> None:
    """Every shape is valid JSON Schema, which the schema of OpenAPI does not check."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    jsonschema_rs.meta.validate({**dialect, **DOCUMENT["components"]["schemas"][name]})


def test_every_reference_leads_somewhere() -> None:
    """No reference is broken, and each component has a reference."""
    references = {node["$ref"] for node in nodes_of(DOCUMENT) if isinstance(node.get("$ref"), str)}
    for reference in references:
        assert isinstance(find(reference), dict), reference
    kinds = ("schemas", "responses")
    assert references == {f"#/components/{kind}/{name}" for kind in kinds for name in DOCUMENT["components"][kind]}


def test_every_route_is_an_operation() -> None:
    """The document has exactly the operations of the routes."""
    assert set(OPERATIONS) == {(route.verb, openapi.full_path(route)) for route in ROUTES}


def test_operation_names_are_unique() -> None:
    """Each operation has a unique name, which generated clients need."""
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)


def test_every_tag_is_explained() -> None:
    """Tags are in the order of the catalog, and each has a description."""
    used = list(dict.fromkeys(tag for operation in OPERATIONS.values() for tag in operation["tags"]))
    assert [tag["name"] for tag in DOCUMENT["tags"]] == used
    assert all(tag["description"].endswith(".") for tag in DOCUMENT["tags"])


def test_every_field_is_described() -> None:
    """Each field of each shape and each parameter has a description that ends with a full stop."""
    shapes = DOCUMENT["components"]["schemas"]
    fields = {f"{name}.{field}": kind for name, shape in shapes.items() for field, kind in shape.get("properties", {}).items()}
    parameters = {
        f"{' '.join(place)} {parameter['name']}": parameter
        for place, operation in OPERATIONS.items()
        for parameter in operation.get("parameters", ())
    }
    texts = {place: described.get("description", "") for place, described in {**fields, **parameters}.items()}
    assert len(texts) > 1_500
    wrong = [place for place, text in texts.items() if not re.fullmatch(r"[A-Z`0-9][^\n]*[^\s.]\.", text)]
    assert wrong == [], "add or correct their texts in src/cardwright/edges/http/descriptions.toml"


def test_no_description_is_left_over() -> None:
    """Each description in the tables belongs to a field or parameter of the document."""
    shapes = openapi.Schemas(ROUTES).shapes()
    used = {(name, field) for name, shape in shapes.items() for field in shape.get("properties", {})}
    texts = descriptions()
    special = {(shape, field) for shape, fields in texts.shapes.items() for field in fields}
    assert special <= used
    assert texts.fields.keys() <= {field for name, field in used - special}
    kinds = {openapi.kind_of(route.path, name) for route in ROUTES for name in re.findall(r"{(\w+)}", route.path)}
    assert texts.path.keys() == kinds


def test_document_is_made_cheaply_and_once() -> None:
    """The document takes a limited number of calls for each operation, and is created only once."""
    calls = [0]

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        calls[0] += event == "call"

    sys.setprofile(count)
    try:
        openapi.document()
    finally:
        sys.setprofile(None)
    assert calls[0] < CALLS_MAX * len(ROUTES), calls
    assert openapi.document_bytes() is openapi.document_bytes()


# --- Operations -----------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_operation_tells_its_route(route: Route) -> None:
    """An operation has summary, path parameters, body, status and the errors of its route."""
    operation = operation_of(route)
    assert operation["summary"] == schemas.prose(route.summary)
    assert list(parameters_of(route, "path")) == re.findall(r"{(\w+)}", route.path)
    assert ("requestBody" in operation) == (route.body is not None)
    assert str(route.status) in operation["responses"]
    assert "401" in operation["responses"]
    assert ("404" in operation["responses"]) == ("{" in route.path)
    assert ("415" in operation["responses"]) == (route.body is not None)


@pytest.mark.parametrize("route", [route for route in ROUTES if route.query is not None], ids=name_of)
def test_operation_has_its_query_parameters(route: Route) -> None:
    """Every field of the query struct is a parameter, and none of them can be null."""
    assert route.query is not None
    parameters = parameters_of(route, "query")
    for field in msgspec.structs.fields(route.query):
        assert parameters[field.encode_name].get("required", False) == field.required
        assert "null" not in str(parameters[field.encode_name]["schema"])


@pytest.mark.parametrize("route", [route for route in ROUTES if route.paging is not None], ids=name_of)
def test_list_tells_its_pages(route: Route) -> None:
    """A list has the limits and defaults of its route, and its response is the envelope of a list."""
    assert route.paging is not None
    count = parameters_of(route, "query")["count"]["schema"]
    assert (count["minimum"], count["maximum"], count["default"]) == (
        route.paging.count_min, route.paging.count_max, route.paging.count,
    )  # fmt: skip
    assert parameters_of(route, "query")["sort_by"]["schema"]["default"] == route.paging.sort_by
    content = operation_of(route)["responses"][str(route.status)]["content"]["application/json"]
    assert set(find(content["schema"]["$ref"])["required"]) == {"count", "start_index", "end_index", "is_more", "data"}


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_fields_parameter_is_where_it_works(route: Route) -> None:
    """``fields`` is a parameter where the response can be reduced, and there the response may be a part."""
    assert ("fields" in parameters_of(route, "query")) == route.fields
    whole = validator_of({"$ref": "#/components/schemas/Source"})
    part = validator_of({"anyOf": [{"$ref": "#/components/schemas/Source"}, {"$ref": "#/components/schemas/Part"}]})
    assert (whole.is_valid({"token": "a"}), part.is_valid({"token": "a"})) == (False, True)


def test_links_fit() -> None:
    """A link names an operation and exactly its path parameters."""
    by_id = {operation["operationId"]: operation for operation in OPERATIONS.values()}
    links = [link for node in nodes_of(DOCUMENT) for link in node.get("links", {}).values()]
    for link in links:
        names = {parameter["name"] for parameter in by_id[link["operationId"]]["parameters"] if parameter["in"] == "path"}
        assert set(link["parameters"]) == names
    made = OPERATIONS["POST", "/v3/cards"]["responses"]["201"]["links"]
    assert {"get_card", "update_card", "show_pan"} <= set(made)


@pytest.mark.parametrize(
    ("path", "name", "kind"),
    [
        ("/users/{token}", "token", "user"),
        ("/users/{parent_token}/children", "parent_token", "user"),
        ("/cards/user/{token}", "token", "user"),
        ("/balances/{token}", "token", "user"),
        ("/fundingsources/program/{token}", "token", "funding_source"),
        ("/transactions/fundingsource/{funding_source_token}", "funding_source_token", "funding_source"),
        ("/programs/{token}", "token", "program"),
        ("/transactions/{token}/related", "token", "transaction"),
        ("/decisions/{token}", "token", "transaction"),
        ("/webhooks/customheaders/{token}", "token", "webhook"),
        ("/inbox/{box}", "box", "box"),
    ],
)
def test_path_parameter_names_a_kind(path: str, name: str, kind: str) -> None:
    """The kind of a path parameter follows from the path, so that examples and links need no second table."""
    assert openapi.kind_of(path, name) == kind


def test_every_problem_has_an_example() -> None:
    """Each kind of problem whose status an operation names is an example in the document."""
    responses = DOCUMENT["components"]["responses"].values()
    documented = {
        (example["value"]["error_code"], example["value"]["error_message"])
        for response in responses
        for example in response["content"]["application/json"]["examples"].values()
    }
    kinds = [kind for kind in vars(problems).values() if isinstance(kind, problems.Kind)]
    expected = {(kind.code, kind.text.replace("{}", "…")) for kind in kinds if kind.status in openapi.ERROR_RULES}
    assert documented == expected
    assert ("401001", "Invalid credential has been detected") in documented


# --- Shapes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "is_good"),
    [(10, True), (4.75, True), ("10.00", True), ("ten", False), ("NaN", False), ("", False), (None, False), (True, False)],
)
def test_amounts_are_numbers_or_text_with_a_number(amount: object, is_good: bool) -> None:
    """An amount is a number, or a text that contains a number."""
    body = {"type": "ISSUER_FEE", "credit_debit": "C", "amount": amount}
    assert validator_of({"$ref": "#/components/schemas/NetworkFee"}).is_valid(body) == is_good


STRING, INTEGER, NULL = {"type": "string", "maxLength": 2}, {"type": "integer", "minimum": 3}, {"type": "null"}
VALUES: tuple[Any, ...] = (None, True, 1, 2, 3, 4.5, "", "a", "b", "abc", [], ["a"], [1], {}, {"a": 1}, {"a": None})


@pytest.mark.parametrize(
    "plain",
    [
        {"anyOf": [STRING, NULL], "default": None},
        {"anyOf": [STRING, INTEGER, NULL]},
        {"anyOf": [{"enum": ["a", "b"]}, NULL]},
        {"anyOf": [{"enum": [1, 3]}, {"enum": ["a"]}]},
        {"anyOf": [{"enum": ["a"]}, INTEGER]},
        {"anyOf": [{"type": "array", "items": {"anyOf": [STRING, NULL]}}, NULL]},
        {"type": "object", "properties": {"a": {"anyOf": [INTEGER, NULL], "default": None}}, "required": []},
        {"type": "object", "additionalProperties": {"anyOf": [STRING, NULL]}, "default": {}},
        {"enum": [1, "a", None]},
        {},
    ],
    ids=str,
)
def test_tidying_changes_no_meaning(plain: dict[str, Any]) -> None:
    """A tidied schema accepts the same values as the original one."""
    before, after = jsonschema_rs.Draft202012Validator(plain), jsonschema_rs.Draft202012Validator(schemas.tidied(plain))
    assert [after.is_valid(value) for value in VALUES] == [before.is_valid(value) for value in VALUES]


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [STRING, NULL]},
        {"anyOf": [{"enum": ["a"]}, NULL]},
        {"anyOf": [{"anyOf": [{"enum": ["a"]}, INTEGER]}, NULL]},
        STRING,
    ],
    ids=str,
)
def test_without_null_only_null_is_refused(schema: dict[str, Any]) -> None:
    """A parameter accepts the values of its field, except null, which a query string cannot contain."""
    before = jsonschema_rs.Draft202012Validator(schema)
    after = jsonschema_rs.Draft202012Validator(schemas.without_null(schemas.tidied(schema)))
    assert [after.is_valid(value) for value in VALUES] == [value is not None and before.is_valid(value) for value in VALUES]


def test_prose_is_markdown_without_sources() -> None:
    """Descriptions contain paragraphs and code, but no references to sources."""
    text = 'Renames ``x`` (observed),\n    once.\n\n    More (wire reference, "Errors").\n    '
    assert schemas.prose(text) == "Renames `x`, once.\n\nMore."


# --- Examples -------------------------------------------------------------------------------


@pytest.mark.parametrize("route", BODY_ROUTES, ids=name_of)
def test_every_body_has_a_good_example(route: Route) -> None:
    """The example of a body is valid by the document and accepted by the route."""
    content = operation_of(route)["requestBody"]["content"]["application/json"]
    assert "example" in content, f"add an example of {name_of(route)} to src/cardwright/edges/http/examples.py"
    validator_of(content["schema"]).validate(content["example"])
    assert route.body is not None
    msgspec.convert(content["example"], route.body, strict=False)


def test_no_example_is_left_over() -> None:
    """Examples and guide name only existing routes."""
    assert set(BODIES) == {(route.verb, openapi.full_path(route)) for route in BODY_ROUTES}
    assert {place for _, places in GUIDE for place in places} <= set(OPERATIONS)


class Walker:
    """A client that sends the examples unchanged and uses created tokens as the document's links describe."""

    def __init__(self, server: RunningServer, client: Client) -> None:
        self._open, self._client = {HERE: server.root_url}, client
        self._known: dict[tuple[str, str], str] = {}

    def send(self, verb: str, place: str) -> Reply:
        """Return the response, which must be a success and match the document."""
        operation = OPERATIONS[verb, place]
        body = msgspec.json.encode(BODIES[verb, place]) if verb == "POST" else None
        for placeholder, value in self._open.items():
            body = body and body.replace(placeholder.encode(), value.encode())
        query = "?wait=30s" if "/inbox/" in place else ""
        answer = self._client.request(verb, self._path(operation, place) + query, body)
        assert answer.status < 300, answer.text
        response = operation["responses"][str(answer.status)]
        validator_of(response["content"]["application/json"]["schema"]).validate(answer.json)
        self._remember(response.get("links", {}), answer)
        if operation["operationId"] == "create_account":
            self._open[NUMBER] = answer.json["account_number"]
        return answer

    def _path(self, operation: dict[str, Any], place: str) -> str:
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                token = self._known.get((operation["operationId"], parameter["name"])) or parameter["example"]
                place = place.replace(f"{{{parameter['name']}}}", token)
        return place

    def _remember(self, links: dict[str, Any], answer: Reply) -> None:
        for link in links.values():
            for name, pointer in link["parameters"].items():
                value = answer.json
                for key in pointer.partition("#/")[2].split("/"):
                    value = value[key]
                self._known[link["operationId"], name] = value


server = module_server()


def test_the_guide_works_as_it_stands(server: RunningServer) -> None:
    """The examples of the guide, sent in order and unchanged, lead to an approved purchase, a notification and a decision."""
    with server.client() as client:
        walker = Walker(server, client)
        answers = {place: walker.send(verb, place).json for _, places in GUIDE for verb, place in places}
    assert answers["/v3/simulate/authorization"]["transaction"]["state"] == "PENDING"
    assert answers["/sandbox/inbox/{box}"]["count"] == 1
    assert answers["/sandbox/decisions/{token}"]["outcome"] == "APPROVED"


RETURN = ("/v3/users", "/v3/depositaccounts", "/v3/simulate/directdeposits", "/v3/directdeposits/transitions")


def test_a_deposit_can_be_returned_as_it_stands(server: RunningServer) -> None:
    """The examples, sent in order, lead to a returned direct deposit, even with a clock in 2035."""
    with client_of(server, new_program(server)) as client:
        read_of(client.post("/sandbox/clock", {"set": "2035-12-31T23:59:59Z"}))
        walker = Walker(server, client)
        *_, returned = [walker.send("POST", place).json for place in RETURN]
        assert returned["state"] == "REVERSED"
        assert read_of(client.get("/directdeposits/salary"))["state"] == "REVERSED"
