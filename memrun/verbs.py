"""The commands that ask a running memrun, or command it: `ps`, `raise`, `pause` ... Each is one question to one socket."""

from __future__ import annotations

import sys

from memrun import clients, errors, signals
from memrun.options import nearest
from memrun.report import clean
from memrun.units import format_size, parse_duration
from memrun.views import cells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from memrun.clients import Words

USAGE = {
    "ps": "[--all] [--json]      --all: also what has ended of a job file that is still being run",
    "raise": "NAME SIZE [--reclaim]      SIZE: 7M, +2G, -500M, x1.5, 50%, infinity",
    "pause": "NAME",
    "resume": "NAME",
    "restart": "NAME",
    "stop": "NAME",
    "kill": "NAME",
    "signal": "NAME SIGNAL",
    "show": "NAME [--json]",
    "set": "NAME KEY=VALUE...      KEY: limit, soft, swap, swappiness",
    "reclaim": "NAME [SIZE]",
    "events": "[-f] [--json] [NAME]",
    "wait": "NAME [--timeout TIME]",
    "logs": "[-f] NAME      -f: go on until the job is over",
    "top": "      ps, live; q ends it",
    "history": "[NAME] [--all] [--json]      the latest runs, 20 of them or --all; JSON: a line each",
    "suggest": 'NAME [--json]      what limit to give the next run: memrun --limit "$(memrun suggest NAME)" ...',
}
FLAGS = {
    "ps": {"--all", "--json"},
    "raise": {"--reclaim"},
    "show": {"--json"},
    "events": {"-f", "--json"},
    "wait": {"--timeout"},
    "logs": {"-f", "--follow"},
    "history": {"--all", "--json"},
    "suggest": {"--json"},
}
COUNTS = {
    "ps": (0, 0),
    "raise": (2, 2),
    "signal": (2, 2),
    "set": (2, 99),
    "reclaim": (1, 2),
    "events": (0, 1),
    "top": (0, 0),
    "history": (0, 1),
}


def act(verb: str, words: list[str]) -> int:
    """One command line without the verb -> exit status."""
    if "--help" in words or "-h" in words:
        sys.stdout.write(f"memrun {verb} {USAGE[verb]}\n")
        return errors.SUCCESS
    flags, plain = _sorted(verb, words)
    least, most = COUNTS.get(verb, (1, 1))
    if not least <= len(plain) <= most:
        raise errors.UsageError(f"memrun {verb} wants other words", f"Usage: memrun {verb} {USAGE[verb]}")
    special = SPECIAL.get(verb)
    return special(flags, plain) if special else _command(verb, flags, plain)


