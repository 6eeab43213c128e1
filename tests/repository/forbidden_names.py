"""Forbidden names: words that a reader of the code would have to learn first. The glossary has the words of the field."""

PLAIN_WORDS = frozenset({"one", "more", "at", "what", "own", "found", "said", "told", "seen", "asked"})
"""Pronouns and participles: no variable, parameter, function, class or module is called so, with underscores or without."""

COINED_WORDS = frozenset(
    {
        "heart", "lane", "lanes", "face", "faces", "shelf", "shelves", "few", "melee", "storm", "storms", "town", "volley",
        "shoppers", "naughty", "fighter", "deed", "deeds", "alike", "floor", "floors", "door", "doors",
    }
)  # fmt: skip
"""Words of an earlier design: no part of a name, of a file or of a target of make."""

COINED_TEXT = COINED_WORDS - {"few", "face", "faces", "alike", "floor", "floors", "door", "doors"}
"""Those of them that no text may have either; the others are ordinary English too."""
