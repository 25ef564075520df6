"""A job as it will be run: its settings with the variables filled in, paths made absolute, and the digest of what it does.

Relative paths are relative to the file that they are written in, and a job runs in its file's directory unless working_dir says
otherwise: `memrun up` on the same file must do the same from wherever it is called (cron, another directory after a reboot).

The digest holds what decides the result: command, variables, environment, working directory, user and the like. Not limits,
policies, retries, names of logs or what it waits for: to give a job more memory is no reason to do it again. Files that a job reads,
env_file among them, are held by name only.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from typing import TYPE_CHECKING

from memrun.jobfile.tables import BY_KEY, as_text, converted, texts
from memrun.jobs import Job, Output
from memrun.options import Spec
from memrun.templates import LATER, fill, mistyped, words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memrun.jobfile.expand import Variant
    from memrun.jobfile.lines import Place
    from memrun.jobfile.needs import Needs
    from memrun.jobfile.source import Problems, Source
    from memrun.jobfile.tables import Setting, Table

PATHS = (
    "report",
    "events",
    "env_file",
    "working_dir",
    "stdout",
    "stderr",
)  # options that name files: from the file they are in, with variables
OUTPUTS = ("log", "stdout", "stderr")
DECIDING = ("env_file", "user", "group", "umask", "pass_environment")  # the digest holds these as they are written
VARIABLES_OF = {"index": "array", "item": "foreach", "stem": "foreach"}


def job(variant: Variant, order: int, needs: Needs) -> Job:
    """The job. UsageError where a variable makes a value that is none."""
    table = variant.table
    settings = table.settings
    values = {key: setting.value for key, setting in settings.items() if key in BY_KEY}
    values |= _filled(variant)
    values["name"] = variant.name
    spec = Spec(command(table, variant.variables), values)
    spec.asked = {key: texts(s.raw)[0] for key, s in settings.items() if key in BY_KEY and not isinstance(s.raw, (dict, list))}
    return Job(
        name=variant.name,
        table=table.name,
        order=order,
        spec=spec,
        needs=needs,
        output=_output(variant),
        service=is_service(table),
        variables={key: text for value in variant.values for key, text in value.variables.items()},
        digest=_digest(variant, spec.command, values),
    )


def is_service(table: Table) -> bool:
    """Whether it lives beside the batch jobs."""
    setting = table.settings.get("restart")
    return setting is not None and setting.value == "always"


def command(table: Table, variables: Mapping[str, str]) -> list[str]:
    """A list with the variables in its words; a text for the shell, with each of them quoted."""
    given = table.raw["command"]
    if isinstance(given, list):
        return [fill(as_text(word), variables, later=LATER) for word in given]
    return ["/bin/sh", "-c", fill(str(given), variables, quote=shlex.quote, later=LATER)]


def _filled(variant: Variant) -> dict[str, object]:
    """Options that hold templates, converted anew."""
    found: dict[str, object] = {}
    for key in PATHS:
        setting = variant.table.settings.get(key)
        if setting is not None:
            found[key] = converted(BY_KEY[key], [_path(setting, text, variant) for text in texts(setting.raw)])
    environment = variant.table.settings.get("environment")
    if environment is not None:
        pairs = [_assigned(text, variant.variables) for text in texts(environment.raw)]
        found["environment"] = converted(BY_KEY["environment"], pairs)
    return {"working_dir": variant.table.source.folder} | found


def _assigned(text: str, variables: Mapping[str, str]) -> str:
    name, equals, value = text.partition("=")
    return name + equals + fill(value, variables, later=LATER)


def _path(setting: Setting, text: str, variant: Variant) -> str:
    """Absolute. `~` is the home of whom the job is run as, and `-FILE` an env_file that need not exist: both are left for then."""
    filled = fill(text, variant.variables, later=LATER)
    key = setting.path[-1]
    if key == "working_dir" and (filled == "~" or filled.startswith("~/")):
        return filled
    optional = "-" if key == "env_file" and filled.startswith("-") else ""
    return optional + os.path.normpath(os.path.join(setting.source.folder, filled.removeprefix(optional)))


def _output(variant: Variant) -> Output:
    settings = variant.table.settings
    paths = {key: _path(settings[key], str(settings[key].raw), variant) for key in OUTPUTS if key in settings}
    bounds = {mine: settings[key].value for mine, key in (("most", "log_size"), ("keep", "log_keep")) if key in settings}
    return Output(**paths, **bounds)  # type: ignore[arg-type]


def _digest(variant: Variant, words: list[str], values: Mapping[str, object]) -> str:
    settings = variant.table.settings
    environment = settings.get("environment")
    deciding = {
        "command": words,
        "variables": {key: text for value in variant.values for key, text in value.variables.items()},
        "environment": sorted(_assigned(text, variant.variables) for text in texts(environment.raw)) if environment else [],
        "working_dir": os.path.relpath(str(values["working_dir"]), variant.table.source.folder),
        **{key: texts(settings[key].raw) for key in DECIDING if key in settings},
    }
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def look_at_templates(variant: Variant, problems: Problems) -> None:
    """Complain of variables that are nearly known; take a note of those that would be, had the table what they belong to."""
    table = variant.table
    for path, source, some in _templates(table):
        for word, meant in mistyped(some, [*variant.variables, *LATER]):
            problems.add(source, path, f"{{{word}}} is no variable here. Did you mean {{{meant}}}?")
        for word in {word for text in some for word in words(text)} - set(variant.variables):
            if word in VARIABLES_OF:
                problems.note(source, path, f"{{{word}}} stays as it is: jobs.{table.name} has no {VARIABLES_OF[word]}")


def _templates(table: Table) -> list[tuple[Place, Source, list[str]]]:
    given = table.raw["command"]
    found = [
        (table.path("command"), table.source, [as_text(word) for word in given] if isinstance(given, list) else [str(given)])
    ]
    for key in (*PATHS, "log", "environment"):
        setting = table.settings.get(key)
        if setting is not None:
            found.append((setting.path, setting.source, texts(setting.raw)))
    return found
