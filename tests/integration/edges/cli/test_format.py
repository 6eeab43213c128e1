"""`cardwright format`: the indented JSON of an answer, as the pages' helper prints it."""

import subprocess
import sys

import pytest

CASES = {
    "amounts keep their digits": (
        b'{"amount":10.00,"ids":[1,2.50]}',
        '{\n  "amount": 10.00,\n  "ids": [\n    1,\n    2.50\n  ]\n}\n',
    ),
    "a long number is not rounded": (b"[123456789012345678901234567890.10]", "[\n  123456789012345678901234567890.10\n]\n"),
    "text stays text": ('{"name":"Zo\u00eb \\u20ac"}'.encode(), '{\n  "name": "Zo\u00eb \\u20ac"\n}\n'),
    "an empty answer stays empty": (b"", ""),
    "other content is unchanged": (b"<html>502</html>", "<html>502</html>"),
    "JSON that ends early is unchanged": (b'{"amount":10.00', '{"amount":10.00'),
    "deep JSON is unchanged": (b"[" * 100_000, "[" * 100_000),
    "bytes that are not UTF-8 are replaced": (b'"\xff"', '"\ufffd"'),
}


@pytest.mark.parametrize(("content", "shown"), CASES.values(), ids=CASES)
def test_json_is_indented(content: bytes, shown: str) -> None:
    """The command indents JSON and changes no value; it prints any other content as it is, with exit code 0."""
    command = [sys.executable, "-m", "cardwright", "format"]
    result = subprocess.run(command, input=content, capture_output=True, check=False)
    assert (result.returncode, result.stdout.decode(), result.stderr) == (0, shown, b"")
