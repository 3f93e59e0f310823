"""Which names users may have, however they are made."""

import unicodedata

MAX_LENGTH = 64
_MARKS = frozenset("._@+-")


def normalise(name: str) -> str:
    """The one way to write a name: composed, without space around it, in lower case."""
    return unicodedata.normalize("NFKC", name).strip().lower()


def why_refused(name: str) -> str | None:
    """Why nobody can have this (normalised) name, as a sentence; None if one can."""
    if not name:
        return "Choose a name."
    if len(name) > MAX_LENGTH:
        return f"Use at most {MAX_LENGTH} characters."
    if not all(letter.isalnum() or letter in _MARKS for letter in name):
        return "Use letters, digits and . _ @ + - only."
    if not (name[0].isalnum() and name[-1].isalnum()):
        return "Begin and end with a letter or a digit."
    if "--" in name:
        return "Two dashes in a row separate user and workspace in SSH logins: use one."
    return None
