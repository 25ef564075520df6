"""`memrun doctor --setup USER`: the commands that let a user make groups, printed, or done; and the way back.

What is printed is what is done: a script for sh, run as it stands. So an administrator can read it first, and pipe it to
`sudo sh` instead of trusting --apply.
"""

from __future__ import annotations

import os
import sys

from memrun import errors
from memrun.cgroup import prepared
from memrun.errors import MemrunError, UsageError
from memrun.options import nearest

WORDS = ("--setup", "--undo", "--apply")


def main(words: list[str]) -> int:
    """--setup USER [--undo] [--apply]."""
    user, undo, apply = parse(words)
    lines = prepared.script(user, undo=undo)
    if not apply:
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        return errors.SUCCESS
    if os.geteuid() != 0:
        flags = " --undo" if undo else ""
        raise UsageError("only root may do that", f"'memrun doctor --setup {user}{flags}' prints it for 'sudo sh'")
    return perform(lines)


def parse(words: list[str]) -> tuple[str, bool, bool]:
    """(user, undo, apply); UsageError."""
    user = ""
    rest = iter(words)
    for word in rest:
        if word == "--setup":
            user = next(rest, "")
        elif word.startswith("--setup="):
            user = word.partition("=")[2]
        elif word not in WORDS:
            raise UsageError(f"doctor --setup knows no {word!r}", nearest(word, WORDS) or "See memrun doctor --help")
    if not user or user.startswith("-"):
        raise UsageError("--setup needs a user", "memrun doctor --setup USER [--undo] [--apply]")
    return user, "--undo" in words, "--apply" in words


def perform(lines: list[str]) -> int:
    """Run the script, each command shown before it is run; the first that fails ends it."""
    pid = os.posix_spawn("/bin/sh", ["sh", "-euxc", "\n".join(lines)], dict(os.environ))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0:
        raise MemrunError(f"that failed with status {status}", "The last command above is the one")
    return errors.SUCCESS
