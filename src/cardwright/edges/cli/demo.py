"""`cardwright demo`: a guided demo on a temporary instance, with checks of the results."""

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from cardwright.edges.cli.demo_scenario import Promise, Step, Story, value_at
from cardwright.edges.cli.explain import show_decision
from cardwright.edges.cli.instance import fresh_instance
from cardwright.edges.cli.output import Failure, Hint, console, show_json

if TYPE_CHECKING:
    from rich.console import Console

LINE_MAX = 110
"""Maximum length of a request in the output, in characters."""


def demo(*, as_json: bool) -> None:
    """Run the demo. Raises Failure if a request fails or a result is not as expected."""
    started = time.monotonic()
    with fresh_instance() as fresh:
        story = Story(fresh.client)
        if as_json:
            steps = list(story.play())
        else:
            _show_story(story)
    seconds = round(time.monotonic() - started, 1)
    broken = [promise.says for promise in story.promises if not promise.is_kept]
    if as_json:
        show_json(
            {
                "is_kept": not broken,
                "seconds": seconds,
                "promises": [asdict(promise) for promise in story.promises],
                "steps": [asdict(step) for step in steps],
            }
        )
    else:
        print(f"\n{len(story.promises) - len(broken)} of {len(story.promises)} results as expected, in {seconds} s.")
    if broken:
        raise Failure(
            f"results not as expected: {'; '.join(broken)}", Hint("cardwright demo --json", "run it again for a report")
        )


def _show_story(story: Story) -> None:
    page, shown_count = console(), 0
    page.print(f"Temporary instance: {story.client.root_url}/v3. The demo removes it at the end.", style="dim")
    for number, step in enumerate(story.play(), 1):
        _show_step(page, number, step)
        for promise in story.promises[shown_count:]:
            _show_promise(page, promise)
        shown_count = len(story.promises)


def _show_step(page: "Console", number: int, step: Step) -> None:
    page.print(f"\n{number:>2}  {step.title}", style="bold")
    page.print(f"    {step.verb} {step.path}", style="cyan")
    if step.body is not None:
        text = json.dumps(step.body, ensure_ascii=False)
        shown = text if len(text) <= LINE_MAX else f"{text[:LINE_MAX]} …"
        page.print(f"    {shown}", style="dim", no_wrap=True, overflow="ellipsis")
    if step.path.startswith("/sandbox/decisions/"):
        print()
        show_decision(step.answer)
        return
    fields = [(path, value) for path in step.shown if (value := value_at(step.answer, path)) is not None]
    width = max(len(path) for path, _ in fields)
    for path, value in fields:
        page.print(f"    {path:<{width}}  {_plain(value)}")


def _plain(value: object) -> str:
    """Return a value as in JSON, without quotation marks; an amount has two decimals."""
    match value:
        case str():
            return value
        case float():
            return f"{value:.2f}"
        case _:
            return json.dumps(value)


def _show_promise(page: "Console", promise: Promise) -> None:
    mark, style = ("ok", "green") if promise.is_kept else ("BROKEN", "bold red")
    page.print(f"    {mark:<2}  {promise.says}", style=style)
