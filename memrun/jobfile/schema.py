"""What a job file may hold, as a JSON Schema made from the table of options: editors complete it, and memrun checks against it.

So the two cannot differ, and an option that is added to memrun/options.py is a key of a job by that. `$comment` in a subschema is
what memrun says was expected. Values that the schema lets through (is '5X' a size?) are judged by the options' own conversions
in tables.py: a schema that could do that would be unreadable in an editor.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from memrun.conversions import EVENTS
from memrun.marks import ACTIONS
from memrun.options import COMMAND_LINE, OPTIONS, Option, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memrun.jobfile.lines import Place

Schema = dict[str, Any]
NOT_KEYS = {  # options that are no keys
    "name": "a job's name is that of its table",
    **dict.fromkeys(COMMAND_LINE, "it is for the whole run, an option of memrun up"),
    "best_effort": "a batch shares out memory, and that takes memory groups",
}
NUMBERS = {
    "SIZE",
    "TIME",
    "FACTOR",
    "N",
    "SCORE",
    "USER",
    "GROUP",
}  # metavars whose value may be a plain number: bytes, seconds ...
MEANT = {  # what other programs call it; difflib finds the rest
    "cmd": "command", "run": "command", "exec": "command", "args": "command", "script": "command",
    "memory": "limit", "mem": "limit", "memory_limit": "limit", "max_memory": "limit", "memory_max": "limit",
    "cwd": "working_dir", "dir": "working_dir", "directory": "working_dir", "workdir": "working_dir",
    "env": "environment", "needs": "depends_on", "after": "depends_on", "requires": "depends_on", "dependencies": "depends_on",
    "retries": "attempts", "retry_delay": "delay", "retry": "attempts", "max_attempts": "attempts", "jobs": "parallel", "max_parallel": "parallel",
    "concurrency": "parallel", "budget": "memory", "threshold": "thresholds", "for_each": "foreach", "job": "jobs",
    "default": "defaults", "output": "log", "logfile": "log", "log_max": "log_size", "log_files": "log_keep",
}  # fmt: skip


def _text(wants: str = "text", **more: object) -> Schema:
    return {"type": "string", "$comment": wants, **more}


def _list_of(items: Schema, wants: str, **more: object) -> Schema:
    return {"type": "array", "items": items, "$comment": wants, **more}


def _table(properties: Schema, wants: str, **more: object) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False, "$comment": wants, **more}


SCALAR: Schema = {"type": ["string", "number", "boolean"], "$comment": "text, a number, or true or false"}
TEXTS = _list_of(_text(), "a list of texts")
TEXT_OR_TEXTS: Schema = {"anyOf": [_text(), TEXTS], "$comment": "text, or a list of texts"}
ENVIRONMENT: Schema = {"type": "object", "additionalProperties": SCALAR, "$comment": 'a table: { NAME = "value" }'}


def option_schema(option: Option) -> Schema:
    """What a key of that option's name may hold."""
    return {**_values(option), "description": option.help.replace("\n", " ")}


def _values(option: Option) -> Schema:
    if option.key == "environment":
        return {"anyOf": [ENVIRONMENT, *TEXT_OR_TEXTS["anyOf"]], "$comment": ENVIRONMENT["$comment"]}
    if option.key == "pressure":
        levels = {"type": "object", "additionalProperties": _text(), "$comment": 'a table: { medium = "log" }'}
        return {"anyOf": [levels, *TEXT_OR_TEXTS["anyOf"]], "$comment": 'a table such as { medium = "log" }, or texts'}
    if option.key == "on_event":
        commands = {"type": "object", "propertyNames": {"enum": list(EVENTS)}, "additionalProperties": _text()}
        said = 'a table such as { finished = "./tell" }, or texts'
        return {"anyOf": [{**commands, "$comment": said}, *TEXT_OR_TEXTS["anyOf"]], "$comment": said}
    if option.many:
        return dict(TEXT_OR_TEXTS)
    if not option.metavar or option.metavar == "on|off":
        return {"enum": [True, False, "on", "off"], "$comment": "true or false"}
    if option.words:
        return {"enum": list(option.words), "$comment": "one of " + ", ".join(f'"{word}"' for word in option.words)}
    if option.metavar in NUMBERS:
        return {"type": ["string", "number"], "$comment": f"text or a number ({option.metavar})"}
    return _text('text, in octal: "022"' if option.metavar == "MASK" else f"text ({option.metavar})")


def _thresholds() -> Schema:
    scalar = {"type": ["string", "number"], "$comment": "text or a number"}
    at = {**scalar, "description": "80% of the limit, 500M"}
    held = {**scalar, "description": "how long it must stay above: 30s"}
    do = _text(description=f"{', '.join(ACTIONS)}; signal:NAME, exec:COMMAND")
    one = _table({"at": at, "do": do, "for": held}, 'a table: { at = "80%", do = "log" }', required=["at", "do"])
    return _list_of(one, 'a list of tables: [{ at = "80%", do = "log" }]', description="the same as at, as tables")


def _common() -> Schema:
    """Keys of [defaults] and of jobs."""
    keys = {option.key: option_schema(option) for option in OPTIONS if option.key not in NOT_KEYS}
    keys["environment"]["description"] = "variables of the command's environment"
    keys["thresholds"] = _thresholds()
    keys["log"] = _text("a file name", description="file for stdout and stderr: logs/{job}.{attempt}.log")
    keys["log_size"] = {**option_like("SIZE"), "description": "a log that is larger is rotated (default: never)"}
    keys["log_keep"] = {
        "type": "integer",
        "minimum": 0,
        "$comment": "a whole number",
        "description": "old logs that stay (default 3)",
    }
    return keys


