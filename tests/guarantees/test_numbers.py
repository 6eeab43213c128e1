"""Numbers in texts: every parameter, field, option, variable and header that becomes a number accepts ASCII digits only."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
import typer
from msgspec import inspect

from cardwright.edges.cli.commands import cli, settings_from
from cardwright.edges.cli.output import Failure
from cardwright.settings import Settings
from tests.guarantees.test_bad_input import check, name_of, raw_exchange
from tests.stress.invalid_bodies import Field, fields_of, with_value
from tests.stress.object_graph import ALL, ObjectGraph, Place, filled, names_in, required_query, working_values
from tests.support.server import RunningServer

TENS = ("1_0", "\u0661\u0660", "\uff11\uff10", "\u0967\u0966", " 10", "10 ", "\t10", "10\n", "\u00a010")
"""Texts that ``int`` and ``Decimal`` read as ten."""

TIMES = (
    "1_0s", "\u0661\u0660s", " 10s", "10s ", "\u0662\u0660\u0662\u0666-01-31", "2026-01-\uff13\uff11", " 2026-01-31",
    "2026-01-31 ", "2026-01-31T\u0661\u0662:00:00",
)  # fmt: skip
"""Durations, dates and date-times in other spellings."""

WORDS = frozenset({
    "card_product", "direct_deposit_state", "expand", "last_four", "mid", "name", "polarity", "search_type", "sort_by", "state",
    "states", "token", "type", "user", "version",
})  # fmt: skip
"""Parameters that are compared as text, so that no text becomes a number. Those that end in ``_token`` are such too."""

PLACES = sorted(ALL)
WITH_QUERY = [place for place in PLACES if ALL[place].query is not None or ALL[place].paging is not None]


def parameters_of(place: Place) -> list[str]:
    """Return the parameters of a route that become numbers, times or truth values."""
    route = ALL[place]
    names = {"count", "start_index"} if route.paging is not None else set()
    if route.query is not None:
        names |= {field.encode_name for field in msgspec.structs.fields(route.query)}
    return sorted(name for name in names - WORDS if not name.endswith("_token"))


def is_number(field: Field) -> bool:
    """Return True for a field that is a number and may not be any other text."""
    kinds = {type(kind) for kind in field.types}
    return inspect.StrType not in kinds and bool({inspect.DecimalType, inspect.IntType, inspect.FloatType} & kinds)


def numbers_of(place: Place) -> list[Field]:
    """Return the fields of a route's body that are numbers."""
    shape = ALL[place].body
    return [] if shape is None else [field for field in fields_of(shape) if is_number(field)]


WITH_NUMBERS = [place for place in PLACES if numbers_of(place)]


def options() -> Iterator[tuple[str, str, type]]:
    """Yield command, name and type of each option that is a number."""
    group: Any = typer.main.get_command(cli)
    for name, command in group.commands.items():
        for parameter in command.params:
            kind = parameter.type_descriptor.annotation
            if kind in (int, float):
                yield name, parameter.opts[0], kind


OPTIONS = list(options())


def variables() -> Iterator[str]:
    """Yield the environment variable of each setting that is a number."""
    for name, schema in Settings.model_json_schema()["properties"].items():
        if {kind.get("type") for kind in schema.get("anyOf", [schema])} & {"integer", "number"}:
            yield f"CARDWRIGHT_{name.upper()}"


VARIABLES = list(variables())


def test_the_walks_meet_all_kinds_of_numbers() -> None:
    """The walks below meet lists, amounts, rates, counts, ids, dates and durations, and the options and variables of commands."""
    assert len(WITH_QUERY) >= 30
    fields = [field.name for place in WITH_NUMBERS for field in numbers_of(place)]
    assert len(fields) >= 60
    assert {"amount", "cash_back_amount", "conversion_rate", "amount_limit", "usage_limit", "balance_max"} <= set(fields)
    names = {name for place in WITH_QUERY for name in parameters_of(place)}
    assert {"count", "start_index", "start_identifier", "after", "start_date", "end_date", "date", "wait", "mcc"} <= names
    assert {option for _, option, _ in OPTIONS} == {"--port", "--workers", "--seed", "--max-approval-drop"}
    assert {"CARDWRIGHT_PORT", "CARDWRIGHT_ANSWER_LIMIT_S", "CARDWRIGHT_BODY_MAX_BYTES"} <= set(VARIABLES)


