"""Documentation blocks: reads fenced blocks of Markdown, runs them in order, and compares their output with the page."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

SHELL = frozenset({"bash", "sh", "console"})
RUNNABLE = SHELL | {"python"}
BLOCK_SECONDS = 120

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+)(?P<info>.*)$")
# A line such as "Output:" may stand between a block and its output.
LEAD_IN = re.compile(r"^\s*\S.{0,120}:\s*$")

# The line before a block that creates or changes a file.
TARGET = re.compile(r"^(?:Create|Change) `(?P<path>[^`]+)`[^`]*:$")

# Values that differ between runs are replaced on both sides before the comparison.
CHANGING = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.I), "<uuid>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?"), "<time>"),
)
# Fields with random codes. Only their shape is compared, unless the block has a seed.
DRAWN = frozenset(("approval_code", "barcode", "cvv_number", "expiration", "last_four", "network_reference_id", "pan", "stan"))

SEEDED = re.compile(r"--seed \d+")

STRING = r'"(?:[^"\\]|\\.)*"'
COMMAND = re.compile(r"(?:^|[;&|(]|\$ )\s*(?:\w+=\S*\s+)*(?:\S*/)?(make|cardwright)\s+([a-z][a-z0-9-]*)", re.M)
CODE_SPAN = re.compile(r"`((?:make|cardwright) [^`\n]+)`")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block. `shown` is the output that the page shows for it, and `kind` is json or text.

    `target` is the path of the file that the block creates or changes, if the line before it names one.
    """

    file: Path
    line: int
    language: str
    words: tuple[str, ...]
    text: str
    shown: str | None = None
    kind: str = "text"
    target: str | None = None

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.language in RUNNABLE and self.target is None and self.words[:1] != ("no-run",)

    @property
    def reason(self) -> str:
        """The reason that the block is not run, or an empty text if the page has none."""
        return " ".join(self.words[1:])