def _sorted(verb: str, words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Flags and plain words; a plain word may begin with - or + (sizes do)."""
    flags: dict[str, str] = {}
    plain: list[str] = []
    rest = list(words)
    known = FLAGS.get(verb, set())
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if flag in known:
            if flag == "--timeout" and not equals:
                if not rest:
                    raise errors.UsageError("--timeout wants a value (TIME)")
                value = rest.pop(0)
            flags[flag] = value
        elif word.startswith("--"):
            raise errors.UsageError(
                f"memrun {verb} has no option {flag}", nearest(flag, known) or f"Usage: memrun {verb} {USAGE[verb]}"
            )
        else:
            plain.append(word)
    return flags, plain


def _command(verb: str, flags: dict[str, str], plain: list[str]) -> int:
    question: Words = {"verb": verb}
    if verb == "raise":
        question |= {"size": plain[1], "reclaim": "--reclaim" in flags}
    elif verb == "signal":
        question["signal"] = str(signals.parse(plain[1]))
    elif verb == "set":
        question["values"] = dict(_pair(word) for word in plain[1:])
    elif verb == "reclaim" and len(plain) > 1:
        question["size"] = plain[1]
    path, name = clients.find(plain[0])
    answer = clients.ask(path, {**question, "name": name}, 60.0)
    _tell(name, verb, answer)
    return errors.SUCCESS


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals:
        raise errors.UsageError(f"{word!r} is not KEY=VALUE")
    return key, value


def _tell(name: str, verb: str, answer: Words) -> None:
    if "to" in answer:
        _out(f"{name}: limit {_size(answer.get('from'))} -> {_size(answer['to'])}")
    if verb == "reclaim":
        _out(f"{name}: use {_size(answer.get('before'))} -> {_size(answer.get('after'))}")
    if "note" in answer:
        _out(f"{name}: {answer['note']}")


def _size(value: object) -> str:
    return format_size(value) if isinstance(value, int) or value is None else "?"


def _out(line: str) -> None:
    sys.stdout.write(clean(line) + "\n")
    sys.stdout.flush()


def _ps(flags: dict[str, str], _plain: list[str]) -> int:
    found, silent = clients.jobs()
    rows = [row for _, row in found]
    if "--json" in flags:
        import json

        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        _list(rows, flags)
    if silent:
        raise errors.MemrunError(f"{clients.unanswered(silent)}: its jobs are not shown")
    return errors.SUCCESS


def _list(rows: list[Words], flags: dict[str, str]) -> None:
    shown = rows if "--all" in flags else [row for row in rows if row["file"] is None or row["state"] != "EXITED"]
    table: list[tuple[str, ...]] = [("NAME", "STATE", "PID", "LIMIT", "USE", "PEAK", "ATTEMPT", "SINCE")]
    for row in shown:
        sizes = (_size(row["limit"]), *("-" if row[key] is None else _size(row[key]) for key in ("usage", "peak")))
        table.append(
            (
                str(row["name"]),
                str(row["state"]),
                str(row["pid"] or "-"),
                *sizes,
                str(row["attempt"]),
                str(row["since"] or "-")[:19],
            )
        )
    for line in cells.table(table[0], table[1:]) if rows else []:
        _out(line)
    if len(shown) < len(rows):
        _out(f"and {len(rows) - len(shown)} that have ended: memrun ps --all")


def _show(flags: dict[str, str], plain: list[str]) -> int:
    path, name = clients.find(plain[0])
    rows = clients.ask(path, {"verb": "show", "name": name}).get("rows")
    found = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    if "--json" in flags:
        import json

        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return errors.SUCCESS
    width = max((len(str(row.get("what"))) for row in found), default=0)
    for row in found:
        value = str(row.get("value"))
        shown = f"{value} ({format_size(int(value))})" if value.isdecimal() and int(value) >= 1024 else value
        _out(f"{row.get('what')!s:<{width}}  {shown:<26}  {row.get('meaning')}".rstrip())
    return errors.SUCCESS


def _events(flags: dict[str, str], plain: list[str]) -> int:
    """What has happened so far, of one job or of all in the order of time; with -f also what happens from then on."""
    path, name = clients.find(plain[0]) if plain else ("", "")
    paths = [path] if path else [path for _, path in clients.sockets()]
    question: Words = {"verb": "events", "name": name, "follow": "-f" in flags}
    found = (line for line in clients.follow_all(paths, question) if "event" in line)
    for line in found if "-f" in flags else sorted(found, key=lambda line: str(line.get("at"))):
        _event(line, as_json="--json" in flags)
    return errors.SUCCESS


def _event(line: Words, *, as_json: bool) -> None:
    if as_json:
        import json

        _out(json.dumps(line))
        return
    more = " ".join(f"{key}={value}" for key, value in line.items() if key not in {"at", "name", "event"})
    _out(f"{line.get('at')} {line.get('name')} {line['event']} {more}".rstrip())


def _wait(flags: dict[str, str], plain: list[str]) -> int:
    timeout = parse_duration(flags["--timeout"]) if "--timeout" in flags else None
    path, name = clients.find(plain[0])
    try:
        answer = clients.ask(path, {"verb": "wait", "name": name}, timeout)
    except errors.RefusedError:
        raise
    except errors.MemrunError as e:
        if e.what == "no answer in time":
            return errors.TIMED_OUT
        raise
    _out(f"{name}: {answer.get('result')}")
    status = answer.get("status")
    return status if isinstance(status, int) else errors.FAILED


def _logs(flags: dict[str, str], plain: list[str]) -> int:
    from memrun.views import logs

    return logs.show(plain[0], follow=bool(flags))


def _top(_flags: dict[str, str], _plain: list[str]) -> int:
    if not cells.is_live(1):
        return _ps({}, [])
    from memrun.views import top  # with rich: 40 ms

    return top.watch()


def _history(flags: dict[str, str], plain: list[str]) -> int:
    from memrun.views import past

    return past.show(plain[0] if plain else "", 0 if "--all" in flags else past.SHOWN, as_json="--json" in flags)


def _suggest(flags: dict[str, str], plain: list[str]) -> int:
    from memrun.views import past

    return past.advise(plain[0], as_json="--json" in flags)


SPECIAL: dict[str, Callable[[dict[str, str], list[str]], int]] = {
    "ps": _ps, "show": _show, "events": _events, "wait": _wait, "logs": _logs, "top": _top,
    "history": _history, "suggest": _suggest,
}  # fmt: skip
