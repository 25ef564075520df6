"""memrun-jobs(5): the man page of job files, made of their schema (memrun/jobfile/schema.py), so that it names every key and no other.

docutils makes troff of it: argparse-manpage, which makes memrun(1), knows command lines only.
"""

from __future__ import annotations

import re
from typing import Any

SYNOPSIS = """
**memrun up** *FILE* [*JOB*...]

**memrun check** *FILE*
"""
DESCRIPTION = """
A job file is TOML: what may be used together (*[batch]*), what holds where a job does not say (*[defaults]*), and the jobs
(*[jobs.NAME]*). **memrun up** runs them within one budget of memory: the limits of all that run are never more than that together; run
again, it goes on where it stopped. **memrun check** says what a file comes to, or every mistake in it.

Every option of a single run is a key of a job and of *[defaults]*, with the same meaning and *_* for *-*. Sizes, times and counts may be
numbers (bytes, seconds); what may be given several times is a text or a list.
"""
EXAMPLE = """
[batch]
memory = "80%"

[defaults]
on_oom = "restart"
grow = 2.0
ceiling = "8G"

[jobs.extract]
command = ["python", "extract.py"]
limit = "500M"

[jobs.align]
command = ["./align", "{sample}"]
matrix = { sample = ["a", "b", "c"] }
depends_on = ["extract"]
limit = "1G"
"""


def source(schema: dict[str, Any]) -> str:
    """The page as reStructuredText."""
    top = schema["properties"]
    common = top["defaults"]["properties"]
    job = {key: value for key, value in top["jobs"]["additionalProperties"]["properties"].items() if key not in common}
    parts = [
        _title("memrun-jobs", "="),
        _title("job files for memrun up", "-"),
        ":Manual section: 5\n:Manual group: memrun\n",
        _section("SYNOPSIS", SYNOPSIS),
        _section("DESCRIPTION", DESCRIPTION),
        _section("AT THE TOP", _keys({"include": top["include"]})),
        _section("[batch]", _keys(top["batch"]["properties"])),
        _section("[jobs.NAME]", _keys(job)),
        _section("[defaults] AND [jobs.NAME]", _keys(common)),
        _section("EXAMPLE", "::\n\n" + "\n".join(f"  {line}".rstrip() for line in EXAMPLE.strip().split("\n")) + "\n"),
        _section("SEE ALSO", "**memrun**\\(1); docs/job-files.md in the source; **memrun check --schema** for editors\n"),
    ]
    return "\n".join(parts)


def page(schema: dict[str, Any]) -> str:
    """As troff."""
    from docutils.core import publish_string

    settings = {"report_level": 2, "halt_level": 2, "datestamp": None, "output_encoding": "unicode", "_disable_config": True}
    made: str = publish_string(source(schema), writer_name="manpage", settings_overrides=settings)
    return made


def _title(text: str, line: str) -> str:
    return f"{line * len(text)}\n{text}\n{line * len(text)}\n"


def _section(title: str, text: str) -> str:
    return f"{title}\n{'=' * len(title)}\n\n{text}"


def _keys(properties: dict[str, Any]) -> str:
    """A list of them: what each is for, and what it may hold."""
    return "".join(
        f"**{key}**\n  {_words(about.get('description', ''))} ({_words(about['$comment'])})\n\n"
        for key, about in properties.items()
    )


def _words(text: str) -> str:
    """With nothing in it that reStructuredText would take for its own."""
    return re.sub(r"([\\*`|_])", r"\\\1", text)
