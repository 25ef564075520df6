"""`{sample}` in a command, a path or an environment value: replaced where the name is known, left alone where it is not.

Commands are full of braces that are none of ours: awk's `{print}`, the shell's `${HOME}`, `{a,b}` and `{}`. So only a known name
between braces is replaced, nothing after a `$` is, and `{{sample}}` is the literal `{sample}`.

A text may be filled twice: by the job file with what it knows, and at each launch with {attempt} and {limit}. What looks like one of
these in a value of the first filling (a file may be called `x{attempt}`) is not: `later` protects it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

LATER = ("attempt", "limit")  # known only when a job is started
WORD = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|(?<!\$)\{([A-Za-z_]\w*)\}", re.ASCII)
ALIKE = 0.8  # of difflib's ratio: `smaple` is meant to be `sample`, `print` is nothing of ours


def fill(
    text: str, variables: Mapping[str, str], *, quote: Callable[[str], str] | None = None, later: Collection[str] = ()
) -> str:
    """The text with the variables in it. `quote`: what each value goes through first (shlex.quote for a shell's text)."""

    def value(found: re.Match[str]) -> str:
        literal, word = found.groups()
        if literal in variables:
            return f"{{{literal}}}"
        if word not in variables:
            return found.group()
        given = quote(variables[word]) if quote else variables[word]
        return _protected(given, later) if later else given

    return WORD.sub(value, text) if "{" in text else text


def _protected(value: str, later: Collection[str]) -> str:
    """So that a later filling finds these words literal."""
    for word in later:
        value = value.replace(f"{{{word}}}", f"{{{{{word}}}}}")
    return value


def words(text: str) -> list[str]:
    """The names in braces, known or not, in their order."""
    return [word for _, word in WORD.findall(text) if word]


def mistyped(texts: Iterable[str], known: Collection[str]) -> list[tuple[str, str]]:
    """(as written, as probably meant) for each name in braces that is nearly a known one."""
    import difflib  # only for names that are not known

    found = {}
    for word in (word for text in texts for word in words(text)):
        close = [] if word in known or word in found else difflib.get_close_matches(word, list(known), 1, ALIKE)
        if close:
            found[word] = close[0]
    return list(found.items())