def option_like(metavar: str) -> Schema:
    """Text or a number."""
    return {"type": ["string", "number"], "$comment": f"text or a number ({metavar})"}


def _job_keys() -> Schema:
    values = {**_list_of(SCALAR, 'a list of values: ["a", "b"]', minItems=1)}
    partial = {"type": "object", "additionalProperties": SCALAR, "$comment": 'a table: { sample = "a" }', "minProperties": 1}
    exclude = _list_of(partial, 'a list of tables: [{ sample = "a" }]', description="combinations to leave out")
    matrix = {
        "type": "object", "properties": {"exclude": exclude}, "additionalProperties": values, "minProperties": 1,
        "$comment": 'a table: { sample = ["a", "b"] }', "description": "one job for each combination; {sample} in templates",
    }  # fmt: skip
    word = {"type": ["string", "number"], "$comment": "text or a number"}
    until = {"enum": ["succeeded", "finished", "started"], "$comment": 'one of "succeeded", "finished", "started"'}
    needs = {"type": "object", "additionalProperties": until, "$comment": 'a table: { extract = "finished" }'}
    lines = _table({"lines": _text("a file name")}, 'a table: { lines = "list.txt" }', required=["lines"])
    numbers = _list_of({"type": "integer", "$comment": "a whole number"}, "a list of whole numbers")
    return {
        "command": {
            "anyOf": [_text(minLength=1), _list_of(word, "a list of words", minItems=1)],
            "$comment": 'a list of words: ["./prog", "arg"], or text for sh -c',
            "description": "what to run: a list as it is, a text through sh -c",
        },
        "matrix": matrix,
        "array": {
            "anyOf": [_text(), numbers],
            "$comment": 'text such as "1-100" or "1-9:2", or a list of whole numbers',
            "description": "one job for each number: 1-100, 1-9:2, 1,3,5; {index} in templates",
        },
        "foreach": {
            "anyOf": [_text(), lines],
            "$comment": 'a pattern of files, or { lines = "list.txt" }',
            "description": "one job for each file or line; {item}, {name}, {stem} in templates",
        },
        "depends_on": {
            "anyOf": [*TEXT_OR_TEXTS["anyOf"], needs],
            "$comment": 'a list of jobs, or a table: { extract = "finished" }',
            "description": "jobs that come first: extract, align[sample=a], align[sample={sample}]",
        },
    }


def _batch() -> Schema:
    return _table(
        {
            "memory": {**option_like("SIZE"), "description": "the limits of all running jobs together (default 80%), or infinity"},
            "parallel": {"type": "integer", "minimum": 1, "$comment": "a whole number from 1", "description": "jobs at a time"},
            "on_failure": {
                "enum": ["continue", "stop"], "$comment": 'one of "continue", "stop"', "description": "after the first failure",
            },
        },
        "a table: [batch]",
    )  # fmt: skip


def schema() -> Schema:
    """JSON Schema (draft 2020-12) of a job file."""
    common = _common()
    job = _table({**_job_keys(), **common}, "a table: [jobs.NAME]", required=["command"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "memrun job file",
        **_table(
            {
                "include": {**TEXT_OR_TEXTS, "description": "further job files, relative to this one; patterns are allowed"},
                "batch": _batch(),
                "defaults": _table(common, "a table: [defaults]", description="what jobs of this file are where they do not say"),
                "jobs": {"type": "object", "additionalProperties": job, "$comment": "tables: [jobs.NAME]"},
            },
            "a table",
        ),
    }


def violations(document: object) -> Iterator[tuple[Place, str]]:
    """(path of keys, what is wrong) for everything in it that the schema does not allow."""
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(schema()).iter_errors(document):
        path: Place = tuple(error.absolute_path)
        rules: Schema = error.schema
        if error.validator == "additionalProperties":
            known = rules["properties"]
            yield from (((*path, key), _unknown(path, key, known)) for key in error.instance if key not in known)
        elif error.validator == "required":
            yield from ((path, f"has no {key!r}") for key in rules["required"] if key not in error.instance)
        else:
            yield path, f"wants {rules['$comment']}, not {shown(error.instance)}"


def _unknown(path: Place, key: str, known: Schema) -> str:
    if key in NOT_KEYS and path and path[0] in {"jobs", "defaults"}:
        return f"is no key here: {NOT_KEYS[key]}"
    if path == ("defaults",) and key in _job_keys():
        return "is no key of [defaults]: it says what one job is"
    if not path and key in {*_job_keys(), *_common()}:
        return "is a key of a job: it belongs below [jobs.NAME] or [defaults]"
    return f"is no key that is known here. {_meant(key, tuple(known))}"


@lru_cache(1000)  # the same mistake is made in every table
def _meant(key: str, known: tuple[str, ...]) -> str:
    meant = MEANT.get(key.lower().replace("-", "_"), key.lower().replace("-", "_"))
    hint = f"Did you mean {meant}?" if meant in known else nearest(key, known)
    return hint or f"Known are {', '.join(sorted(known))}"


def shown(value: object) -> str:
    """A wrong value, for people: short."""
    if isinstance(value, dict):
        return "a table" if value else "an empty table"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = (
        str(value).lower()
        if isinstance(value, bool)
        else repr(value)
        if isinstance(value, (str, int, float))
        else f"{value} (a date or time)"
    )
    return text if len(text) <= 60 else text[:57] + "..."
