"""The house rules: who may know whom, what is loaded before the command runs, and how large things may grow.

In ROOMS a bare word is a room that may be imported at the top, `~` marks those only inside functions, `?` those only for types.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import memrun

HOUSE = Path(memrun.__file__).parent
ROOMS = {
    # floor 0 and 1: values and rules
    "__init__": "~api ~errors ?api ?errors",
    "__main__": "cli",
    "batch": "",
    "views": "",
    "cron": "",
    "errors": "",
    "events": "values",
    "units": "errors",
    "signals": "errors",
    "values": "",
    "states": "values",
    "budget": "states ?states",
    "verdict": "budget events states units values",
    "policy": "budget events states values verdict",
    "marks": "errors units signals",
    "record": "errors units ?cgroup",
    "conversions": "errors units ~marks ?marks",
    "options": "?adoption ?marks conversions errors signals units",
    "report": "errors signals units ~identity ?identity ?record",
    "jobs": "?options ?units",
    "batch.plan": "units",
    "logfile": "errors identity ?identity",
    "output": "errors logfile report ?identity",
    "templates": "",
    # a job file: TOML -> jobs
    "jobfile": "errors jobfile.assemble jobfile.expand jobfile.fit jobfile.needs jobfile.schema jobfile.source jobfile.tables jobs units ?jobfile.expand",
    "jobfile.lines": "",
    "jobfile.source": "errors report jobfile.lines",
    "jobfile.schema": "conversions marks options ?jobfile.lines",
    "jobfile.tables": "errors marks options units jobfile.schema ?jobfile.lines ?jobfile.source",
    "jobfile.expand": "errors options templates jobfile.tables jobfile.source",
    "jobfile.needs": "errors jobs options templates ?jobfile.expand ?jobfile.source ?jobfile.tables",
    "jobfile.fit": "units ?jobfile.expand ?jobfile.needs ?jobfile.source ?jobfile.tables",
    "jobfile.assemble": "jobs options templates jobfile.tables ?jobfile.expand ?jobfile.lines ?jobfile.needs ?jobfile.source",
    "views.cells": "report",
    "batch.summary": "views.cells errors record report units ?jobs",
    # floor 2: the kernel
    "cgroup": "cgroup.detect ~cgroup.ladder ~cgroup.v1 ~cgroup.v2 ?cgroup.ears",
    "cgroup.board": "",
    "cgroup.members": "kin signals ?cgroup.board",
    "cgroup.sampler": "kin signals cgroup.members ?cgroup.board",
    "cgroup.sampled": "errors units cgroup ?cgroup.ears cgroup.board cgroup.members cgroup.sampler",
    "cgroup.files": "errors",
    "cgroup.ears": "",
    "cgroup.detect": "cgroup.files",
    "cgroup.ladder": "errors cgroup.detect cgroup.ground ~cgroup.prepared ~cgroup.scope ~cgroup.survey",
    "cgroup.dbus": "",
    "cgroup.scope": "errors cgroup.dbus",
    "cgroup.prepared": "errors cgroup.detect",
    "cgroup.ground": "errors cgroup.files cgroup.tree",
    "setup": "errors options cgroup.prepared",
    "cgroup.tree": "errors signals cgroup.files",
    "cgroup.survey": "errors cgroup.detect cgroup.files cgroup.ground cgroup.remains cgroup.scope",
    "cgroup.remains": "cgroup.ground cgroup.files",
    "cgroup.eventfd": "errors ?cgroup.files",
    "cgroup.freezer1": "errors cgroup cgroup.detect cgroup.files cgroup.tree",
    "cgroup.details": "errors cgroup cgroup.files cgroup.tree",
    "cgroup.gauge": "errors signals cgroup cgroup.detect cgroup.files cgroup.eventfd",
    "cgroup.homes": "errors cgroup.detect cgroup.files",
    "cgroup.v1": "errors cgroup cgroup.files cgroup.tree cgroup.eventfd cgroup.limits1 cgroup.v1group ?cgroup.detect",
    "cgroup.wire1": "units cgroup cgroup.ears cgroup.eventfd ?cgroup.ears ?cgroup.files",
    "cgroup.limits1": "errors units cgroup.files ?cgroup.files",
    "cgroup.tally1": "cgroup cgroup.files cgroup.tree ?cgroup.files",
    "cgroup.v1group": "errors units cgroup cgroup.tally1 cgroup.ears ?cgroup.ears cgroup.files cgroup.tree cgroup.eventfd cgroup.freezer1 cgroup.limits1 cgroup.wire1 ~cgroup.cache1 ~cgroup.strays1 ?cgroup.strays1 ~cgroup.together1 ?cgroup.together1 ?cgroup.v1",
    "cgroup.strays1": "cgroup.ears ?cgroup.ears cgroup.files",
    "cgroup.cache1": "errors cgroup.files ?cgroup.files",
    "cgroup.together1": "?cgroup.files",
    "cgroup.v2": "errors cgroup cgroup.detect cgroup.files cgroup.ground cgroup.tree cgroup.v2group",
    "cgroup.v2group": "errors units cgroup cgroup.ears ?cgroup.ears cgroup.detect cgroup.files cgroup.tree ?cgroup.v2",
    "oomlog": "units",
    "hand": "errors signals",
    "cron.turn": "errors names signals units",
    "identity": "errors signals",
    "environment": "errors identity ?identity",
    "clib": "",
    "birth": "clib",
    "launch": "birth errors signals ?surroundings",
    "surroundings": "errors environment identity launch ?options",
    # floor 3 and up: runs
    "priority": "clib launch",
    "guard": "priority ?cgroup",
    "machine": "?job",
    "aside": "errors signals",
    "hooks": "errors events launch report signals ?options ?supervisor",
    "gauges": "events errors units cgroup cgroup.gauge marks",
    "names": "errors ?identity",
    "clients": "errors names",
    "door": "names",
    "connections": "errors",
    "control": "connections door errors ?door",
    "views.logs": "clients errors report",
    "views.top": "jobs views.cells clients errors views.frame units",
    "verbs": "views.cells errors clients report units signals options ~views.logs ~views.past ~views.top",
    "desk": "~chronicle ?chronicle ?options aside cgroup cgroup.details errors events job options signals standing states units ?supervisor ?cgroup",
    "job": "~interference cgroup ~cgroup.gauge ~guard ?guard errors hand launch ~oomlog ?oomlog ~record ?record signals units ~surroundings ?options",
    "kin": "",
    "strangers": "cgroup.detect cgroup.homes errors kin signals",
    "attach": "cgroup.homes errors job kin options signals strangers units ?record ?cgroup",
    "news": "clib events signals ?cgroup ?job",
    "switchboard": "",
    "watch": "interference cgroup events news switchboard ?switchboard ?cgroup ?job",
    "interference": "cgroup errors ?cgroup",
    "standing": "interference states ?events ?job ?record",
    "deeds": "interference machine policy signals ?job ?marks ?options",
    "flatjson": "",
    "vigil": "interference deeds door events flatjson job news policy priority record standing states cgroup ?job ?record ?telling",
    "views.outlet": "",
    "views.frame": "jobs views.cells units ?jobs",
    "views.live": "views.cells views.outlet units ~views.frame ~batch.summary ?jobs",
    "ahead": "aside units budget events states ?supervisor",
    "usher": "?supervisor",
    "thresholds": "gauges ?gauges ?cgroup ?marks",
    "supervisor": "interference ahead cgroup deeds errors events hooks job machine news policy record states thresholds units watch gauges ?cgroup ?switchboard ?usher",
    # floor 4: batches
    "batch.entries": "states ?jobs ?output ?supervisor",
    "batch.berth": "errors identity job jobs output record report templates units ?batch.entries ?batch.will ?options",
    "batch.claims": "cgroup errors batch.plan units ?batch.entries ?job",
    "batch.needs": "?batch.entries ?jobs",
    "batch.reread": "units batch.up ?batch.scheduler ?batch.entries ?jobs",
    "batch.openfiles": "cgroup.files launch ?jobs",
    "batch.usher": "events jobs ?batch.berth ?batch.claims ?batch.entries ?batch.ledger ?supervisor",
    "batch.scheduler": "batch.usher batch.berth batch.claims batch.entries deeds errors events hooks jobs batch.needs supervisor switchboard ?batch.berth ?job ?batch.ledger",
    "batch.midwife": "birth launch signals surroundings",
    "batch.ledger": "errors batch.hosts batch.store_path",
    "batch.store_path": "history",
    "batch.hosts": "",
    "batch.keeper": "errors launch signals",
    "batch.will": "errors hand job record ?batch.ledger",
    "batch.progress": "jobs ?batch.scheduler ?batch.entries",
    "batch.desk": "interference desk errors events job ?batch.scheduler ?batch.entries",
    "batch.run": "batch.scheduler batch.desk batch.berth views.cells control errors events history job jobs news cron.letter batch.openfiles ownlog batch.progress priority record report batch.reread cron.ring signals batch.summary units batch.up views.live watch ~jobfile ?batch.entries ?batch.ledger ?batch.will",
    "batch.up": "conversions errors batch.keeper batch.ledger batch.will names notify report jobs ~identity ~batch.midwife ~batch.run ~cgroup ~job ~jobfile ~options ~cron.turn ?batch.ledger ?cron.turn",
    "api": "errors job options record ~supervisor ?events",
    "forecast": "?jobs",
    "checking": "cgroup errors forecast jobfile launch job options report units ?jobs",
    "findings": "units cgroup.survey",
    "doctor": "errors findings hand options cgroup cgroup.survey ~job ?cgroup.remains",
    "ownlog": "errors ~logfile ?identity",
    "cron.ring": "errors",
    "notify": "",
    "cron.curve": "",
    "cron.letter": "cron.curve cron.ring units ~output ~report ?identity ?options ?record",
    "history": "flatjson ?record",
    "chronicle": "identity ?identity ?options",
    "suggest": "units",
    "views.past": "errors history report units views.cells ~suggest",
    "telling": "errors ~history job ~notify ?notify signals units ~cron.letter ?cron.letter ~identity ~ownlog ~report ?identity ?options ?ownlog ?record",
    "company": "control desk errors events hooks news output priority supervisor watch ?job ?cron.letter ?options ?record ?telling ?vigil",
    "adoption": "cgroup errors kin signals ~cgroup.sampled ?cgroup.sampled ?options",
    "oneshot": "~interference ~adoption ?cgroup errors hand job names ~history ~record options signals telling ~attach ~company ~strangers ~cron.turn ~vigil ?record ?strangers ?cron.turn ?vigil",
    "cli": "errors launch names oneshot options signals telling ~verbs ~report ~doctor ~setup ~checking ~batch.up ~__init__",
}
HEAVY = {  # at the top of which rooms; everybody else has them inside functions or not at all
    "trio": "ahead thresholds aside batch.scheduler batch.usher batch.run batch.berth company connections control desk batch.entries gauges hooks output views.outlet batch.progress switchboard views.live watch supervisor",
    "psutil": "",
    "tomli": "",
    "jsonschema": "",
    "json": "chronicle flatjson views.past batch.run batch.berth control batch.ledger",
    "jeepney": "",
    "rich": "views.frame views.top",
    "dataclasses": "suggest batch.ledger gauges jobs batch.plan",
    "typing": "switchboard thresholds chronicle suggest views.past ahead api aside batch.scheduler batch.usher batch.desk batch.run batch.berth batch.claims company batch.entries batch.ledger batch.midwife batch.needs batch.keeper batch.will batch.progress batch.up usher control desk views.frame gauges hooks jobs output batch.plan batch.reread batch.summary views.live watch supervisor views.top",
} | dict.fromkeys("logging subprocess pathlib enum signal re argparse asyncio threading contextlib ctypes".split(), "")
for _room in (
    "templates",
    "forecast",
    "checking",
    *(room for room in ROOMS if room.startswith("jobfile")),
):  # only check and up load them
    for _name in ("typing", "dataclasses", "re", "json"):
        HEAVY[_name] += f" {_room}"
HEAVY["contextlib"] = "views.logs views.top"
HEAVY["signal"] = "views.top"
HEAVY["re"] += " output"  # trio, too
KERNEL_WORDS = re.compile(r"/sys/fs|\bmemory\.[a-z]|\bcgroup\.[a-z]")
MAY_SAY_THEM = {"oomlog", "hand", "batch.openfiles"}
LOADED_BY_CLI = set(
    "trio psutil tomli jsonschema rich jeepney socket typing re enum dataclasses argparse json subprocess logging pathlib signal contextlib".split()
)
BANNED_NAMES = re.compile(r"manager|handler|(?<!ps)utils?\b|helpers?\b", re.IGNORECASE)


def room_of(path: Path) -> str:
    return ".".join(path.relative_to(HOUSE).with_suffix("").parts).removesuffix(".__init__")


TREES = {room_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(HOUSE.rglob("*.py"))}
every_room = pytest.mark.parametrize("room", TREES)


def imports(node: ast.AST, where: str = "") -> set[tuple[str, str]]:
    """(where, module) of each import below a node: '' top, '~' inside a function, '?' for types only."""
    found = set()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            found |= {(where, alias.name) for alias in child.names}
        elif isinstance(child, ast.ImportFrom):
            parts = {f"{child.module}.{alias.name}" for alias in child.names}
            known = {part for part in parts if part.removeprefix("memrun.") in TREES}
            found |= {(where, name) for name in known | ({child.module or ""} if parts - known else set())}
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found |= imports(child, "~")
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            found |= imports(child, "?")
        else:
            found |= imports(child, where)
    return found


@every_room
def test_who_may_know_whom(room):
    assert room in ROOMS, f"a new room: say in ROOMS (and in the house's plan) whom {room} may know"
    allowed = set(ROOMS[room].split())
    for where, module in imports(TREES[room]):
        if module.partition(".")[0] == "memrun":
            known = module.partition(".")[2] or "__init__"
            assert {where + known, known} & allowed, f"{room} may not import {where}{known}"


def test_the_table_has_no_room_that_is_gone():
    assert set(ROOMS) == set(TREES)


@every_room
def test_what_is_heavy_stays_inside(room):
    for where, module in imports(TREES[room]):
        name = module.partition(".")[0]
        assert where or name not in HEAVY or room in HEAVY[name].split(), f"{room} imports {name} at its top"


def docstrings(tree: ast.Module) -> set[int]:
    owners = [n for n in ast.walk(tree) if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))]
    return {id(n.body[0].value) for n in owners if n.body and isinstance(n.body[0], ast.Expr)}


@every_room
def test_the_kernel_s_words_stay_below(room):
    if room.startswith("cgroup") or room in MAY_SAY_THEM:
        return
    said = docstrings(TREES[room])
    for node in ast.walk(TREES[room]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            assert not KERNEL_WORDS.search(node.value), f"line {node.lineno} of {room}: {node.value!r}"


@every_room
def test_functions_and_files_stay_small(room):
    tree = TREES[room]
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= 40, f"{room}.{node.name} has {lines} lines"
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            assert len(set(names) - {"self", "cls"}) <= 5, f"{room}.{node.name} has {len(names)} parameters"
    path = HOUSE.joinpath(*room.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, f"{room} has more than 400 lines"


@every_room
def test_names_say_what_a_thing_is(room):
    names = {room}
    for node in ast.walk(TREES[room]):
        names |= {str(getattr(node, field)) for field in ("id", "attr", "arg", "name") if hasattr(node, field)}
    assert not [name for name in names if BANNED_NAMES.search(name)]


@every_room
def test_no_error_is_swallowed_wholesale(room):
    for node in ast.walk(TREES[room]):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno} of {room}: a bare except"
            assert not re.search(r"\bException\b", ast.unparse(node.type)), f"line {node.lineno} of {room}: except Exception"


def test_the_command_line_is_loaded_without_anything_heavy():
    code = f"import sys; import memrun.cli; print(*sorted({LOADED_BY_CLI!r} & set(sys.modules)))"
    # -S: what a site's own .pth files load is none of ours
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=HOUSE.parent)
    assert (done.stdout.strip(), done.stderr) == ("", "")
