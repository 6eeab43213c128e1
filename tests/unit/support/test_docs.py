"""Runner of the documentation: it finds failing blocks and output that differs from the page."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.docs import Block, Reader, blocks_of, commands_of, difference, parse_shown, write_target

PAGE = """\
A page.

```bash
GREETING="good morning"
cat
```

```bash
echo "{\\"greeting\\": \\"$GREETING\\", \\"more\\": [1, 2]}"
```

It answers:

```json
{ "greeting": "good …", … }
```

   ```python
   seven = 7
   ```

```python
print(seven * 6)
```
```text
42
```

```bash no-run it would take an hour
make stress SEED=1 && cardwright verify
```

```console
$ echo one; \\
> echo two
one
two
```

Then `make demo` and `cardwright serve --port 1`, but make sure of it.

```json
{"stands": "alone"}
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    file = tmp_path / "page.md"
    file.write_text(PAGE)
    return file


def block_showing(shown: str, kind: str = "text") -> Block:
    return Block(file=Path("page.md"), line=1, language="bash", words=(), text="", shown=shown, kind=kind)


def test_page_is_read_as_blocks(page: Path) -> None:
    """Each block has its language, its reason and the output that the page shows after it."""
    blocks = blocks_of(page)
    assert [block.language for block in blocks] == ["bash", "bash", "python", "python", "bash", "console", "json"]
    assert [block.kind for block in blocks if block.shown] == ["json", "text", "text"]
    assert [block.reason for block in blocks if not block.runs] == ["it would take an hour", ""]
    assert blocks[2].text == "seven = 7\n"
    assert blocks[2].line == PAGE.splitlines().index("   ```python") + 1


def test_commands_are_found_in_blocks_and_in_prose(page: Path) -> None:
    """Commands are found in blocks and in code spans, and other text is not a command."""
    assert commands_of(page) == {("make", "stress"), ("cardwright", "verify"), ("make", "demo"), ("cardwright", "serve")}


def test_page_runs(page: Path, tmp_path: Path) -> None:
    """Variables stay from block to block, in bash and in Python, and a command that reads stdin does not consume the blocks."""
    with Reader(tmp_path, dict(os.environ)) as reader:
        assert [difference(block, reader.run(block)) for block in blocks_of(page) if block.runs] == [None] * 5


@pytest.mark.parametrize(
    ("language", "text", "message"),
    [
        ("bash", "echo before; false; echo after", "stdout: before"),
        ("bash", "false | true", "failed"),
        ("bash", "echo $NOBODY_SET_THIS", "unbound variable"),
        ("python", "print('before'); 1 / 0", "ZeroDivisionError"),
    ],
)
def test_block_that_fails_is_told_with_its_place(language: str, text: str, message: str, tmp_path: Path) -> None:
    """A failing command in any place of a block raises AssertionError with the page, the line and the output."""
    block = Block(file=Path("page.md"), line=12, language=language, words=(), text=text)
    with Reader(tmp_path, dict(os.environ)) as reader, pytest.raises(AssertionError) as failure:
        reader.run(block)
    assert "page.md:12" in str(failure.value)
    assert message in str(failure.value)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ('{"a": 1}', '{"a": 1, "b": 2}'),
        ('{"a": 1.0}', '{"a": 1}'),
        ('{"a": "…"}', '{"a": {"deep": true}}'),
        ('{"a": "…", "b": 2}', '{"a": 1, "b": 2}'),
        ('{"a": "2026-…Z"}', '{"a": "2026-01-02T03:04:05Z"}'),
        ('{"a": 1, …}', '{"a": 1, "b": 2}'),
        ('{\n "a": 1,\n ...\n}', '{"a": 1, "b": 2}'),
        ('{"a": 1, …, "c": 3}', '{"a": 1, "b": 2, "c": 3}'),
        ("{…}", '{"a": 1}'),
        ('{"a": …}', '{"a": [1]}'),
        ("[1, …]", "[1, 2, 3]"),
        ('{"at": "2020-01-01T00:00:00Z"}', '{"at": "2026-10-11T12:13:14.567Z"}'),
        ('{"t": "0a0b0c0d-0000-4000-8000-000000000000"}', '{"t": "ffffffff-ffff-4fff-8fff-ffffffffffff"}'),
        ('{"approval_code": "123456"}', '{"approval_code": "987654"}'),
        ('{"a": 1}', 'card made\n{"a": 1}\n'),
    ],
)
def test_json_that_keeps_its_promise(shown: str, printed: str) -> None:
    """The output may have more fields than the page shows, and values that change with every run may differ."""
    assert difference(block_showing(shown, "json"), printed) is None