@pytest.mark.parametrize("place", WITH_QUERY, ids=name_of)
def test_parameters(object_graph: ObjectGraph, place: Place) -> None:
    """Each parameter that is no text refuses numbers and times with other than ASCII digits, and the error names it."""
    path = filled(place[1], working_values(object_graph, place) or ())
    body, required = object_graph.reusable_body_of(place), required_query(object_graph, place)
    for name in parameters_of(place):
        for text in (*TENS, *TIMES):
            reply = object_graph.client.request(place[0], f"{path}?{urlencode({**required, name: text})}", body)
            check(reply, name)
            assert reply.status == 400, (name, text)


@pytest.mark.parametrize("place", WITH_NUMBERS, ids=name_of)
def test_fields(object_graph: ObjectGraph, place: Place) -> None:
    """Each number of each body refuses a text with other than ASCII digits, and the error names the field."""
    path, body, shape = filled(place[1], ["x"] * len(names_in(place[1]))), object_graph.reusable_body_of(place), ALL[place].body
    assert shape is not None
    for field in numbers_of(place):
        for text in TENS:
            reply = object_graph.client.request(place[0], path, with_value(body, field.path, text, shape))
            check(reply, field.name)
            assert (reply.status, reply.json["error_code"]) == (400, "400037"), (field.path, text)


@pytest.mark.parametrize("text", TENS)
def test_parameters_of_the_inbox(server: RunningServer, object_graph: ObjectGraph, text: str) -> None:
    """Status and delay of a message to the webhook inbox refuse other than ASCII digits."""
    for query in ({"status": text.replace("10", "200").replace("1", "20")}, {"delay": f"{text}ms"}, {"delay": f"1s{text}ms"}):
        check(object_graph.client.post(f"/sandbox/inbox/default/numbers?{urlencode(query)}", {}), *query)


@pytest.mark.parametrize("text", [b"1_0", "\u0661\u0660".encode(), "\uff11\uff10".encode(), b"+10", b"0x10", b"1e1", b"1 0"])
def test_the_length_of_a_body(server: RunningServer, object_graph: ObjectGraph, text: bytes) -> None:
    """``Content-Length`` and the size of a chunk refuse other than ASCII digits."""
    head = "POST /v3/users HTTP/1.1\r\nContent-Type: application/json\r\n"
    number = text.decode("latin-1")
    assert raw_exchange(server, object_graph, f"{head}Content-Length: {number}", b'{"name":1}')[0] == 400
    # The size of a chunk is hexadecimal.
    if text != b"1e1":
        assert raw_exchange(server, object_graph, f"{head}Transfer-Encoding: chunked", text + b"\r\n" + b" " * 16)[0] in (0, 400)


@pytest.mark.parametrize(("command", "option", "kind"), OPTIONS, ids=lambda value: str(value))
def test_options(monkeypatch: pytest.MonkeyPatch, command: str, option: str, kind: type) -> None:
    """Each number of the command line accepts ``10``, and refuses other digits, on the command line and in its variable."""
    group: Any = typer.main.get_command(cli)
    parser = group.commands[command]
    rest = ["file.json"] if command == "backtest" else []
    name = option.removeprefix("--").replace("-", "_")
    variable = next(parameter.envvar for parameter in parser.params if parameter.name == name)
    assert parser.make_context(command, [option, "10", *rest]).params[name] == 10
    for text in (*TENS, "NaN", "Infinity", "1" * 5000, *(["1.5"] if kind is int else ["1e999"])):
        with pytest.raises(typer.BadParameter, match="digits 0 to 9"):
            parser.make_context(command, [option, text, *rest])
        if variable is not None:
            monkeypatch.setenv(variable, text)
            with pytest.raises(typer.BadParameter, match="digits 0 to 9"):
                parser.make_context(command, rest)
            monkeypatch.delenv(variable)


@pytest.mark.parametrize("variable", VARIABLES)
def test_variables(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Each number of the environment accepts ``10``, and refuses other digits. The error names the variable."""
    monkeypatch.setenv(variable, "10")
    settings_from()
    for text in (*TENS, "nan", "inf"):
        monkeypatch.setenv(variable, text)
        with pytest.raises(Failure, match=variable):
            settings_from()
