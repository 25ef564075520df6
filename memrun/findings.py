"""What `memrun doctor` has to say of what was found: Facts -> lines, each with the command that mends it. Pure."""

from __future__ import annotations

from memrun.cgroup import survey
from memrun.units import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cgroup.survey import Facts

USER_SCOPE = "systemd-run --user --scope -p Delegate=yes memrun --limit 500M -- COMMAND"
ROOT_SCOPE = "systemd-run --scope -p Delegate=yes memrun --limit 500M -- COMMAND"
OTHERWISE = "or, less surely: --best-effort looks at a job's memory again and again, and it may pass its limit for a moment"
CONCLUSION = "conclusion"  # the last line, which stands alone


class Line:
    """One finding. `ok` None: does not apply, or cannot be known."""

    __slots__ = ("found", "ok", "remedy", "what")

    def __init__(self, what: str, found: str, remedy: str = "", *, ok: bool | None = True) -> None:
        self.what, self.ok, self.found, self.remedy = what, ok, found, "" if ok else remedy


def processes(number: int) -> str:
    """'1 process', '2 processes'."""
    return f"{number} process{'' if number == 1 else 'es'}"


def works(facts: Facts) -> bool:
    """Whether a one-shot run under a limit would."""
    return facts.refusal is None and facts.pidfd


def examine(facts: Facts) -> list[Line]:
    """All findings; the conclusion is the last. Pure."""
    return [line(facts) for line in LINES]


def _kernel(f: Facts) -> Line:
    kind = f"cgroup {f.version}" if f.version else "no memory controller"
    beside = ", a v2 tree without memory beside it" if f.version == "v1" and f.hybrid else ""
    return Line("kernel", f"{f.kernel}, {kind}{beside}", _get_memory(f), ok=bool(f.version))


def _mounts(f: Facts) -> Line:
    shown = [
        f"{m.point} ({m.kind}{': ' + ','.join(sorted(m.options)) if m.options else ''}{'' if m.writable else ', read-only'})"
        for m in f.mounts
    ]
    used = any(m.point == f.top and m.writable for m in f.mounts)
    return Line("mounts", "; ".join(shown) or "none", survey.writable_again(f) if f.top else _get_memory(f), ok=used)


def _controllers(f: Facts) -> Line:
    lacking = "" if "memory" in f.controllers else "; no memory"
    if lacking and "memory" in f.above:
        lacking = "; memory was not handed down to memrun's own group"
    return Line("controllers", (" ".join(f.controllers) or "none") + lacking, _get_memory(f), ok=not lacking)


def _get_memory(f: Facts) -> str:
    """What brings the memory controller to where memrun is."""
    off = [word for word in f.switches if word.startswith("cgroup_disable=") and _takes_away(word, f)]
    if f.version:
        return ""
    if off:
        return _boot(f, "take out", " ".join(off))
    if f.enabled is False:
        return _boot(f, "add", "cgroup_enable=memory")
    if "memory" in f.above:
        return _way_in(f)
    return f"sudo sh -c '{survey.MOUNT_V1}'" if f.bound else f.missing[1]


def _switches(f: Facts) -> Line:
    off = " ".join(w for w in f.switches if _takes_away(w, f))
    return Line("boot switches", " ".join(f.switches) or "none that matters here", _boot(f, "take out", off), ok=not off)


def _takes_away(word: str, f: Facts) -> bool:
    key, _, value = word.partition("=")
    if key == "cgroup_disable":
        return "memory" in value.split(",") and not f.version  # a later cgroup_enable may have won
    if word == "swapaccount=0":  # kernels since 6.2 only complain about it
        return not (f.offers and f.offers.swap)
    return word == "psi=0" and not f.psi


def _enabled(f: Facts) -> Line:
    if f.enabled is None:
        return Line("memory enabled", "this kernel does not list it", ok=None)
    return Line("memory enabled", "yes" if f.enabled else "no, says the kernel's own list", _get_memory(f), ok=f.enabled)


def _own(f: Facts) -> Line:
    if f.own is None:
        return Line("own group", "cannot be seen from here", _get_memory(f), ok=False)
    whose = "" if f.owner is None else f", owned by {'root' if f.owner == 0 else f'uid {f.owner}'}"
    return Line("own group", f.own + whose)


