"""Logs: they contain no card number and no named secret, and all other values stay readable."""

import io
import json
import logging
import random
import re
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from cardwright.kit import logs
from cardwright.kit.masks import REDACTED, TOO_DEEP, is_secret, mask, redact, redact_mapping

PAN = "4111111111111111"
MASKED = "411111______1111"


def valid(digits: str) -> bool:
    """Return True if the digits pass Luhn. This is a second implementation, so that the code under test does not check itself."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def card_numbers(text: str) -> list[str]:
    """Return all Luhn-valid numbers of 12 to 19 digits: whole digit groups, alone or joined by single spaces or dashes."""
    numbers = []
    for run in re.findall(r"\d(?:[ -]?\d)*", text):
        groups = re.split("[ -]", run)
        joined = ["".join(groups[start:stop]) for start in range(len(groups)) for stop in range(start + 1, len(groups) + 1)]
        numbers += [digits for digits in joined if 12 <= len(digits) <= 19 and valid(digits)]
    return numbers


def canaries(count: int) -> list[str]:
    """Return distinct valid card numbers of 12 to 19 digits, half of them with the default prefix."""
    draw = random.Random(1)
    numbers: set[str] = set()
    while len(numbers) < count:
        prefix = draw.choice(["111111", str(draw.randrange(1, 10))])
        partial = prefix + "".join(draw.choices("0123456789", k=draw.choice([12, 13, 15, 16, 16, 16, 19]) - len(prefix) - 1))
        numbers.update(partial + last for last in "0123456789" if valid(partial + last))
    return sorted(numbers)[:count]


@dataclass
class Purchase:
    pan: str
    cvv_number: str
    amount: int = 4000


class Silent:
    """An object whose ``repr`` fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Yield a stream for log lines, and restore the logging of the process afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)


def configured(stream: io.StringIO, as_json: bool = True, level: str = "info") -> Any:
    logs.configure(level, as_json, stream)
    return structlog.get_logger("cardwright.test")


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def log_everywhere(log: Any, number: str) -> None:
    """Log a card number in every place where code may put it by mistake."""
    spaced, dashed = " ".join(re.findall("..?.?.?", number)), "-".join(re.findall("..?.?.?", number))
    log.info(f"paying with {number} now", note=f"card {spaced}", **{number: "key", f"key {dashed}": 1})
    log.info(
        "number", value=int(number), text=f"x{number}y", raw=number.encode(), below={"deep": [{"deeper": (spaced, int(number))}]}
    )
    log.info("objects", purchase=Purchase(number, "987"), error=ValueError(number), names={number}, mapping={int(number): dashed})
    log.info("positional %s", number)
    log.info("amount 100 %s", f"100 {number} 200", seen=f"2026-01-31 {number}")
    log.bind(pan=number, bound=number).info("bound")
    logging.getLogger("uvicorn.access").info('%s - "GET /cards?pan=%s"', "127.0.0.1:1", number)
    logging.getLogger("some.library").warning("library says " + number, extra={"pan": number})
    try:
        try:
            raise KeyError(dashed)
        except KeyError as cause:
            raise ValueError(f"no card {number}") from cause
    except ValueError:
        log.exception("failed", exception_of=number)
        logging.getLogger("asyncio").exception("Task failed for %s", spaced)
        log.error("again", exc_info=True, stack_info=True)


@pytest.mark.parametrize(("as_json", "count"), [(True, 1_000), (False, 200)])
def test_a_thousand_canaries_stay_in(stream: io.StringIO, as_json: bool, count: int) -> None:
    """No card number in a message, key, nested value, exception or foreign logger is written, and no line is lost."""
    log = configured(stream, as_json)
    numbers = canaries(count)
    for number in numbers:
        log_everywhere(log, number)
    written = stream.getvalue()
    assert card_numbers(written) == []
    # The shortest canary has 12 digits: shorter runs cannot contain one.
    joined = "\n".join(re.findall(r"\d{12,}", re.sub("[ -]", "", written)))
    assert not [number for number in numbers if number in joined]
    assert len(re.findall("paying with", written)) == len(re.findall("Task failed for", written)) == count
    assert "was lost" not in written


def test_the_canaries_would_be_found() -> None:
    """The search of the test above finds every canary in text without redaction, in both spellings."""
    for number in canaries(1_000):
        assert number in card_numbers(f"2026-01-31 12:00 {number}, next")
        assert number in card_numbers("-".join(re.findall("..?.?.?", number)))


def test_a_line_says_what_happened(stream: io.StringIO) -> None:
    """A JSON line has message, level, logger, UTC time, context and values, unchanged if they are not secret."""
    log = configured(stream)
    structlog.contextvars.bind_contextvars(request_id="r1")
    token = "123e4567-e89b-12d3-a456-426614174000"
    log.info("card created", card_token=token, amount=4000, flag=True, none=None, names=["Zoë", "東"])
    [line] = lines(stream)
    moment = datetime.fromisoformat(line.pop("timestamp"))
    assert moment.utcoffset() == timedelta(0)
    assert line == {
        "event": "card created",
        "level": "info",
        "logger": "cardwright.test",
        "request_id": "r1",
        "card_token": token,
        "amount": 4000,
        "flag": True,
        "none": None,
        "names": ["Zoë", "東"],
    }


