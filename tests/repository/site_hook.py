"""Hook of the site: prepares a page of Markdown for the renderer that MkDocs uses."""

import re

INFO_WORDS = re.compile(r"^(?P<fence>```+\w+) .*$", re.MULTILINE)
"""A fence whose language has words behind it. The renderer of MkDocs takes no such line for a fence; code hosts do."""


def on_page_markdown(markdown: str, **_: object) -> str:
    """Return the page without the words behind the languages of its blocks."""
    return INFO_WORDS.sub(r"\g<fence>", markdown)