def _groups(f: Facts) -> Line:
    if f.refusal is None:
        return Line("new groups", f"can be made {f.way or 'there'}; a limit of {format_size(f.limit)} was set and read back")
    return Line("new groups", f.refusal[0], _mend(f), ok=False)


def _mend(f: Facts) -> str:
    """The one command for the first thing that stands in the way."""
    if not f.version:
        return _get_memory(f)
    if any(m.point == f.top and not m.writable for m in f.mounts):
        return survey.writable_again(f)
    return _way_in(f) or (f.refusal or ("", ""))[1]


def _way_in(f: Facts) -> str:
    """How this user comes into a group where groups can be made."""
    if f.version == "v1":  # systemd hands no memory down there
        return "" if f.uid == 0 else f.enter
    if not f.systemd:
        return f.enter
    return ROOT_SCOPE if f.uid == 0 else "\n".join(_to_the_bus(f)) or USER_SCOPE


def _to_the_bus(f: Facts) -> list[str]:
    """What is to be done before the user's systemd can be asked."""
    return [] if f.bus else [f"sudo loginctl enable-linger {f.user}"]


def _delegation(f: Facts) -> Line:
    who = "root" if f.uid == 0 else f"{f.user} (uid {f.uid})"
    if works(f):
        return Line("delegation", f"{who} may make groups here")
    if f.uid == 0:
        return Line("delegation", "root", ok=None)
    if f.owner == f.uid:
        return Line("delegation", f"memrun's own group belongs to {who}")
    return Line("delegation", f"{who} may not make groups here", _way_in(f), ok=False)


def _systemd(f: Facts) -> Line:
    return Line("systemd", "runs this machine") if f.systemd else Line("systemd", "does not run here", ok=None)


def _bus(f: Facts) -> Line:
    if not f.systemd or f.uid == 0:
        return Line("user bus", "not needed" if f.uid == 0 else "there is no systemd", ok=None)
    found = f"at {f.runtime}" if f.bus else f"no user manager at {f.runtime}"
    unset = ", found without XDG_RUNTIME_DIR" if f.bus and not f.announced else ""
    return Line("user bus", found + unset, "\n".join(_to_the_bus(f)), ok=f.bus)


def _lingering(f: Facts) -> Line:
    if f.lingers is None:
        return Line("lingering", "not needed" if f.uid == 0 else "there is no systemd", ok=None)
    found = "yes" if f.lingers else "no: what runs in user scopes ends with the last login session"
    return Line("lingering", found, f"sudo loginctl enable-linger {f.user}", ok=f.lingers)


def _container(f: Facts) -> Line:
    return Line("container", f.container or "no mark of one", ok=True if f.container else None)


def _memory(f: Facts) -> Line:
    return Line("machine memory", f"{format_size(f.memory)}, swap {format_size(f.swap) if f.swap else 'none'}")


def _enclosing(f: Facts) -> Line:
    if f.enclosing is None:
        return Line("enclosing limit", "none that can be seen", ok=None)
    return Line("enclosing limit", f"{format_size(f.enclosing)}: no job gets more, and 50% means half of it")


def _swap(f: Facts) -> Line:
    if f.offers is None or f.offers.swap:
        return _offer(f, "swap limits", "swap", "", "")
    if not f.swap:
        return Line("swap limits", "no, and no swap to limit", ok=None)
    how = "--swap 0 is kept by swappiness" if f.version == "v1" else f"a job may take what it gets of {format_size(f.swap)}"
    return Line("swap limits", f"no: swap is not counted; {how}", _switch_on(f, "swapaccount"), ok=False)


def _pause(f: Facts) -> Line:
    if f.offers is None or not f.offers.freeze:
        return _offer(f, "pause", "freeze", "no freezer that memrun may use", _beside(f))
    if can_pause(f):
        return Line("pause", f"yes ({f.offers.freeze}, {f.offers.hold})")
    return Line("pause", "no: this kernel does not hold a group at its limit", "Linux 4.5 or newer, not PREEMPT_RT", ok=False)


def _beside(f: Facts) -> str:
    """What gives a v1 group the companion that can do what v1 cannot."""
    return f.enter if f.uid != 0 and len(f.places) > 1 else f"sudo sh -c '{survey.MOUNT_V2}'"