@pytest.mark.parametrize(
    ("shown", "printed", "message"),
    [
        ('{"a": 1}', '{"a": 2}', "$.a"),
        ('{"a": {"b": [1, 2]}}', '{"a": {"b": [1, 3]}}', "$.a.b[1]"),
        ('{"a": 1}', '{"b": 1}', "not in the answer: a"),
        ('{"a": true}', '{"a": 1}', "$.a"),
        ('{"a": "1"}', '{"a": 1}', "$.a"),
        ('{"a": null}', "{}", "not in the answer: a"),
        ("[1]", "[1, 2]", "1 entries are shown, 2 came"),
        ("[1, 2, …]", "[1]", "2 entries are shown, 1 came"),
        ('{"approval_code": "123456"}', '{"approval_code": "12345"}', "$.approval_code"),
        ('{"a": 1}', "Internal Server Error", "Internal Server Error"),
        ('{"a": "good …"}', '{"a": "bad"}', "$.a"),
    ],
)
def test_json_that_breaks_its_promise(shown: str, printed: str, message: str) -> None:
    """A difference is found at any depth and reported with its path."""
    assert message in (difference(block_showing(shown, "json"), printed) or "")


def test_codes_under_a_seed_are_compared() -> None:
    """A block with a seed shows the real codes, because the seed makes them repeatable."""
    block = replace(block_showing('{"last_four": "5720"}', "json"), text="cardwright exec --seed 7 -- true\n")
    assert difference(block, '{"last_four": "5720"}') is None
    assert "$.last_four" in (difference(block, '{"last_four": "5721"}') or "")


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("one\ntwo", "one  \ntwo\n", True),
        ("one\n…\nfour", "one\ntwo\nthree\nfour\n", True),
        ("took ... s", "took 12.3 s", True),
        ("a.c", "abc", False),
        ("one", "one\ntwo", False),
    ],
)
def test_text(shown: str, printed: str, same: bool) -> None:
    """Text is compared line by line, except for blanks at line ends and ellipses."""
    assert (difference(block_showing(shown), printed) is None) is same


def test_ellipsis_in_a_string_is_the_strings_own() -> None:
    """Only an ellipsis outside strings is rewritten, and escaped quotes do not end a string."""
    assert parse_shown('{"a": "x \\" … } ", "b": ["...", …]}') == {"a": 'x " … } ', "b": ["...", "…"]}


def test_unclosed_block_is_an_error(tmp_path: Path) -> None:
    """A fence without an end raises ValueError with page and line."""
    file = tmp_path / "page.md"
    file.write_text("```bash\necho\n")
    with pytest.raises(ValueError, match=r"page\.md:1"):
        blocks_of(file)


FILES = """\
Create `src/new.py`:

```python
seven = 7
```

Change `src/old.py`, in two places:

```diff
 first = 1
+second = 2
@@
-third = 33
+third = 3

 end = True
```

```python
print("no file")
```
"""


@pytest.fixture
def file_blocks(tmp_path: Path) -> list[Block]:
    """Return blocks that create one file and change another one in the same folder."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "old.py").write_text("first = 1\nthird = 33\n\nend = True\n")
    (tmp_path / "page.md").write_text(FILES)
    return blocks_of(tmp_path / "page.md")


def test_blocks_write_files(file_blocks: list[Block], tmp_path: Path) -> None:
    """The line before a block names its file. Such a block is not run."""
    assert [(block.target, block.runs) for block in file_blocks] == [
        ("src/new.py", False),
        ("src/old.py", False),
        (None, True),
    ]
    for block in file_blocks[:2]:
        write_target(block, tmp_path)
    assert (tmp_path / "src" / "new.py").read_text() == "seven = 7\n"
    assert (tmp_path / "src" / "old.py").read_text() == "first = 1\nsecond = 2\nthird = 3\n\nend = True\n"


@pytest.mark.parametrize(("text", "times"), [("", 0), ("first = 1\n" * 2, 2), ("the first = 1\n", 0)])
def test_diff_that_does_not_fit_is_refused(file_blocks: list[Block], tmp_path: Path, text: str, times: int) -> None:
    """A diff is refused if its lines are not in the file exactly once as whole lines. The message has the block and the lines."""
    (tmp_path / "src" / "old.py").write_text(text)
    with pytest.raises(AssertionError, match=rf"page\.md:9: src/old\.py has these lines {times} times, not once:\nfirst = 1"):
        write_target(file_blocks[1], tmp_path)
    assert (tmp_path / "src" / "old.py").read_text() == text


def test_file_that_exists_is_not_created(file_blocks: list[Block], tmp_path: Path) -> None:
    """A block that creates a file does not overwrite an existing one."""
    write_target(file_blocks[0], tmp_path)
    with pytest.raises(AssertionError, match=r"src/new\.py exists already"):
        write_target(file_blocks[0], tmp_path)
