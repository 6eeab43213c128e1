"""Terminal picture: ``docs/images/explain.svg``, the output of ``cardwright explain`` for a decline. `make picture` draws it."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.repository.folders import ROOT
from tests.support.issuing import client_of, made_by, new_program, read_of
from tests.support.server import RunningServer

PICTURE = ROOT / "docs" / "images" / "explain.svg"

COLUMNS, ROWS = 124, 60
"""Size of the terminal in characters."""

FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<!-- drawn by `make picture` -->
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: {char_height}px;
  line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""Rich's SVG format without its fonts, which a browser would load from another host."""


def declined_purchase(server: RunningServer) -> tuple[dict[str, str], str]:
    """Return the credentials of a new program and the token of a purchase there that a velocity control declined."""
    program = new_program(server)
    with client_of(server, program) as client:
        read_of(client.post("/sandbox/clock", {"freeze": True}))
        read_of(client.post("/sandbox/clock", {"set": "2031-05-07T09:30:00Z"}))
        jit = {"program_funding_source": {"enabled": True, "funding_source_token": "harbor_funding"}}
        config = {"card_life_cycle": {"activate_upon_issue": True}, "jit_funding": jit}
        product = {"token": "harbor_product", "name": "Harbor Virtual Card", "start_date": "2026-01-01", "config": config}
        control = {
            "token": "coffee_budget",
            "name": "Coffee",
            "velocity_window": "DAY",
            "amount_limit": 25,
            "currency_code": "USD",
        }
        for path, body in (
            ("fundingsources/program", {"token": "harbor_funding", "name": "Harbor Program Funding"}),
            ("cardproducts", product),
            ("users", {"token": "mara"}),
            ("cards", {"token": "maras_card", "user_token": "mara", "card_product_token": "harbor_product"}),
            ("velocitycontrols", control),
        ):
            made_by(client.post(f"/{path}", body))
        for amount in (20, 12):
            purchase = {"card_token": "maras_card", "amount": amount, "mid": "corner_cafe"}
            answer = made_by(client.post("/simulate/authorization", purchase))
    tokens = {"CARDWRIGHT_APPLICATION_TOKEN": program["application_token"], "CARDWRIGHT_ACCESS_TOKEN": program["access_token"]}
    return {**tokens, "CARDWRIGHT_BASE_URL": server.base_url}, str(answer["transaction"]["token"])


def printed_on_a_terminal(command: list[str], env: Mapping[str, str]) -> str:
    """Return the output of a command on a terminal, with escape sequences."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env={**os.environ, **env}) as process:
        os.close(theirs)
        chunks = []
        try:
            while chunk := os.read(ours, 65536):
                chunks.append(chunk)
        except OSError:
            # After the last program has closed the terminal, a read fails on Linux.
            pass
        os.close(ours)
    assert process.returncode == 0
    return b"".join(chunks).decode().replace("\r\n", "\n")


def drawn() -> str:
    """Return the picture. The server has a seed, so the picture changes only with the output."""
    with tempfile.TemporaryDirectory() as folder, RunningServer(db=str(Path(folder, "cardwright.db")), seed=7) as server:
        env, token = declined_purchase(server)
        command = [sys.executable, "-m", "cardwright", "explain", token]
        text = printed_on_a_terminal(
            command, {**env, "TERM": "xterm-256color", "COLORTERM": "", "NO_COLOR": "", "COLUMNS": str(COLUMNS)}
        )
    page = Console(record=True, file=StringIO(), width=COLUMNS)
    page.print(Text(f"$ cardwright explain {token}", style="bold"))
    page.print(Text.from_ansi(text))
    svg = page.export_svg(title="cardwright explain", theme=MONOKAI, code_format=FORMAT, unique_id="explain")
    return "".join(f"{line.rstrip()}\n" for line in svg.splitlines())


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(drawn(), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