def fenced(file: Path) -> Iterator[tuple[Block, list[str]]]:
    """Yield each block with the lines between the previous block and this one."""
    between: list[str] = []
    lines = iter(enumerate(file.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        opening = FENCE.match(line)
        if opening is None:
            between.append(line)
            continue
        body: list[str] = []
        for _, inner in lines:
            if inner.strip() == opening["fence"]:
                break
            body.append(inner.removeprefix(opening["indent"]))
        else:
            raise ValueError(f"{file}:{number}: this block is never closed")
        language, *words = opening["info"].split() or [""]
        yield Block(file=file, line=number, language=language, words=tuple(words), text="\n".join(body) + "\n"), between
        between = []


def blocks_of(file: Path) -> list[Block]:
    """Return all blocks of a page. A json or text block right after a block that runs becomes its `shown` output."""
    blocks: list[Block] = []
    pairable = False
    for block, between in fenced(file):
        text_lines = [line for line in between if line.strip()]
        close = not text_lines or (len(text_lines) == 1 and LEAD_IN.match(text_lines[0]) is not None)
        if pairable and close and block.language in ("json", "text"):
            blocks[-1] = replace(blocks[-1], shown=block.text, kind=block.language)
            pairable = False
            continue
        target = TARGET.match(text_lines[-1]) if text_lines else None
        block = replace(block, target=target["path"]) if target else block
        block = _session(block) if block.language == "console" else block
        blocks.append(block)
        pairable = block.runs and block.shown is None
    return blocks


def _session(block: Block) -> Block:
    """Return a console block as commands and output. Lines with `$ ` or `> ` are commands, all other lines are output."""
    typed = [line[2:] for line in block.text.splitlines() if line.startswith(("$ ", "> "))]
    printed = [line for line in block.text.splitlines() if not line.startswith(("$ ", "> "))]
    shown = "\n".join(printed) if any(line.strip() for line in printed) else None
    return replace(block, text="\n".join(typed) + "\n", shown=shown)


def write_target(block: Block, folder: Path) -> None:
    """Create or change the file that the block names. Raises AssertionError if it does not fit.

    A diff has no line numbers: its lines must be in the file once, and `@@` separates several places.
    """
    assert block.target is not None
    file = folder / block.target
    if block.language != "diff":
        assert not file.exists(), f"{block.place}: {block.target} exists already"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text, encoding="utf-8")
        return
    text = file.read_text(encoding="utf-8")
    for hunk in block.text.split("@@\n"):
        before, after = ("".join(f"{line[1:]}\n" for line in hunk.splitlines() if not line.startswith(sign)) for sign in "+-")
        places = [match.start() for match in re.finditer(rf"^(?={re.escape(before)})", text, re.MULTILINE)]
        assert len(places) == 1, f"{block.place}: {block.target} has these lines {len(places)} times, not once:\n{before}"
        text = text[: places[0]] + after + text[places[0] + len(before) :]
    file.write_text(text, encoding="utf-8")


def commands_of(file: Path) -> set[tuple[str, str]]:
    """Return every `make X` and `cardwright X` of a page, in blocks and in code spans."""
    shell = "\n".join(block.text for block in blocks_of(file) if block.language in SHELL)
    prose = "\n".join(line for _, between in fenced(file) for line in between)
    return set(COMMAND.findall(shell)) | set(COMMAND.findall("\n".join(CODE_SPAN.findall(prose))))


class Reader:
    """A runner of a page's blocks in order, with one bash and one Python namespace for the whole page."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._folder = folder
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._bash = subprocess.Popen(
            ["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, env=env, text=True, start_new_session=True
        )
        self._type("set -eu -o pipefail")

    def run(self, block: Block) -> str:
        """Run a block; return its stdout. Raises AssertionError if it fails or takes more than BLOCK_SECONDS."""
        return self._python(block) if block.language == "python" else self._shell(block)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _type(self, line: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(f"{line}\n")
        self._bash.stdin.flush()

    def _shell(self, block: Block) -> str:
        script, out, err = (self._folder / f".block-{block.line}.{ending}" for ending in ("sh", "out", "err"))
        script.write_text(block.text)
        # The block is sourced, so that variables stay. It is in a file, so that a command cannot read the next blocks from stdin.
        self._type(f"source '{script}' </dev/null >'{out}' 2>'{err}'\necho done")
        assert self._bash.stdout is not None
        alarm = threading.Timer(BLOCK_SECONDS, os.killpg, (self._bash.pid, signal.SIGKILL))
        alarm.start()
        done = self._bash.stdout.readline() == "done\n"
        alarm.cancel()
        printed = out.read_text() if out.exists() else ""
        errors = err.read_text() if err.exists() else ""
        assert done, f"{block.place}: failed, or took {BLOCK_SECONDS} s\n{block.text}\nstdout: {printed}\nstderr: {errors}"
        return printed

    def _python(self, block: Block) -> str:
        printed = io.StringIO()
        # The empty lines before it give the traceback the line numbers of the page.
        code = compile("\n" * block.line + block.text, str(block.file), "exec")
        with contextlib.redirect_stdout(printed):
            try:
                exec(code, self._names)
            except Exception as error:
                raise AssertionError(f"{block.place}: {type(error).__name__}: {error}\nstdout: {printed.getvalue()}") from error
        return printed.getvalue()


def difference(block: Block, printed: str) -> str | None:
    """Return the difference between the output and the page, or None. `…` and `...` match any text."""
    if block.shown is None:
        return None
    if block.kind == "json":
        drawn = frozenset[str]() if SEEDED.search(block.text) else DRAWN
        return _json_difference("$", parse_shown(block.shown), _parse_printed(printed), drawn)
    return None if _fits(_trimmed(block.shown), _trimmed(printed)) else f"shown:\n{block.shown}\nprinted:\n{printed}"


def parse_shown(text: str) -> Any:
    """Parse JSON with `…` outside strings: as a value, for more fields of an object, or as the last entry of a list."""
    # Strings are matched first and kept, so only an ellipsis outside them becomes a string.
    text = re.sub(rf"({STRING})|\.\.\.|…", lambda m: m[1] or '"…"', text)
    # In an object, such a string without a key is removed. After a colon it is a value and stays.
    alone = rf'(:\s*)?(?:,?\s*"…"(?=\s*}})|"…"\s*,\s*(?={STRING}\s*:))'
    return json.loads(re.sub(alone, lambda m: m[0] if m[1] else "", text))


def _parse_printed(text: str) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(text)
    # A block may print other lines first. Then its last line is the answer.
    with contextlib.suppress(ValueError, IndexError):
        return json.loads(text.strip().splitlines()[-1])
    return text


def _json_difference(path: str, shown: Any, real: Any, drawn: Set[str]) -> str | None:
    if shown in ("…", "..."):
        return None
    match shown, real:
        case dict(), dict():
            if missing := [key for key in shown if key not in real]:
                return f"{path}: not in the answer: {', '.join(missing)}"
            pairs = [
                (f"{path}.{key}", *((_shape(shown[key]), _shape(real[key])) if key in drawn else (shown[key], real[key])))
                for key in shown
            ]
        case list(), list():
            is_open = bool(shown) and shown[-1] == "…"
            wanted = shown[:-1] if is_open else shown
            if len(real) < len(wanted) or (len(real) > len(wanted) and not is_open):
                return f"{path}: {len(wanted)} entries are shown, {len(real)} came"
            pairs = [(f"{path}[{index}]", *pair) for index, pair in enumerate(zip(wanted, real, strict=False))]
        case str(), str():
            return None if _fits(shown, real) else f"{path}: shown {shown!r}, came {real!r}"
        case _:
            # In Python True equals 1; on the wire it does not.
            same = shown == real and isinstance(shown, bool) == isinstance(real, bool)
            return None if same else f"{path}: shown {shown!r}, came {real!r}"
    return next((text for pair in pairs if (text := _json_difference(*pair, drawn))), None)


def _shape(value: Any) -> Any:
    return re.sub(r"\d", "0", value) if isinstance(value, str) else value


def _fits(shown: str, real: str) -> bool:
    # Unchanged texts first: "2026-…Z" matches a time only before times are replaced.
    return _matches(shown, real) or _matches(_constant(shown), _constant(real))


def _matches(shown: str, real: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in re.split(r"\.\.\.|…", shown))
    return re.fullmatch(pattern, real, re.DOTALL) is not None


def _constant(text: str) -> str:
    for pattern, name in CHANGING:
        text = pattern.sub(name, text)
    return text


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
