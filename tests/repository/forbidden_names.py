"""Forbidden names: words that are not terms of card issuing or of programming. The glossary has the terms."""

PLAIN_WORDS = frozenset({"one", "more", "at", "what", "own", "found", "said", "told", "seen", "asked"})
"""Pronouns and participles. No variable, parameter, function, class or module has such a name, with or without underscores."""

COINED_WORDS = frozenset(
    {
        "heart", "lane", "lanes", "face", "faces", "shelf", "shelves", "few", "melee", "storm", "storms", "town", "volley",
        "shoppers", "naughty", "fighter", "deed", "deeds", "alike", "floor", "floors", "door", "doors",
    }
)  # fmt: skip
"""Coined words. No part of a name, of a file or of a target of make is one of them."""

COINED_TEXT = COINED_WORDS - {"few", "face", "faces", "alike", "floor", "floors", "door", "doors"}
"""Coined words that no text has either. The others are ordinary English words too."""
