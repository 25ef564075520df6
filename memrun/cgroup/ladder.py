"""Where may we make groups? The rungs, tried in this order; the first that holds is taken, and `way` says which.

    own        below memrun's own group, or the nearest group above it that is ours just as well. Costs nothing
    scope      in a delegated scope, asked of the systemd that owns the tree: the user's, or for root the machine's (v2)
    prepared   below a group that an administrator made for this user (v1; on v2 it is found as `own`: see prepared.py)

Where systemd owns the tree (it is the first process, in the same cgroup namespace), a unit that was not delegated is not ours
to make groups in, be we root or not: then the scope comes first, in memrun.slice for root, and `own` is what is left when
systemd does not answer. Never do we leave a limit behind: who starts memrun in a unit with a limit means it for memrun's jobs too,
so they stay in there or do not start; and a scope is asked for in our own slice where one of the slices above us has a limit.
"""

from __future__ import annotations

import errno
import os

from memrun.cgroup import detect, ground
from memrun.errors import NoCgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cgroup.detect import Setup

UNITS = (".service", ".scope", ".slice", ".socket", ".mount", ".swap")
MARKS = ("user.delegate", "trusted.delegate")  # extended attributes that systemd sets; the second one is for root's eyes


def climb(setup: Setup, name: str) -> tuple[Setup, str]:
    """(where to make groups, by which rung); NoCgroupError with the exact commands where there is no such place. `name`: what a
    scope is to be called. On return we may be in another group than before."""
    if setup.version == "v1":
        return _on_v1(setup)
    if setup.unified is None or "memory" not in ground.text(f"{setup.unified_top}/cgroup.controllers").split():
        raise NoCgroupError(*detect.missing(setup))
    setup.version, setup.memory, setup.memory_top = "v2", setup.unified, setup.unified_top
    own, top = setup.unified, setup.unified_top or ""
    setup.whole = setup.whole or is_a_job(own)
    kept = stay(own, top) if systemd_owns() else OURS
    if kept:
        place = foothold(setup)
        if place:
            setup.memory = place
            return setup, _way(own, place)
        if kept == LIMITED:
            raise NoCgroupError(f"memrun's own group ({_group()}) has a limit, and may not be divided from here", TO_STAY)
    return _in_a_scope(setup, name) if systemd_owns() else _refuse(setup, "")


OURS, LIMITED = "ours", "limited"
TO_STAY = "Give its unit Delegate=yes and start memrun as its only process (a shell: 'exec memrun ...')"


def _way(own: str, place: str) -> str:
    return detect.BELOW_OURS if place == own else f"below {place}, which memrun's own group is in"


def _on_v1(setup: Setup) -> tuple[Setup, str]:
    if detect.is_ready(setup):
        return setup, detect.BELOW_OURS
    from memrun.cgroup import prepared

    found = prepared.find(setup, os.geteuid())
    return (found, "below the group prepared for this user") if found is not None else _refuse(setup, "")


def systemd_owns() -> bool:
    """Whether the tree is that of a systemd which is the first process here. In a container with a cgroup namespace of its
    own, systemd (of the machine) may be seen, but is in a group outside."""
    if not os.path.isdir("/run/systemd/system"):
        return False
    first = detect.own(1)
    group = first.get("", first.get("name=systemd", ""))
    return group.endswith("/init.scope") and not group.startswith("/..")


def is_a_job(own: str) -> bool:
    """Whether our group is one that another memrun made for a job: everybody in there belongs to it, as in a container."""
    words = own.split("/")[-2:-1]
    parts = words[0].split("-") if words else []
    return len(parts) == 3 and parts[0] == "memrun" and parts[1].isdecimal() and len(parts[2]) == 4


def stay(own: str, top: str) -> str:
    """Why we are to make groups where we are, on systemd's machine: a word; '' if there is no reason to."""
    place = own
    while place.startswith(top) and place != top:
        slice_ = place.endswith(".slice")
        if not slice_ and _limited(place):
            return OURS if _is_marked(place) else LIMITED
        if place.endswith(UNITS):
            return OURS if _is_marked(place) else ""
        place = place.rpartition("/")[0]
    return OURS


