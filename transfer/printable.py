"""What others chose (names of files, words of a peer), for a terminal: shown, and not obeyed.

Refuses to do: JSON, which has escapes of its own.
"""


def printable(text: str) -> str:
    """Return one line in which whatever is not printable is an escape, such as \\x1b."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
