"""What doctor says of machines that were recorded, and of what it read there."""

from __future__ import annotations

import json
import os

import pytest

from memrun import doctor, findings
from memrun.cgroup import remains, survey
from memrun.cgroup.detect import Mount, Setup
from memrun.cgroup.remains import Leftover
from memrun.cgroup.survey import Abilities, Facts
from memrun.errors import UsageError

V1, V2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"
HYBRID = """\
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
DOCKER = "600 599 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n"
EACCES = f"no memory group can be made: cannot make {V2}/user.slice/memrun-9-ab12: Permission denied"


def facts(**known: object) -> Facts:
    """A machine with everything, as root; `known` is what is different there."""
    made = Facts()
    made.kernel, made.memory, made.psi, made.log, made.pauses = "6.12.0", 8 << 30, True, True, True
    made.refusal, made.limit, made.owner = None, 64 << 20, 0
    for key, value in known.items():
        assert hasattr(made, key)
        setattr(made, key, value)
    return made


def offers(**known: str) -> Abilities:
    made = Abilities()
    for name in Abilities.__slots__:
        setattr(made, name, known.get(name, name))
    return made


def hybrid_as_root(**known: object) -> Facts:
    base: dict[str, object] = {
        "version": "v1", "hybrid": True, "mounts": survey.mounts(HYBRID), "own": f"{V1}/job", "top": V1,
        "controllers": ["memory", "freezer"], "enabled": True, "bound": True, "offers": offers(),
        "places": (f"{V1}/job", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/freezer"),
    }  # fmt: skip
    return facts(**{**base, **known})


def pure_v2(**known: object) -> Facts:
    every = ["cpu", "io", "memory", "pids"]
    base: dict[str, object] = {
        "version": "v2", "mounts": [Mount(V2, "/", "cgroup2", frozenset(), writable=True)], "own": V2, "top": V2, "places": (V2,),
        "controllers": every, "above": every, "offers": offers(),
    }  # fmt: skip
    return facts(**{**base, **known})


def not_delegated(**known: object) -> Facts:
    base: dict[str, object] = {
        "own": f"{V2}/user.slice/user-1000.slice/session-1.scope", "uid": 1000, "gid": 1000, "user": "alice", "systemd": True,
        "runtime": "/run/user/1000", "announced": True, "bus": True, "lingers": False, "offers": None, "limit": None,
        "refusal": (EACCES, "the error's own remedy"),
    }  # fmt: skip
    return pure_v2(**{**base, **known})


def disabled(**known: object) -> Facts:
    why = ("the kernel was booted with cgroup_disable=memory: no memory limit can be set", "detect's own remedy")
    base: dict[str, object] = {
        "version": "", "controllers": ["cpu"], "above": ["cpu"], "switches": ["cgroup_disable=memory"], "missing": why,
        "enabled": False, "offers": None, "limit": None, "refusal": why,
    }  # fmt: skip
    return pure_v2(**{**base, **known})


def read_only(**known: object) -> Facts:
    why = (f"no memory group can be made: cannot make {V2}/memrun-9-ab12: Read-only file system", "")
    base: dict[str, object] = {"mounts": survey.mounts(DOCKER), "container": "docker", "offers": None, "refusal": why}
    return pure_v2(**{**base, **known})


MACHINES = [hybrid_as_root, pure_v2, not_delegated, disabled, read_only, Facts, facts]


def said(of: Facts) -> dict[str, findings.Line]:
    return {line.what: line for line in findings.examine(of)}


def noes(of: Facts) -> list[str]:
    return [line.what for line in findings.examine(of) if line.ok is False]


@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine_has_a_word_on_everything(machine) -> None:
    lines = findings.examine(machine())
    assert len(lines) == len({line.what for line in lines}) == len(findings.LINES)
    assert lines[-1].what == "conclusion"
    assert all(line.found and "\n" not in line.found for line in lines)
    assert all(not line.remedy for line in lines if line.ok is not False)


@pytest.mark.parametrize("machine", MACHINES[:-2])
def test_every_no_but_the_conclusion_has_a_remedy(machine) -> None:
    assert [line.what for line in findings.examine(machine()) if line.ok is False and not line.remedy] in ([], ["conclusion"])


def test_hybrid_as_root() -> None:
    found = hybrid_as_root()
    assert findings.works(found)
    assert noes(found) == []
    assert said(found)["kernel"].found == "6.12.0, cgroup v1, a v2 tree without memory beside it"
    assert said(found)["mounts"].found.count("cgroup") > 3
    assert "devices" not in said(found)["mounts"].found
    assert said(found)["conclusion"].found == "memrun --limit works here (cgroup v1, pause: yes)"


def test_v2_as_root_in_the_root_group() -> None:
    found = pure_v2()
    assert findings.works(found)
    assert noes(found) == []
    assert said(found)["memory enabled"].ok is None
    assert said(found)["conclusion"].found == "memrun --limit works here (cgroup v2, pause: yes)"


def test_memory_disabled_at_boot_is_told_once_with_its_remedy() -> None:
    found = disabled(loader="grub")
    assert not findings.works(found)
    assert noes(found) == ["kernel", "controllers", "boot switches", "memory enabled", "new groups", "conclusion"]
    remedy = "sudo sed -i 's/ *cgroup_disable=memory//' /etc/default/grub && sudo update-grub && sudo reboot"
    assert {said(found)[what].remedy for what in noes(found)[:-1]} == {remedy}
    assert doctor._as_text(findings.examine(found)).count(remedy) == 1
    assert said(found)["conclusion"].found.endswith("booted with cgroup_disable=memory: no memory limit can be set")


def test_disable_that_was_overruled_takes_nothing_away() -> None:
    found = pure_v2(switches=["cgroup_disable=memory", "cgroup_enable=memory"])
    assert said(found)["boot switches"].ok


@pytest.mark.parametrize(
    ("loader", "container", "start"),
    [
        ("grubby", "", "sudo grubby --update-kernel=ALL --remove-args="),
        ("", "", "take out"),
        ("grub", "docker", "on the machine"),
    ],
)
def test_remedies_for_the_boot_suit_the_machine(loader: str, container: str, start: str) -> None:
    assert said(disabled(loader=loader, container=container))["boot switches"].remedy.startswith(start)


def test_memory_not_enabled_by_default() -> None:
    found = disabled(switches=[], missing=("x", "y"), loader="grubby")
    assert said(found)["memory enabled"].remedy == "sudo grubby --update-kernel=ALL --args='cgroup_enable=memory' && sudo reboot"


def test_memory_on_a_v1_hierarchy_that_is_not_mounted() -> None:
    found = disabled(switches=[], enabled=True, bound=True)
    assert "-t cgroup -o memory" in said(found)["kernel"].remedy


def test_nothing_mounted_at_all() -> None:
    found = disabled(switches=[], enabled=None, mounts=[], own=None, top="", controllers=[], above=[])
    assert {"kernel", "mounts", "controllers", "own group", "new groups"} <= set(noes(found))
    assert said(found)["mounts"].remedy == "detect's own remedy"


def test_user_without_delegation_on_systemd() -> None:
    found = not_delegated()
    assert not findings.works(found)
    assert noes(found) == ["new groups", "delegation", "lingering", "conclusion"]
    assert said(found)["new groups"].remedy == findings.USER_SCOPE
    assert said(found)["lingering"].remedy == "sudo loginctl enable-linger alice"
    assert said(found)["pause"].ok is None


def test_user_without_a_user_manager_is_told_all_steps_in_order() -> None:
    steps = said(not_delegated(bus=False, announced=False))["new groups"].remedy.splitlines()
    assert steps == ["sudo loginctl enable-linger alice"]


def test_cron_and_su_have_a_bus_that_is_found_all_the_same() -> None:
    found = said(not_delegated(announced=False))
    assert found["user bus"].found == "at /run/user/1000, found without XDG_RUNTIME_DIR"
    assert found["user bus"].ok
    assert found["new groups"].remedy == findings.USER_SCOPE


def test_user_without_systemd_is_let_in_by_root() -> None:
    found = not_delegated(systemd=False, lingers=None, enter="sudo sh -c '...'")
    assert said(found)["new groups"].remedy == "sudo sh -c '...'"
    assert said(found)["user bus"].ok is None


def test_systemd_delegates_no_memory_on_v1() -> None:
    found = hybrid_as_root(uid=1000, user="alice", systemd=True, refusal=(EACCES, ""), offers=None, enter="for d in ...")
    assert said(found)["new groups"].remedy == "for d in ..."


def test_memory_that_was_not_handed_down() -> None:
    found = not_delegated(version="", controllers=["pids"], missing=("not enabled for memrun's own group", ""))
    assert said(found)["controllers"].found == "pids; memory was not handed down to memrun's own group"
    assert said(found)["controllers"].remedy == said(found)["kernel"].remedy == findings.USER_SCOPE


def test_root_among_others_gets_a_scope() -> None:
    busy = (f"no memory group can be made: cannot write '+memory' to {V2}/a: Device or resource busy", "")
    assert said(pure_v2(systemd=True, refusal=busy, offers=None))["new groups"].remedy == findings.ROOT_SCOPE
    assert said(pure_v2(enter="sh -c '...'", refusal=busy, offers=None))["new groups"].remedy == "sh -c '...'"


@pytest.mark.parametrize(
    ("container", "version", "remedy"),
    [
        ("docker", "v2", "docker run --security-opt writable-cgroups=true"),
        ("docker", "v1", "docker run --privileged"),
        ("podman", "v2", "podman run --security-opt unmask=/sys/fs/cgroup"),
        ("podman", "v1", "podman run --privileged"),
        ("kubernetes", "v2", "in the pod's container"),
        ("", "v2", "sudo mount -o remount,bind,rw /sys/fs/cgroup"),
    ],
)
def test_read_only_hierarchies(container: str, version: str, remedy: str) -> None:
    found = read_only(container=container, version=version)
    assert noes(found) == ["mounts", "new groups", "conclusion"]
    assert "read-only" in said(found)["mounts"].found
    assert said(found)["mounts"].remedy.startswith(remedy)
    assert said(found)["new groups"].remedy == said(found)["mounts"].remedy


def test_pressure_off() -> None:
    found = pure_v2(psi=False, switches=["psi=0"], offers=offers(pressure=""), loader="grubby")
    assert findings.works(found)
    assert noes(found) == ["boot switches", "job pressure", "host pressure"]
    assert said(found)["host pressure"].remedy == "sudo grubby --update-kernel=ALL --remove-args='psi=0' && sudo reboot"
    assert "--args='psi=1'" in said(pure_v2(psi=None, loader="grubby"))["host pressure"].remedy


def test_swap_that_is_not_counted() -> None:
    found = hybrid_as_root(swap=1 << 30, switches=["swapaccount=0"], offers=offers(swap=""), loader="grub")
    assert findings.works(found)
    assert noes(found) == ["boot switches", "swap limits"]
    assert "swappiness" in said(found)["swap limits"].found
    assert "s/ *swapaccount=0//" in said(found)["swap limits"].remedy
    assert "1G" in said(pure_v2(swap=1 << 30, offers=offers(swap="")))["swap limits"].found


def test_swap_is_no_matter_where_there_is_none_or_where_the_switch_does_nothing() -> None:
    assert said(hybrid_as_root(offers=offers(swap="")))["swap limits"].ok is None
    assert noes(pure_v2(switches=["swapaccount=0"], swap=1 << 30)) == []


def test_old_kernels() -> None:
    found = pure_v2(offers=offers(peak="", kill=""))
    assert noes(found) == ["kill at once", "peak"]
    assert said(found)["peak"].remedy == "Linux 5.19 or newer"


def test_no_pause() -> None:
    unheld = hybrid_as_root(offers=offers(hold="", notice=""))
    assert noes(unheld) == ["pause", "limit notices"]
    assert findings.works(unheld)
    assert said(unheld)["conclusion"].found.endswith("(cgroup v1, pause: no)")
    alone = hybrid_as_root(hybrid=False, places=(V1,), pauses=False, offers=offers(freeze="", kill=""))
    assert noes(alone) == ["pause", "kill at once"]
    assert said(alone)["pause"].remedy == said(alone)["kill at once"].remedy == f"sudo sh -c '{survey.MOUNT_V2}'"
    shut_out = hybrid_as_root(uid=1000, user="alice", pauses=False, offers=offers(freeze="", kill=""), enter="for d in ...")
    assert said(shut_out)["pause"].remedy == said(shut_out)["kill at once"].remedy == "for d in ..."


def test_processes_that_cannot_be_watched_cannot_be_run() -> None:
    found = pure_v2(pidfd=False)
    assert not findings.works(found)
    assert noes(found) == ["pidfd", "conclusion"]
    assert "pidfd" in said(found)["conclusion"].found


def test_kernel_log() -> None:
    assert "sysctl" in said(not_delegated(log=False, restricted=1))["kernel log"].remedy
    assert "dmesg_restrict" in said(not_delegated(log=False, restricted=1))["kernel log"].found
    assert "docker" in said(read_only(log=False))["kernel log"].remedy


def test_enclosing_limit() -> None:
    assert said(pure_v2(enclosing=256 << 20))["enclosing limit"].found.startswith("256M")


def test_what_is_left_over_is_counted() -> None:
    found = pure_v2(left=[Leftover("memrun-9-ab12", [f"{V2}/memrun-9-ab12"], [10, 11]), Leftover("memrun-8-0000", [])])
    assert said(found)["left over"].found == "memrun-9-ab12 (2 processes), memrun-8-0000"
    assert said(found)["left over"].remedy == "memrun doctor --sweep"
    assert findings.works(found)


# --- the shape of what is printed


def test_text_is_aligned_and_ends_with_the_conclusion() -> None:
    lines = doctor._as_text(findings.examine(not_delegated())).splitlines()
    assert lines[0] == "ok  kernel           6.12.0, cgroup v2"
    assert lines[lines.index("      " + findings.USER_SCOPE) - 1].startswith("no  new groups       no memory group can be made")
    assert lines[-2].startswith("memrun --limit does not work here: no memory group can be made")
    assert lines[-1].strip() == findings.OTHERWISE
    assert "      (see new groups)" in lines


def test_json_is_a_list_of_findings() -> None:
    found = json.loads(doctor._as_json(findings.examine(not_delegated())))
    assert all(set(line) == {"what", "ok", "found", "remedy"} for line in found)
    assert {line["ok"] for line in found} == {True, False, None}
    assert found[-1]["what"] == "conclusion"


@pytest.mark.parametrize(("machine", "status"), [(pure_v2, 0), (disabled, 1)])
def test_exit_status(machine, status: int, monkeypatch, capsys) -> None:
    monkeypatch.setattr(doctor, "gather", machine)
    assert doctor.main([]) == status
    assert doctor.main(["--json"]) == status
    text, _, array = capsys.readouterr().out.partition("\n[")
    assert text.startswith("ok  kernel" if status == 0 else "no  kernel")
    assert json.loads("[" + array)


def test_gather_survives_whatever_a_run_meets(monkeypatch) -> None:
    def fail(_facts: Facts) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(doctor, "_probe", fail)
    monkeypatch.setattr(survey, "look", pure_v2)
    assert doctor.gather().refusal == ("[Errno 38] Function not implemented", "")


def test_help_and_unknown_words(capsys) -> None:
    assert doctor.main(["--help"]) == 0
    assert "--sweep" in capsys.readouterr().out
    with pytest.raises(UsageError, match="Did you mean --json"):
        doctor.main(["--jsom"])
    with pytest.raises(UsageError, match="See memrun doctor --help"):
        doctor.main(["42"])


def test_a_sweep_with_nothing_to_do(monkeypatch, capsys) -> None:
    monkeypatch.setattr(survey, "look", pure_v2)
    assert doctor.main(["--sweep"]) == 0
    assert capsys.readouterr().out == "ok  left over  nothing\n"


def test_a_sweep_that_meets_resistance(monkeypatch, capsys, tmp_path) -> None:
    class Hand:
        def clench(self) -> None:
            (tmp_path / "memrun-8-0000").rmdir()

    left = [Leftover(name, [str(tmp_path / name)], [10]) for name in ("memrun-8-0000", "memrun-9-ab12")]
    for found in left:
        os.mkdir(found.places[0])
    monkeypatch.setattr(survey, "look", lambda: pure_v2(left=left))
    monkeypatch.setattr(doctor.hand, "spread", lambda _places: Hand())
    assert doctor.main(["--sweep"]) == 1
    out = capsys.readouterr().out
    assert "ok  memrun-8-0000  removed, 1 process in it ended\n" in out
    assert f"no  memrun-9-ab12  could not be removed: {tmp_path}/memrun-9-ab12\n      sudo memrun doctor --sweep\n" in out


# --- what is read


def test_mounts_that_matter() -> None:
    found = survey.mounts(HYBRID)
    assert [(m.point, m.kind, sorted(m.options)) for m in found] == [
        (V1, "cgroup", ["memory"]),
        ("/sys/fs/cgroup/freezer", "cgroup", ["freezer"]),
        ("/sys/fs/cgroup/unified", "cgroup2", []),
    ]
    assert all(m.writable for m in found)
    assert not survey.mounts(DOCKER)[0].writable
    assert not survey.mounts(DOCKER.replace(" ro,", " rw,").replace(" rw,nsd", " ro,nsd"))[0].writable


def test_boot_words_that_matter() -> None:
    line = "root=/dev/sda1 quiet cgroup_disable=memory swapaccount=0 psi=1 psiX cgroup_enable=memory,cpuset -- init\n"
    assert survey.switches(line) == ["cgroup_disable=memory", "swapaccount=0", "psi=1", "cgroup_enable=memory,cpuset"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\nmemory\t4\t11\t1\n", (True, True)),
        ("memory\t0\t91\t1\n", (True, False)),
        ("memory\t0\t95\t0\n", (False, False)),
        ("cpu\t1\t1\t1\n", (None, False)),
        ("", (None, False)),
        ("memory\n", (None, False)),
    ],
)
def test_list_of_controllers(text: str, expected: tuple[bool | None, bool]) -> None:
    assert survey.memory_listed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Filename\tType\tSize\tUsed\tPriority\n/dev/zram0 partition 262140 0 100\n/swap\\040file file 4 0 -2\n", 262144 << 10),
        ("Filename\tType\tSize\tUsed\tPriority\n", 0),
        ("", 0),
        ("Filename\nodd line\n", 0),
    ],
)
def test_swap_total(text: str, expected: int) -> None:
    assert survey.swap_total(text) == expected


@pytest.mark.parametrize(
    ("name", "pid"),
    [
        ("memrun-123-ab12", 123),
        ("memrun-self-123", 0),
        ("memrun-123-xyzw", 0),
        ("memrun-123-ab123", 0),
        ("memrun-123", 0),
        ("memrun--1-ab12", 0),
        ("memrun-0-ab12", 0),
        ("memrun-\u0661-ab12", 0),
        ("other-123-ab12", 0),
        ("memrun-1-ab12-c", 0),
    ],
)
def test_names_that_memrun_gives(name: str, pid: int) -> None:
    assert remains._pid_of(name) == pid


def test_a_run_directory_is_left_over_when_neither_memrun_nor_its_hand_lives(tmp_path, monkeypatch) -> None:
    dead = 2**22 + 1  # above the largest pid
    names = [
        f"memrun-{os.getpid()}-ab12",
        f"memrun-{dead}-ab12",
        f"memrun-{dead}-cd34",
        "memrun-1-0000",
        "memrun-self-1",
        "other",
    ]
    for place in ("memory", "unified"):
        for name in names:
            (tmp_path / place / name / "job.1").mkdir(parents=True)
    (tmp_path / "memory" / names[1] / "job.1" / "cgroup.procs").write_text("10\n11\n")
    (tmp_path / "unified" / names[1] / "job.1" / "cgroup.procs").write_text("11\n")
    monkeypatch.setattr(remains, "hands", lambda: {names[2]})
    monkeypatch.setattr(remains, "_is_memrun", lambda pid: pid in {os.getpid(), 1})
    found = remains.leftovers([str(tmp_path / "memory"), str(tmp_path / "unified"), str(tmp_path / "nowhere")])
    assert [one.name for one in found] == [names[1]]
    assert found[0].pids == [10, 11]
    assert found[0].places == (str(tmp_path / "memory" / names[1]), str(tmp_path / "unified" / names[1]))


def test_a_directory_with_processes_of_another_pid_namespace_is_not_ours_to_judge(tmp_path) -> None:
    place = tmp_path / f"memrun-{2**22 + 1}-ab12"
    place.mkdir()
    (place / "cgroup.procs").write_text("0\n")
    assert remains.leftovers([str(tmp_path)]) == []


def test_who_may_be_a_memrun() -> None:
    assert remains._is_memrun(os.getpid())  # a Python: its program may use the API
    assert not remains._is_memrun(2**22 + 1)


def test_places_are_told_once() -> None:
    setup = Setup()
    setup.memory = setup.unified = V2
    assert survey.places(setup) == (V2,)


def test_the_way_in_that_root_opens() -> None:
    found = hybrid_as_root(uid=1000, gid=1000, user="alice")
    assert survey.enter(found).startswith(
        f"for d in {V1}/job/alice /sys/fs/cgroup/unified/alice /sys/fs/cgroup/freezer/alice; do "
    )
    user = survey.enter(pure_v2(uid=1000, gid=100, user="1000", own=f"{V2}/a"))
    assert user.startswith("sudo sh -c '")
    assert "setpriv --reuid 1000 --regid 100 --clear-groups memrun" in user
    assert "rest" not in user
    root = survey.enter(pure_v2())
    assert root.startswith("sh -c '")
    assert "> rest/cgroup.procs" in root
    assert survey.enter(Facts()) == ""


def test_containers_by_their_marks(monkeypatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert survey.container() == "kubernetes"
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    monkeypatch.setenv("container", "lxc")
    for mark, kind in (("/run/.containerenv", "podman"), ("/.dockerenv", "docker"), ("", "lxc")):
        monkeypatch.setattr(survey.os.path, "exists", lambda path, mark=mark: path == mark)
        monkeypatch.setattr(survey.ground, "text", lambda _path: "")
        assert survey.container() == kind


def test_look_never_fails_on_a_machine_that_says_nothing(monkeypatch) -> None:
    monkeypatch.setattr(survey.ground, "text", lambda _path: "")
    monkeypatch.setattr(remains, "names", lambda _place: [])
    monkeypatch.setattr(survey.detect, "look", Setup)
    monkeypatch.setattr(survey.detect, "missing", lambda _setup: ("nothing", "mend it"))
    found = survey.look()
    assert found.version == ""
    assert found.own is None
    found.refusal = found.missing
    assert not findings.works(found)
    assert said(found)["kernel"].remedy == "mend it"