def foothold(setup: Setup) -> str:
    """The nearest group from our own one upwards where we can make groups without leaving a unit, a limit or the container; ''
    if there is none."""
    own, top = setup.unified or "", _end_of_walk(setup)
    place = own
    while True:
        why = ground.obstacle(place, whole=setup.whole, keeper=setup.keeper)
        if not why and (place == own or ground.hands_down(place) or ground.is_real_root(place)):
            return place
        if why not in {0, errno.EBUSY} or place == top or place.endswith(UNITS) or _limited(place):
            return ""
        place = place.rpartition("/")[0]


def _end_of_walk(setup: Setup) -> str:
    """Where a walk upwards for a place to stand ends."""
    return (setup.unified if setup.whole else setup.unified_top) or ""


def _limited(place: str) -> bool:
    return ground.text(f"{place}/memory.max").strip() not in {"", "max"}


def _is_marked(place: str) -> bool:
    """Whether systemd says that it delegated this unit (since v251 also to users)."""
    for mark in MARKS:
        try:
            if os.getxattr(place, mark) == b"1":
                return True
        except OSError:
            continue
    return False


def slice_for(own: str, top: str, uid: int) -> str:
    """The slice to ask for: that of our own unit where there is a limit on the way up to it; '' is systemd's default."""
    shared = top if uid == 0 else own.partition(f"/user@{uid}.service/")[0] + f"/user@{uid}.service"
    found, limited = "", False
    place = own
    while place.startswith(shared) and place != shared:
        if place.endswith(".slice"):
            found = found or place.rpartition("/")[2]
            limited = limited or _limited(place)
        place = place.rpartition("/")[0]
    return found if limited else "memrun.slice" if uid == 0 else ""


def _in_a_scope(setup: Setup, name: str) -> tuple[Setup, str]:
    from memrun.cgroup import prepared, scope

    own, top, uid = setup.unified or "", setup.unified_top or "", os.geteuid()
    try:
        scope.obtain(f"{name}.scope", slice_for(own, top, uid), scope.doors(uid, os.environ))
    except scope.NoScopeError as e:
        place = foothold(setup)  # what systemd does not promise is still better than nothing
        if not place:
            return _refuse(setup, e.what)
        setup.memory = place
        return setup, f"{_way(own, place)} ({e.what})"
    there = detect.look()
    if there.version != "v2":
        raise NoCgroupError("systemd's scope has no memory controller", prepared.remedy(uid, systemd=False))
    return there, f"in {name}.scope, of the {'system' if uid == 0 else 'user'}'s systemd"


def _group() -> str:
    groups = detect.own()
    return groups.get("memory", groups.get("", "/"))


def _sharers(own: str) -> str:
    return "a process outside of this container shares" if ground.has_strangers(own) else "other processes share"


def _to_be_alone(own: str) -> str:
    if ground.has_strangers(own):
        return "Start the container in a group of its own (unshare: move its own process out of the group once it has forked)"
    return TO_STAY if systemd_owns() else "'memrun doctor' prints the command that gives it one of its own"


def _to_be_writable(setup: Setup) -> str:
    from memrun.cgroup import survey

    facts = survey.Facts()
    facts.container, facts.version, facts.top = survey.container(), setup.version, setup.memory_top or ""
    command = survey.writable_again(facts)
    return f"Start the container with '{command}'" if facts.container else f"As root: '{command}'"


def _refuse(setup: Setup, said: str) -> tuple[Setup, str]:
    """The last rung: what is in the way, and the commands that mend it. `said`: by systemd."""
    from memrun.cgroup import prepared

    own, uid = setup.memory or "", os.geteuid()
    why = ground.obstacle(own, whole=setup.whole, keeper=setup.keeper) if setup.version == "v2" else 0
    if why == errno.EROFS or ground.is_read_only(own):
        raise NoCgroupError(f"no memory group can be made: {own} is mounted read-only", _to_be_writable(setup))
    user = prepared.user_of(uid)
    if said:
        what = f"no memory group can be made: memrun's own group ({_group()}) is not {user}'s to divide, and {said}"
        raise NoCgroupError(what, prepared.remedy(uid, systemd=True))
    if why == errno.ENODEV:
        raise NoCgroupError(*detect.missing(setup))
    if why == errno.EBUSY:
        raise NoCgroupError(f"no memory group can be made: {_sharers(own)} memrun's own group ({_group()})", _to_be_alone(own))
    raise NoCgroupError(f"no memory group can be made: {user} may not make one in {own}", prepared.remedy(uid, systemd=False))
