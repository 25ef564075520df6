"""What this machine allows, what is missing, and the command that mends it: `memrun doctor`.

`gather` finds out, findings.py words it, and nothing is believed that can be tried: the groups, the limit and the pause are
those of a real run, made by the same code in the same place and taken down at once. A line that cannot be known because
there was no group to ask says so; guessing from the kernel's version is what other tools get wrong.
"""

from __future__ import annotations

import os
import sys

from memrun import errors, hand
from memrun.cgroup import Wish, survey
from memrun.errors import MemrunError, UsageError
from memrun.findings import CONCLUSION, Line, examine, processes
from memrun.options import nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from memrun.cgroup.remains import Leftover
    from memrun.cgroup.survey import Facts

UNWELL = 1  # exit status: a run under a limit would not work here, or something resisted the sweep
PROBE = 64 << 20  # bytes: the limit that is tried
WORDS = ("--json", "--sweep", "--setup", "--help", "-h")
USAGE = """\
memrun doctor            what this machine allows, and the command that mends what it does not
memrun doctor --json     the same as a list of {"what", "ok", "found", "remedy"}; ok is true, false or null (does not apply)
memrun doctor --setup USER [--undo] [--apply]   print (--apply: do) what root does to let USER set limits, or to take it back
memrun doctor --sweep    end and remove what a memrun that is no more has left below our own group

exit status: 0 if memrun --limit works here (--sweep: if nothing is left), 1 if not.
"""


def main(words: list[str]) -> int:
    """memrun doctor [--json] [--sweep]."""
    for word in words:
        if word not in WORDS:
            raise UsageError(f"doctor knows no {word!r}", nearest(word, WORDS) or "See memrun doctor --help")
    if "--help" in words or "-h" in words:
        sys.stdout.write(USAGE)
        return errors.SUCCESS
    sweeping = "--sweep" in words
    lines = sweep() if sweeping else examine(gather())
    sys.stdout.write(_as_json(lines) if "--json" in words else _as_text(lines))
    sys.stdout.flush()  # a reader that left is an error while somebody is there to hear of it
    return errors.SUCCESS if all(line.ok for line in (lines if sweeping else lines[-1:])) else UNWELL


def _as_json(lines: Sequence[Line]) -> str:
    import json

    found = [{"what": line.what, "ok": line.ok, "found": line.found, "remedy": line.remedy} for line in lines]
    return json.dumps(found, indent=1) + "\n"


def _as_text(lines: Sequence[Line]) -> str:
    """Aligned, with each remedy once: one cause is often behind several lines."""
    marks = {True: "ok", False: "no", None: "--"}
    wide = max(len(line.what) for line in lines)
    out = []
    told: dict[str, str] = {"": ""}  # remedy -> the line that told it
    for line in lines:
        head = "" if line.what == CONCLUSION else f"{marks[line.ok]}  {line.what:<{wide}}  "
        out.append(head + line.found)
        seen = told.setdefault(line.remedy, line.what)
        remedy = line.remedy if seen in {"", line.what} else f"(see {seen})"
        out += [f"{'':6}{part}" for part in remedy.splitlines()]
    return "\n".join(out) + "\n"


def gather() -> Facts:
    """Read what can be read, then make a group as a run does and see what it offers."""
    facts = survey.look()
    from memrun.job import kernel_log

    log = kernel_log()
    facts.log = log >= 0
    if log >= 0:
        os.close(log)
    try:
        _probe(facts)
    except MemrunError as e:
        facts.refusal = (e.what, e.remedy)
    except (OSError, ValueError) as e:  # ValueError: a control file that is no longer what it was
        facts.refusal = (str(e), "")
    return facts


def _probe(facts: Facts) -> None:
    from memrun.job import Site  # what a run does, from the dead man's hand onwards

    site = Site()
    try:
        facts.enclosing, facts.way = site.host.enclosing(), site.host.way
        group = site.host.create("doctor.1", Wish(PROBE))
        try:
            facts.limit = group.limit
            try:
                facts.pauses = group.freeze()
                group.thaw()
            except MemrunError:
                facts.pauses = False
            facts.offers = survey.abilities(site.host.version, [f"{place}/doctor.1" for place in site.host.places()])
            facts.refusal = None
        finally:
            group.remove()
            group.close()
    finally:
        site.close()


def sweep() -> list[Line]:
    """Hand what is left over to a dead man's hand, which does for it what it would have done in time."""
    left = survey.look().left
    if not left:
        return [Line("left over", "nothing")]
    hand.spread(tuple(place for found in left for place in found.places)).clench()
    return [_swept(found) for found in left]


def _swept(found: Leftover) -> Line:
    resisting = [place for place in found.places if os.path.isdir(place)]
    if resisting:
        return Line(found.name, f"could not be removed: {', '.join(resisting)}", "sudo memrun doctor --sweep", ok=False)
    ended = f", {processes(len(found.pids))} in it ended" if found.pids else ""
    return Line(found.name, f"removed{ended}")
