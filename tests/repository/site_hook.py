"""Hook of the site: prepares a Markdown page for the renderer of MkDocs."""

import re

INFO_WORDS = re.compile(r"^(?P<fence>```+\w+) .*$", re.MULTILINE)
"""A fence with words after its language. Code hosts accept such a line as a fence, the renderer of MkDocs does not."""


def on_page_markdown(markdown: str, **_: object) -> str:
    """Return the page without the words after the languages of its blocks."""
    return INFO_WORDS.sub(r"\g<fence>", markdown)