def can_pause(f: Facts) -> bool:
    """Whether a job can be held at its limit."""
    return bool(f.offers and f.pauses and f.offers.hold)


def _kill(f: Facts) -> Line:
    remedy = _beside(f) if f.version == "v1" and (f.uid != 0 or not f.hybrid) else "Linux 5.14 or newer"
    return _offer(f, "kill at once", "kill", "no: jobs are ended one process after the other", remedy)


def _notices(f: Facts) -> Line:
    return _offer(f, "limit notices", "notice", "no: a kill is seen when the job has ended", "a kernel without PREEMPT_RT")


def _peak(f: Facts) -> Line:
    return _offer(f, "peak", "peak", "no: records have no peak", "Linux 5.19 or newer")


def _pressure(f: Facts) -> Line:
    return _offer(f, "job pressure", "pressure", "no", _switch_on(f, "psi"))


def _offer(f: Facts, what: str, ability: str, lacking: str, remedy: str) -> Line:
    if f.offers is None:
        return Line(what, "not known: there was no group to ask", ok=None)
    file = getattr(f.offers, ability)
    return Line(what, f"yes ({file})" if file else lacking, remedy, ok=bool(file))


def _psi(f: Facts) -> Line:
    found = "yes (PSI)" if f.psi else "PSI is switched off" + ("" if f.psi is False else ", or not built into this kernel")
    return Line("host pressure", found, _switch_on(f, "psi"), ok=bool(f.psi))


def _log(f: Facts) -> Line:
    if f.log:
        return Line("kernel log", "can be read: verdicts name the largest processes")
    why = " (dmesg_restrict)" if f.restricted and f.uid != 0 else ""
    remedy = "docker run --device /dev/kmsg --cap-add SYSLOG ..." if f.container else "sudo sysctl -w kernel.dmesg_restrict=0"
    return Line("kernel log", f"cannot be read{why}: verdicts know less about who was large", remedy, ok=False)


def _pidfd(f: Facts) -> Line:
    remedy = "Linux 5.3 or newer; in a container, a seccomp profile that allows pidfd_open"
    return Line("pidfd", "yes" if f.pidfd else "no: processes cannot be watched", remedy, ok=f.pidfd)


def _left(f: Facts) -> Line:
    shown = [found.name + (f" ({processes(len(found.pids))})" if found.pids else "") for found in f.left]
    return Line("left over", ", ".join(shown) or "nothing", "memrun doctor --sweep", ok=not shown)


def _switch_on(f: Facts, key: str) -> str:
    return _boot(f, "take out", f"{key}=0") if f"{key}=0" in f.switches else _boot(f, "add", f"{key}=1")


def _boot(f: Facts, do: str, words: str) -> str:
    """How to change the kernel's command line, with the tool that this machine has."""
    if not words:
        return ""
    if f.container:
        return f"on the machine that runs the container: {do} {words} on the kernel's command line, and reboot"
    if f.loader == "grubby":
        option = "args" if do == "add" else "remove-args"
        return f"sudo grubby --update-kernel=ALL --{option}='{words}' && sudo reboot"
    if f.loader == "grub":
        edit = f's/^GRUB_CMDLINE_LINUX="/&{words} /' if do == "add" else f"s/ *{words}//"
        return f"sudo sed -i '{edit}' /etc/default/grub && sudo update-grub && sudo reboot"
    return f"{do} {words} on the kernel's command line, and reboot"


def _conclusion(f: Facts) -> Line:
    if works(f):
        return Line(CONCLUSION, f"memrun --limit works here (cgroup {f.version}, pause: {'yes' if can_pause(f) else 'no'})")
    why = f.missing[0] or (f.refusal[0] if f.refusal else "") or "processes cannot be watched (pidfd)"
    return Line(CONCLUSION, f"memrun --limit does not work here: {why}", OTHERWISE if f.pidfd else "", ok=False)


LINES = (
    *(_kernel, _mounts, _controllers, _switches, _enabled, _own, _groups),
    *(_delegation, _systemd, _bus, _lingering, _container, _memory, _enclosing),
    *(_swap, _pause, _kill, _notices, _peak, _pressure, _psi, _log, _pidfd, _left, _conclusion),
)