def test_the_standard_library_goes_the_same_way(stream: io.StringIO) -> None:
    """A line of uvicorn is one JSON object with the same keys, written once, even if the logger already has a handler."""
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(logging.StreamHandler(sys.stderr))
    logger.propagate = False
    configured(stream)
    logger.info("Started server process [%d]", 7)
    [line] = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("Started server process [7]", "info", "uvicorn.error")
    assert line["timestamp"].endswith("Z")


def test_levels(stream: io.StringIO) -> None:
    """Lines below the level are not written, the level can be changed, and an unknown level raises ValueError."""
    log = configured(stream, level="WARNING")
    log.info("quiet")
    logging.getLogger("library").info("quiet")
    log.warning("loud")
    logs.configure("debug", True, stream)
    log.debug("louder")
    assert [line["event"] for line in lines(stream)] == ["loud", "louder"]
    with pytest.raises(ValueError, match="Unknown level"):
        logs.configure("chatty", True, stream)


def test_named_secrets_stay_in(stream: io.StringIO) -> None:
    """No password, PIN, code or credential is written, from keys, nested records, headers, reprs, bodies or addresses."""
    log = configured(stream)
    secret = "hunter2 with spaces"
    log.info(
        "keys",
        password=secret,
        cvv_number=987123,
        pin=b"987123",
        nested=[{"basic_auth_password": secret, "Access-Token": secret}],
    )
    log.info("headers", headers=[(b"authorization", b"Basic aHVudGVyMg=="), (b"host", b"localhost"), ["X", "Y"]])
    log.info("repr %r", Purchase("12", "987123"), record=SimpleNamespace(password=secret))
    log.info(json.dumps({"ssn": "987123456", "pin": 987123, "inner": json.dumps({"secret": 'hunter2 "quoted"'})}))
    log.info(
        "dsn postgres://cardwright:hunter2@db/cardwright",
        query="a=1&access_token=hunter2&b=2",
        header="Authorization: Basic aHVudGVyMg==",
    )
    try:
        raise ValueError(f"bad body { ({'password': secret, 'name': 'Ana'})!r} from {[(b'authorization', b'Bearer hunter2')]!r}")
    except ValueError:
        log.exception("failed")
    written = stream.getvalue()
    for leak in ("hunter2", "987123", "aHVudGVyMg", "with spaces", "quoted"):
        assert leak not in written
    for kept in ("Ana", "localhost", "a=1&access_token=[redacted]&b=2", "postgres://[redacted]@db/cardwright", "amount=4000"):
        assert kept in written


def test_tracebacks_show_no_local_variables(stream: io.StringIO) -> None:
    """A traceback in text format has source lines and no values of variables."""
    log = configured(stream, as_json=False)
    try:
        harmless_name = "".join(["local", "-value"])
        raise ValueError(len(harmless_name))
    except ValueError:
        log.exception("failed")
    assert "raise ValueError(len(harmless_name))" in stream.getvalue()
    assert "local-value" not in stream.getvalue()


def test_a_line_that_cannot_be_written_shows_nothing(stream: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    """A line with wrong arguments is replaced by a notice. The standard library would print the arguments to stderr."""
    log = configured(stream)
    logging.getLogger("library").info("count %d", PAN)
    log.info("count %d", PAN)
    assert stream.getvalue().count("was lost: TypeError") == 2
    assert stream.getvalue().startswith("a log line of library was lost")
    assert PAN not in stream.getvalue() + capsys.readouterr().err


def test_strange_values_are_written(stream: io.StringIO) -> None:
    """A failing ``repr``, a cycle, a very long integer, a lone surrogate and keys of other types do not lose the line."""
    log = configured(stream)
    cycle: list[object] = []
    cycle.append(cycle)
    log.info("strange", silent=Silent(), cycle=cycle, long=10**5000, surrogate="\ud800", keys={(1, 2): 3, None: 4, Silent(): 5})
    [line] = lines(stream)
    assert line["silent"] == "<Silent>"
    assert TOO_DEEP in json.dumps(line["cycle"])
    assert line["long"] == "[long number]"
    assert line["keys"] == {"(1, 2)": 3, "None": 4, "<Silent>": 5}


def test_an_ascii_stream_gets_every_line() -> None:
    """Characters that the stream cannot encode are escaped, and the line is written."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    handler = logging.getLogger().handlers[:]
    try:
        logs.configure("info", True, stream)
        logging.getLogger("library").warning("Zoë")
    finally:
        logging.getLogger().handlers[:] = handler
    assert json.loads(raw.getvalue().replace(b"\\x", b"\\u00"))["event"] == "Zoë"


# --- Redaction itself -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PAN, MASKED),
        ("4111 1111 1111 1111", MASKED),
        ("4111-1111-1111-1111", MASKED),
        (f"pay 100 {PAN}!", f"pay 100 {MASKED}!"),
        (f"pan{PAN}EUR", f"pan{MASKED}EUR"),
        (f"{PAN},{PAN}", f"{MASKED},{MASKED}"),
        (f"2026-01-31 {PAN}", f"2026-01-31 {MASKED}"),
        (f";{PAN}=30011010000?", f";{MASKED}=30011010000?"),
        ("378282246310005", "378282_____0005"),
        ("４１１１１１１１１１１１１１１１", MASKED),
        # longer runs: a number after its length, and a barcode
        (f"16{PAN}", "164111________1111"),
        ("48210937561029384757", "482109__________4757"),
        # the digits that a mask leaves form no new number with their neighbours
        (f"{PAN} 12345678", "411111______" + "____________"),
        # not card numbers
        ("4111111111111112", "4111111111111112"),
        ("41111111111", "41111111111"),
        (MASKED, MASKED),
        ("2026-01-31T12:00:00.123456Z", "2026-01-31T12:00:00.123456Z"),
        ("at 2026-01-31 12:00:00 from 10.0.0.1:54321", "at 2026-01-31 12:00:00 from 10.0.0.1:54321"),
        # the end of this UUID passes Luhn
        ("card 123e4567-e89b-12d3-a456-411111111118 made", "card 123e4567-e89b-12d3-a456-411111111118 made"),
        ("1234 41234567-e89b-12d3-a456-411111111118", "1234 41234567-e89b-12d3-a456-411111111118"),
        # a UUID without letters may contain a card number
        ("41111111-1111-1111-1111-111111111111", f"{MASKED}-1111-111111111111"),
    ],
)
def test_what_is_masked(text: str, expected: str) -> None:
    """Card numbers are masked in the middle. Times, tokens, addresses and invalid numbers stay."""
    assert redact(text) == expected


digit_soup = st.text("0123456789" * 3 + "14 -_x.", max_size=120)


@given(digit_soup)
@example(f"12 {PAN} 12 4111 1111 1111 1111 12345678 1234 {PAN}12")
def test_nothing_valid_is_left(text: str) -> None:
    """A redacted text of any digits and separators has no valid card number, and a second redaction changes nothing."""
    redacted = redact(text)
    assert card_numbers(redacted) == []
    assert redact(redacted) == redacted


@given(st.uuids())
@example(uuid.UUID("123e4567-e89b-12d3-a456-411111111118"))
def test_tokens_stay_readable(token: uuid.UUID) -> None:
    """A UUID with a letter is not changed in a path."""
    text = f"GET /v3/cards/{token}/transactions"
    assert redact(text) == text or not re.search("[a-f]", str(token))


def test_redaction_is_linear() -> None:
    """Redaction of half a megabyte takes about a second. A quadratic algorithm would take minutes, beyond the limit of 60 s."""
    for piece in ("4111 ", "1", "pin='", "://a:", 'password\\\\"', "authorization: ", "12345678 4111111111111111 "):
        began = time.process_time()
        redact_mapping(piece * (500_000 // len(piece)))
        assert time.process_time() - began < 60, piece


def test_records_keep_their_shape() -> None:
    """Redaction keeps types, numbers, masked numbers and empty secrets, and does not change its argument."""
    record = {
        "pan": mask(PAN),
        "password": None,
        "items": [1, (2.5, b"x\xff" + PAN.encode())],
        "instant": 1_769_860_800_000,
        "pin_is_set": True,
    }
    before = repr(record)
    assert redact_mapping(record) == {
        "pan": MASKED,
        "password": None,
        "items": [1, (2.5, b"x\xff" + MASKED.encode())],
        "instant": 1_769_860_800_000,
        "pin_is_set": True,
    }
    assert repr(record) == before
    assert redact_mapping([float(PAN), int(PAN), -int(PAN)]) == [f"{MASKED}.0", MASKED, f"-{MASKED}"]
    assert redact_mapping({"a": {"b": {"c": 1}}}, depth=2) == {"a": {"b": TOO_DEEP}}
    assert redact_mapping({"pan": PAN, "PIN": "1234", "authorization": "x"}) == {
        "pan": REDACTED,
        "PIN": REDACTED,
        "authorization": REDACTED,
    }


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("pan", True),
        ("Set-Cookie", True),
        (b"Authorization", True),
        ("CVV_NUMBER", True),
        ("span", False),
        ("token", False),
        (3, False),
    ],
)
def test_secret_names(name: object, secret: bool) -> None:
    """Names of secrets are compared as a whole, in any case, with dashes or underscores, as text or bytes."""
    assert is_secret(name) is secret
