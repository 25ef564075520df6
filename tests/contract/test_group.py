"""What memrun.cgroup promises, held by v1, v2 and the fake alike."""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from contract import fake

from memrun import cgroup, launch
from memrun.cgroup import Order, Wish, detect, files, limits1, sampled, v1group, v2group
from memrun.errors import GroupError, LimitError, MemrunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memrun.cgroup import Group, Host

M = 1 << 20
PATIENCE = 20.0  # seconds, for what the kernel does in its own time
KINDS = [
    pytest.param("fake"),
    pytest.param("sampled"),
    pytest.param("v1", marks=pytest.mark.v1),
    pytest.param("v2", marks=pytest.mark.v2),
]
KERNELS = KINDS[2:]
exact = pytest.mark.parametrize("kind", [KINDS[0], *KERNELS], indirect=True)  # more than looking now and then can promise
HOSTS = {"fake": fake.Host, "sampled": sampled.Host}
PROGRAM = """
import os, sys
kept = []
def answer(**what): print(__import__("json").dumps(what), flush=True)
answer(ready=os.getpid())
for line in sys.stdin:
    word, _, rest = line.strip().partition(" ")
    if word == "eat":
        kept.append(bytearray(int(rest)))
        for at in range(0, int(rest), 4096): kept[-1][at] = 1
        answer(ate=int(rest))
    elif word == "fork":
        pid = os.fork()
        if not pid: sys.stdin.close(); os.read(3, 1); os._exit(0)
        answer(forked=pid)
    elif word == "move":
        with open(rest, "w") as f: f.write("0")
        answer(moved=rest)
    elif word == "end":
        os._exit(int(rest))
"""


class Child:
    """A process in a group that does what it is told, and answers when it has."""

    def __init__(self, group: Group) -> None:
        self.group = group
        theirs_in, self._tell = os.pipe()
        self._told, theirs_out = os.pipe()
        gate, self._gate = os.pipe()
        os.set_inheritable(gate, True)
        order = launch.Order([sys.executable, "-I", "-S", "-c", PROGRAM.replace("os.read(3,", f"os.read({gate},")])
        order.procs_fds = group.procs_fds()
        order.stdin, order.stdout = theirs_in, theirs_out
        try:
            self.process = launch.launch(order)
        finally:
            for fd in (theirs_in, theirs_out, gate):
                os.close(fd)
        assert self.hear()["ready"] == self.pid

    @property
    def pid(self) -> int:
        return self.process.pid

    def say(self, text: str) -> None:
        os.write(self._tell, f"{text}\n".encode())

    def hear(self, seconds: float = PATIENCE) -> dict[str, Any]:
        """Its next answer; {} when there is none, or it is gone."""
        if not ready(self._told, seconds):
            return {}
        line = os.read(self._told, 4096)
        return json.loads(line) if line else {}

    def ask(self, text: str) -> dict[str, Any]:
        self.say(text)
        return self.hear()

    def eat(self, size: int) -> dict[str, Any]:
        """Take memory; {} if that was its end."""
        if isinstance(self.group, fake.Group):
            return {"ate": size} if self.group.charge(self.pid, size) else {}
        return self.ask(f"eat {size}")

    def want(self, size: int) -> None:
        """Begin to take memory, which may take its time."""
        if isinstance(self.group, fake.Group):
            self.group.charge(self.pid, size)
        self.say(f"eat {size}")

    def close(self) -> None:
        for fd in (self._tell, self._told, self._gate):
            os.close(fd)
        self.process.close()


def ready(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(int(seconds * 1000)))


def ended(child: Child) -> bool:
    """Wait for its end, and reap it."""
    return ready(child.process.pidfd, PATIENCE) and child.process.reap() is not None


def until(true: Callable[[], object], fd: int) -> bool:
    """Look again at each notice, and now and then: what is promised "eventually"."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            return False
        ready(fd, 0.02)
    return True


def quiet(group: Group) -> bool:
    """Whether the descriptor becomes quiet once everything was heard (v2 sends late notices within 10 ms)."""
    for _ in range(20):
        group.hear()
        if not ready(group.notice_fd(), 0.05):
            return True
    return False


def prepared(group: Group, limit: int) -> None:
    """What would hold up a raise to this limit is done."""
    while (work := group.foresee((limit,))) is not None:
        for act in work:
            act()


def open_files() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def host(kind) -> Iterator[Host]:
    made: Host = HOSTS[kind]() if kind in HOSTS else cgroup.open_host(os.getpid())
    made.begin()
    yield made
    assert made.end(), "something was left"


class Places:
    """Makes groups and children, and takes them down after the test."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.groups: list[Group] = []
        self.children: list[Child] = []

    def group(self, limit: int | None = 64 * M, name: str = "job.1", **asked: object) -> Group:
        wish = Wish(limit)
        for key, value in asked.items():
            setattr(wish, key, value)
        self.groups.append(self.host.create(name, wish))
        return self.groups[-1]

    def child(self, group: Group) -> Child:
        self.children.append(Child(group))
        return self.children[-1]

    def close(self) -> None:
        for group in self.groups:
            group.thaw()
            group.kill()
        for child in self.children:
            assert ended(child)
            child.close()
        for group in self.groups:
            assert until(group.remove, group.notice_fd())
            group.close()


@pytest.fixture
def places(host) -> Iterator[Places]:
    made = Places(host)
    yield made
    made.close()


class TestLimit:
    @pytest.mark.parametrize("limit", [M, 5 * M, 64 * M, (1 << 60), None])
    def test_reads_back(self, places, limit):
        group = places.group(limit)
        assert group.limit == limit
        assert group.tally().limit == limit

    def test_is_rounded_down_to_pages(self, places):
        assert places.group(5 * M + 1).limit == 5 * M
        assert places.group(5 * M - 1, "job.2").limit == 5 * M - resource.getpagesize()

    def test_goes_up_and_down_and_away(self, places):
        group = places.group(8 * M)
        for limit in (64 * M, 4 * M, 6 * M + 100, None, 16 * M, 16 * M, None, None):
            got = group.set_limit(limit)
            assert got == group.limit == (None if limit is None else limit // 4096 * 4096)

    @exact
    def test_swap_follows(self, places):
        group = places.group(8 * M, swap=4 * M)
        for limit in (64 * M, 4 * M, None, 2 * M):
            assert group.set_limit(limit) == limit
        assert places.group(8 * M, "job.2", swap=None).set_limit(16 * M) == 16 * M

    @exact
    def test_soft_may_be_asked_for(self, places):
        assert places.group(8 * M, soft=2 * M).limit == 8 * M

    def test_what_the_kernel_refuses_is_an_error_and_changes_nothing(self, places):
        group = places.group(8 * M)
        with pytest.raises(GroupError) as e:
            group.set_limit(-5)
        assert "-5" in str(e.value)
        assert group.limit == 8 * M
        assert group.tally().limit == 8 * M

    @exact
    def test_holds_a_process_to_it(self, places):
        group = places.group(48 * M)
        child = places.child(group)
        assert child.eat(8 * M) == {"ate": 8 * M}
        assert child.eat(64 * M) == {}
        assert ended(child)

    def test_raised_it_lets_the_process_have_more(self, places):
        group = places.group(24 * M)
        child = places.child(group)
        assert group.set_limit(96 * M) == 96 * M
        assert child.eat(48 * M) == {"ate": 48 * M}
        assert group.usage() >= 48 * M


class TestCreation:
    @pytest.mark.parametrize("name", ["a/b", "..", ".", ""])
    def test_of_an_impossible_name_leaves_nothing(self, host, name):
        before = open_files()
        with pytest.raises(MemrunError):
            host.create(name, Wish(8 * M))
        assert open_files() == before  # and host.end() says that there is nothing else

    @pytest.mark.parametrize("limit", [-5])
    def test_with_an_impossible_limit_leaves_nothing(self, host, limit):
        before = open_files()
        with pytest.raises(MemrunError):
            host.create("job.1", Wish(limit))
        assert open_files() == before
        again = host.create("job.1", Wish(8 * M))  # the name is free
        assert again.remove()
        again.close()

    @exact
    def test_read_back_as_something_else_leaves_nothing(self, host, kind, monkeypatch):
        if kind == "fake":
            pytest.skip("there is no kernel in it that could say something else")
        before = open_files()
        monkeypatch.setattr(limits1 if kind == "v1" else v2group, "number", lambda _: 12345)
        with pytest.raises(LimitError, match="12345"):
            host.create("job.1", Wish(8 * M))
        assert open_files() == before
        assert not os.path.exists(f"{host.places()[0]}/job.1")

    def test_of_a_name_that_is_taken_leaves_the_first_alone(self, places):
        group = places.group(8 * M)
        child = places.child(group)
        before = open_files()
        with pytest.raises(GroupError):
            places.host.create("job.1", Wish(8 * M))
        assert open_files() == before
        assert group.pids() == [child.pid]
        assert group.limit == 8 * M

    @pytest.mark.parametrize("name", ["a,b.1", "a=b.1", "größe.1", "x" * 66, "[m=1].1", "..a", "a@b:c+d"])
    def test_of_every_name_that_people_may_choose(self, places, name):
        group = places.group(8 * M, name)
        assert group.path.endswith(f"/{name}")

    def test_many_side_by_side(self, places):
        groups = [places.group(8 * M, f"job.{n}") for n in range(20)]
        assert len({group.path for group in groups}) == 20


class TestProcesses:
    def test_a_new_group_is_empty(self, places):
        group = places.group()
        assert group.pids() == []
        assert not group.hear().populated

    def test_a_child_is_in_its_group_and_no_other(self, places):
        here, there = places.group(name="a.1"), places.group(name="b.1")
        first, second, third = places.child(here), places.child(here), places.child(there)
        assert here.pids() == sorted([first.pid, second.pid])
        assert there.pids() == [third.pid]
        assert here.hear().populated in {True, None}

    def test_a_child_that_ended_is_not(self, places):
        group = places.group()
        child = places.child(group)
        child.say("end 0")
        assert ready(child.process.pidfd, PATIENCE)
        assert group.pids() == []  # before it is reaped
        assert ended(child)

    def test_kill_empties(self, places):
        group = places.group()
        children = [places.child(group) for _ in range(3)]
        group.kill()
        assert all(ended(child) for child in children)
        assert all(child.process.status == 9 for child in children)
        assert group.pids() == []
        group.kill()  # nobody is there, and that is no error

    def test_kill_reaches_the_frozen(self, places):
        group = places.group()
        child = places.child(group)
        assert until(group.freeze, group.notice_fd())
        group.kill()
        assert ended(child)

    def test_the_last_end_is_a_notice(self, places):
        group = places.group()
        child = places.child(group)
        assert quiet(group)
        child.say("end 0")
        assert ready(child.process.pidfd, PATIENCE)
        if group.hear().populated is None:
            pytest.skip("this kernel does not say when a v1 group is empty")
        assert until(lambda: group.hear().populated is False, group.notice_fd())
        assert quiet(group)


class TestFreezing:
    def test_the_frozen_do_nothing_until_they_are_thawed(self, places):
        group = places.group()
        child = places.child(group)
        assert until(group.freeze, group.notice_fd())
        child.say("eat 4096")
        assert child.hear(0.1) == {}
        assert group.pids() == [child.pid]
        group.thaw()
        assert child.hear() == {"ate": 4096}

    def test_twice_is_once(self, places):
        group = places.group()
        child = places.child(group)
        assert until(group.freeze, group.notice_fd())
        assert until(group.freeze, group.notice_fd())
        group.thaw()
        group.thaw()
        assert child.ask("eat 4096") == {"ate": 4096}

    def test_nobody_is_frozen_at_once(self, places):
        group = places.group()
        assert until(group.freeze, group.notice_fd())
        group.thaw()


class TestNews:
    @exact
    def test_an_oom_kill_is_one(self, places):
        group = places.group(32 * M)
        child = places.child(group)
        fd = group.notice_fd()
        assert group.notice_fd() == fd
        assert quiet(group)
        assert group.hear().kills == 0
        assert child.eat(64 * M) == {}
        assert ready(fd, PATIENCE)
        assert until(lambda: group.hear().kills, fd)
        assert group.hear().own >= 1
        assert ended(child)
        assert quiet(group)

    def test_it_is_told_until_it_is_heard(self, places):
        group = places.group(32 * M)
        fd = group.notice_fd()
        child = places.child(group)
        assert quiet(group)
        child.eat(64 * M)
        assert ended(child)
        assert ready(fd, PATIENCE)
        assert ready(fd, PATIENCE)

    def test_a_group_in_peace_has_none(self, places):
        group = places.group()
        child = places.child(group)
        assert quiet(group)
        child.eat(M)
        assert not ready(group.notice_fd(), 0.05)

    def test_those_of_one_are_not_another_s(self, places):
        here, there = places.group(32 * M, "a.1"), places.group(32 * M, "b.1")
        child = places.child(here)
        assert quiet(here)
        assert quiet(there)
        child.eat(64 * M)
        assert ended(child)
        assert ready(here.notice_fd(), PATIENCE)
        assert not ready(there.notice_fd(), 0.05)
        assert there.hear().kills == there.tally().kills == there.tally().own == 0

    @pytest.mark.parametrize("kind", [KERNELS[0]], indirect=True)
    def test_without_a_kill_they_are_held_but_for_a_moment(self, places):
        """v1 gives notice of an OOM before the kill that may follow it, and somebody may free enough in that very moment."""
        group = places.group(32 * M)
        child, fd = places.child(group), group.notice_fd()
        assert quiet(group)
        os.eventfd_write(group._oom, 1)
        assert until(lambda: group.hear().frozen, fd)
        assert until(lambda: not group.hear().frozen, fd)
        assert child.eat(M) == {"ate": M}
        assert (group.hear().kills, group.hear().own) == (0, 1)

    @pytest.mark.parametrize("kind", [KERNELS[0]], indirect=True)
    def test_those_above_are_no_reason_to_hold(self, places):
        """The kernel gives notice of an OOM above to all below it."""
        here, there = places.group(None, "a.1"), places.group(None, "b.1")
        child = places.child(here)
        assert quiet(here)
        assert quiet(there)
        Path(here.path).parent.joinpath("memory.limit_in_bytes").write_text(str(48 * M))
        assert child.eat(64 * M) == {}
        assert ready(there.notice_fd(), PATIENCE)
        assert not there.hear().frozen
        assert there.tally().outer >= 1
        assert there.tally().own == 0


class TestHolding:
    """With `hold`, the limit stops a job instead of killing it, and its work is kept."""

    LIMIT, MORE, WANTED = 48 * M, 160 * M, 64 * M

    def held(self, places: Places) -> tuple[Group, Child]:
        group = places.group(self.LIMIT, hold=True)
        child = places.child(group)
        assert group.reflex() is False
        assert quiet(group)
        child.want(self.WANTED)
        assert until(lambda: group.hear().at_limit, group.notice_fd())
        return group, child

    @exact
    def test_at_the_limit_it_holds_still_and_lives(self, places):
        group, child = self.held(places)
        assert until(group.freeze, group.notice_fd())
        assert child.hear(0.1) == {}
        assert group.pids() == [child.pid]
        assert self.LIMIT // 2 < group.usage() <= self.LIMIT
        assert group.hear().kills == group.tally().kills == 0

    def test_raised_and_thawed_it_goes_on(self, places):
        group, child = self.held(places)
        assert group.set_limit(self.MORE) == self.MORE
        group.thaw()
        assert child.hear() == {"ate": self.WANTED}
        assert group.usage() >= self.WANTED
        assert group.reflex() is False
        assert not group.hear().at_limit

    def test_at_the_next_limit_it_holds_again(self, places):
        group, child = self.held(places)
        group.set_limit(self.MORE)
        group.thaw()
        assert child.hear() == {"ate": self.WANTED}
        child.want(self.MORE)
        assert until(lambda: group.hear().at_limit, group.notice_fd())
        assert group.pids() == [child.pid]
        assert group.tally().kills == 0

    def test_it_is_told_once(self, places):
        group, _ = self.held(places)
        assert group.reflex() is True
        assert not group.hear().at_limit

    @exact
    def test_thawed_without_more_it_is_held_again(self, places):
        group, child = self.held(places)
        group.thaw()
        if isinstance(group, fake.Group):
            assert group.hear().at_limit
        else:
            assert child.hear(0.2) == {}
            assert until(lambda: group.reflex() or group.hear().at_limit, group.notice_fd())
        assert group.pids() == [child.pid]
        assert group.tally().kills == 0

    def test_a_reflex_takes_no_news_away(self, places):
        group = places.group(self.LIMIT, hold=True)
        child = places.child(group)
        assert quiet(group)
        child.want(self.WANTED)
        assert until(group.reflex, group.notice_fd())
        assert group.reflex() is True
        assert group.hear().at_limit

    def test_somebody_else_s_reflex_is_news(self, places):
        group = places.group(self.LIMIT, hold=True)
        group.found_held()
        assert group.hear().at_limit
        assert not group.hear().at_limit
        group.thaw()

    def test_raised_before_anybody_has_heard_that_it_is_held_it_goes_on(self, places):
        group = places.group(self.LIMIT, hold=True)
        child = places.child(group)
        assert quiet(group)
        child.want(self.WANTED)
        assert until(group.reflex, group.notice_fd())
        group.set_limit(self.MORE)
        assert child.hear() == {"ate": self.WANTED}
        assert not group.reflex()
        heard = group.hear()
        assert (heard.at_limit, heard.frozen) == (False, False)

    def test_raised_when_that_was_heard_and_nobody_has_asked_for_it_it_goes_on_too(self, places):
        group, child = self.held(places)
        group.set_limit(self.MORE)
        assert child.hear() == {"ate": self.WANTED}
        assert not group.hear().at_limit

    @exact
    def test_who_was_asked_to_hold_still_does_so_when_it_is_raised(self, places):
        group, child = self.held(places)
        assert until(group.freeze, group.notice_fd())
        group.set_limit(self.MORE)
        assert child.hear(0.1) == {}
        group.thaw()
        assert child.hear() == {"ate": self.WANTED}

    @exact
    def test_raised_too_little_before_anybody_has_heard_of_it_it_is_held_again(self, places):
        group = places.group(self.LIMIT, hold=True)
        child = places.child(group)
        assert quiet(group)
        child.want(self.WANTED)
        assert until(group.reflex, group.notice_fd())
        group.set_limit(self.LIMIT + 2 * M)
        assert until(lambda: group.hear().at_limit, group.notice_fd())
        assert child.hear(0.1) == {}
        group.set_limit(self.MORE)
        group.thaw()
        assert child.hear() == {"ate": self.WANTED}

    def test_raised_before_somebody_else_s_reflex_is_heard_it_goes_on(self, places):
        group = places.group(self.LIMIT, hold=True)
        child = places.child(group)
        assert until(group.freeze, group.notice_fd())
        group.thaw()
        group.found_held()
        group.set_limit(self.MORE)
        assert not group.hear().at_limit
        assert child.eat(self.WANTED) == {"ate": self.WANTED}

    @exact
    def test_what_was_ordered_beforehand_is_done_instead(self, places):
        """Given more by the look that finds it at its limit, if that may be; it goes on by itself, and an order is obeyed once."""
        group = places.group(self.LIMIT, hold=True)
        child = places.child(group)
        assert quiet(group)
        prepared(group, self.MORE)
        group.arm(Order(self.MORE, lambda: True))
        child.want(self.WANTED)
        raised = []
        assert until(lambda: raised.append(group.hear().raised) or raised[-1], group.notice_fd())
        assert raised[-1] == (self.LIMIT, self.MORE)
        assert child.hear() == {"ate": self.WANTED}
        assert group.limit == group.tally().limit == self.MORE
        assert not group.hear().at_limit
        assert not group.reflex()
        child.want(self.MORE)
        assert until(lambda: group.hear().at_limit, group.notice_fd())
        assert group.tally().kills == 0

    def test_what_was_ordered_and_may_not_be_holds_it(self, places):
        group = places.group(self.LIMIT, hold=True)
        child = places.child(group)
        assert quiet(group)
        prepared(group, self.MORE)
        group.arm(Order(self.MORE, lambda: False))
        child.want(self.WANTED)
        assert until(lambda: group.hear().at_limit, group.notice_fd())
        assert group.limit == self.LIMIT
        assert group.pids() == [child.pid]

    def test_an_order_is_void_after_another_raise(self, places):
        group = places.group(16 * M, hold=True)
        child = places.child(group)
        assert quiet(group)
        group.arm(Order(self.MORE, lambda: True))
        group.set_limit(self.LIMIT)
        child.want(self.WANTED)
        assert until(lambda: group.hear().at_limit, group.notice_fd())
        assert group.limit == self.LIMIT

    def test_killed_while_it_is_held(self, places):
        group, child = self.held(places)
        group.kill()
        assert ended(child)
        assert group.pids() == []

    def test_what_is_lent_is_not_the_limit(self, places):
        group, child = self.held(places)
        group.lend()
        assert group.limit == group.tally().limit == self.LIMIT
        group.lend()
        group.thaw()
        assert until(group.freeze, group.notice_fd())
        assert group.limit == self.LIMIT
        assert group.set_limit(self.MORE) == self.MORE
        group.thaw()
        assert child.hear() == {"ate": self.WANTED}

    def test_infinity_holds_nobody(self, places):
        group = places.group(None, hold=True)
        child = places.child(group)
        assert child.eat(32 * M) == {"ate": 32 * M}
        assert group.reflex() is False
        assert not group.hear().at_limit
        assert group.set_limit(16 * M if group.version == "fake" else self.MORE)

    def test_one_that_is_not_to_be_held_never_is(self, places):
        group = places.group(64 * M)
        child = places.child(group)
        child.eat(48 * M)
        assert group.reflex() is False
        assert not group.hear().at_limit


class TestTuning:
    @exact
    @pytest.mark.parametrize(("key", "value"), [("soft", 4 * M), ("soft", None), ("swap", 0), ("swap", 8 * M), ("swap", None)])
    def test_while_it_runs(self, places, key, value):
        group = places.group(32 * M)
        child = places.child(group)
        group.tune(key, value)
        assert group.limit == group.tally().limit == 32 * M
        assert child.ask("eat 4096") == {"ate": 4096}

    @exact
    def test_reclaim_hurts_nobody(self, places, kind):
        group = places.group(64 * M)
        child = places.child(group)
        for size in (None, M):
            try:
                group.reclaim(size)
            except GroupError as e:
                if e.errno != errno.ENOENT:
                    raise
                pytest.skip("this kernel cannot be asked to")
        assert group.limit == group.tally().limit == 64 * M
        assert child.ask("eat 4096") == {"ate": 4096}

    @exact
    def test_peak_and_spare(self, places):
        group = places.group(64 * M)
        child = places.child(group)
        child.eat(16 * M)
        peak, spare = group.peak(), places.host.spare()
        assert peak is None or 16 * M <= peak <= 64 * M
        assert spare is None or spare > 0


class TestFigures:
    def test_of_a_new_group(self, places):
        group = places.group(64 * M)
        t = group.tally()
        assert (t.kills, t.own, t.outer, t.hits, t.nested) == (0, 0, 0, 0, False)
        assert 0 <= t.usage < M
        assert t.peak is None or 0 <= t.peak < M

    def test_usage_need_and_peak(self, places):
        group = places.group(128 * M)
        child = places.child(group)
        before = group.usage()
        child.eat(32 * M)
        assert before + 31 * M <= group.usage() <= 128 * M
        assert 31 * M <= group.need() <= group.usage() + M
        child.say("end 0")
        assert ended(child)
        t = group.tally()
        assert t.usage < 32 * M
        assert t.peak is None or 32 * M <= t.peak <= 128 * M
        assert t.kills == t.own == 0
        assert t.cpu is None or 0 <= t.cpu < 60

    @exact
    @pytest.mark.parametrize("oom_group", [True, False])
    def test_a_kill_at_its_own_limit(self, places, oom_group):
        group = places.group(32 * M, oom_group=oom_group)
        child = places.child(group)
        child.eat(64 * M)
        assert ended(child)
        t = group.tally()
        assert t.kills >= 1
        assert t.own >= 1
        assert t.hits >= 1
        assert not t.nested
        assert t.peak is None or 31 * M <= t.peak <= 32 * M

    def test_a_kill_from_outside_is_none(self, places):
        group = places.group(64 * M)
        child = places.child(group)
        os.kill(child.pid, 9)
        assert ended(child)
        t = group.tally()
        assert (t.kills, t.own, t.outer) == (0, 0, 0)

    def test_counters_outlive_the_processes(self, places):
        group = places.group(32 * M)
        first = places.child(group)
        first.eat(64 * M)
        assert ended(first)
        second = places.child(group)
        assert second.eat(4096) == {"ate": 4096}
        assert group.tally().kills >= 1
        assert group.pids() == [second.pid]


class TestRemoval:
    def test_not_while_somebody_is_in_it(self, places):
        group = places.group()
        child = places.child(group)
        assert group.remove() is False
        assert group.pids() == [child.pid]
        group.kill()
        assert ended(child)
        assert until(group.remove, group.notice_fd())
        assert group.remove()  # gone is removed
        assert not os.path.exists(group.path)

    def test_the_host_s_end_neither(self, places):
        group = places.group()
        child = places.child(group)
        assert places.host.end() is False
        assert group.pids() == [child.pid]

    def test_the_host_s_end_takes_what_is_left(self, host):
        group = host.create("job.1", Wish(8 * M))
        group.close()
        assert host.end()
        host.begin()

    def test_close_lets_go_of_everything_twice_is_once(self, host):
        before = open_files()
        group = host.create("job.1", Wish(8 * M))
        group.procs_fds()
        group.notice_fd()
        group.hear()
        assert group.remove()
        group.close()
        assert open_files() == before
        group.close()
        assert open_files() == before

    def test_what_is_told_of_elsewhere_is_told_of_no_more_once_it_is_closed(self, host):
        """As one of many groups it is heard through somebody else's epoll."""

        class Ear(dict):
            def register(self, fd, mask):
                assert fd not in self
                self[fd] = mask

            def unregister(self, fd):
                os.fstat(fd)  # it is still open
                del self[fd]

        ear = Ear()
        group = host.create("job.1", Wish(8 * M))
        group.tell(ear)
        assert ear
        for fd in ear:
            os.fstat(fd)
        assert group.remove()
        group.close()
        if isinstance(group, (v1group.Group, v2group.Group)):
            assert not ear

    def test_entering_again_leaks_nothing(self, host):
        """Each attempt asks for the descriptors once more."""
        before = open_files()
        group = host.create("job.1", Wish(8 * M))
        group.procs_fds()
        group.procs_fds()
        assert group.remove()
        group.close()
        assert open_files() == before


@pytest.mark.parametrize("kind", KERNELS, indirect=True)
class TestDescriptors:
    """Thousands of groups share what a process may have."""

    def test_a_group_has_two(self, host):
        before = open_files()
        group = host.create("job.1", Wish(8 * M))
        group.procs_fds(alone=True)
        group.birthplace()
        group.shut()
        group.hear()
        assert len(open_files()) <= len(before) + 2
        assert group.remove()
        group.close()

    def test_without_any_left_it_is_held_changed_and_killed_all_the_same(self, places):
        group = places.group()
        child = places.child(group)
        fd, (soft, hard) = group.notice_fd(), resource.getrlimit(resource.RLIMIT_NOFILE)
        files.keep_back()
        taken = [os.open(os.devnull, os.O_RDONLY)]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 8, hard))
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError as e:
            assert e.errno == errno.EMFILE
        try:
            assert until(group.freeze, fd)
            assert group.set_limit(24 * M) == 24 * M
            assert group.hear().populated
            assert group.pids() == [child.pid]
            group.thaw()
            assert detect.own(child.pid)  # v1: where else it may be frozen
            group.kill()
            assert ended(child)
            assert until(lambda: not group.pids(), fd)
            assert group.tally().limit == 24 * M
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            files._wanted[0] = 0
            for fd in [*taken, *files._kept]:
                os.close(fd)
            files._kept.clear()


@pytest.mark.parametrize("kind", KERNELS, indirect=True)
class TestGroupsThatTheJobMade:
    """Below its own, in every hierarchy that it was put into: container runtimes do that, and so do the hostile."""

    NAMES = ("inner", "inner/deeper", ".hidden", "..odd", "with blank")

    @staticmethod
    def parts(places: Places, group: Group) -> list[str]:
        return [f"{place}/{group.path.rpartition('/')[2]}" for place in places.host.places()]

    def make(self, places: Places, group: Group) -> list[str]:
        made = [f"{part}/{name}" for part in self.parts(places, group) for name in self.NAMES]
        for folder in made:
            os.mkdir(folder)
        return made

    def test_are_removed_with_it(self, places):
        group = places.group()
        made = self.make(places, group)
        assert group.remove()
        assert not any(map(os.path.exists, made))
        assert not any(map(os.path.exists, self.parts(places, group)))

    def test_are_removed_though_they_were_locked(self, places):
        group = places.group()
        for folder in reversed(self.make(places, group)):
            os.chmod(folder, 0)
        for folder in self.parts(places, group):
            os.chmod(folder, 0)
        assert group.remove()
        assert not any(map(os.path.exists, self.parts(places, group)))

    @pytest.mark.parametrize("name", NAMES)
    def test_hide_nobody(self, places, name):
        group = places.group()
        made = [folder for folder in self.make(places, group) if folder.endswith(f"/{name}")]
        child = places.child(group)
        for folder in made:
            assert child.ask(f"move {folder}/cgroup.procs")
        assert group.pids() == [child.pid]
        assert group.remove() is False
        group.kill()
        assert ended(child)
        assert until(group.remove, group.notice_fd())

    def test_freeze_and_thaw_with_it(self, places):
        group = places.group()
        self.make(places, group)
        child = places.child(group)
        for part in self.parts(places, group):
            assert child.ask(f"move {part}/inner/deeper/cgroup.procs")
        assert until(group.freeze, group.notice_fd())
        child.say("eat 4096")
        assert child.hear(0.1) == {}
        group.thaw()
        assert child.hear() == {"ate": 4096}

    def test_frozen_by_the_job_itself_they_are_killed_all_the_same(self, places):
        group = places.group()
        self.make(places, group)
        child = places.child(group)
        for part in self.parts(places, group):
            assert child.ask(f"move {part}/inner/cgroup.procs")
            for file, word in (("cgroup.freeze", "1"), ("freezer.state", "FROZEN")):
                if os.path.exists(f"{part}/inner/{file}"):
                    with open(f"{part}/inner/{file}", "w") as f:
                        f.write(word)
                    break
            else:
                continue
            break
        group.kill()
        assert ended(child)
        assert until(group.remove, group.notice_fd())

    def test_have_their_kills_counted(self, places):
        group = places.group(32 * M)
        part = self.parts(places, group)[0]
        os.mkdir(f"{part}/inner")
        child = places.child(group)
        assert child.ask(f"move {part}/inner/cgroup.procs")
        assert child.eat(64 * M) == {}
        assert ended(child)
        t = group.tally()
        assert t.kills >= 1
        assert t.own >= 1

    def test_a_forked_child_is_in_it_too(self, places):
        group = places.group()
        child = places.child(group)
        forked = child.ask("fork")["forked"]
        assert group.pids() == sorted([child.pid, forked])
        child.say("end 0")
        assert ended(child)
        assert group.pids() == [forked]
        assert group.remove() is False
        group.kill()
        assert until(lambda: not group.pids(), group.notice_fd())
        assert until(group.remove, group.notice_fd())


@pytest.mark.parametrize("kind", KERNELS, indirect=True)
class TestHost:
    def test_its_places_are_there_between_begin_and_end(self, kind):
        host = cgroup.open_host(os.getpid())
        before = open_files()
        assert not any(map(os.path.exists, host.places()))
        host.begin()
        assert all(map(os.path.isdir, host.places()))
        assert host.end()
        assert not any(map(os.path.exists, host.places()))
        assert open_files() == before

    def test_two_of_one_process_do_not_meet(self, kind):
        first, second = cgroup.open_host(os.getpid()), cgroup.open_host(os.getpid())
        assert not set(first.places()) & set(second.places())

    def test_what_encloses_us_is_a_limit_or_nothing(self, host):
        limit = host.enclosing()
        assert limit is None or limit > M


@pytest.mark.v1
class TestWithoutAFreezer:
    """v1 with nothing beside it: the kernel alone parks, exactly at the limit."""

    @pytest.fixture
    def bare(self) -> Iterator[Places]:
        host = cgroup.open_host(os.getpid())
        host._beside = []
        host.begin()
        made = Places(host)
        yield made
        made.close()
        host.end()

    def test_it_is_held_at_its_limit_and_goes_on(self, bare):
        group = bare.group(32 * M, hold=True)
        assert not group.can_freeze()
        child = bare.child(group)
        child.want(48 * M)
        assert until(lambda: group.hear().at_limit, group.notice_fd())
        assert 31 * M <= group.usage() <= 32 * M
        group.freeze()
        assert child.hear(0.1) == {}
        group.set_limit(96 * M)
        group.thaw()
        assert child.hear() == {"ate": 48 * M}
        assert not group.reflex()

    def test_thawed_without_more_it_is_still_held(self, bare):
        group = bare.group(32 * M, hold=True)
        child = bare.child(group)
        child.want(48 * M)
        assert until(lambda: group.hear().at_limit, group.notice_fd())
        group.thaw()
        assert until(group.reflex, group.notice_fd())
        group.kill()
        assert ended(child)


@pytest.mark.v2
class TestUnprotected:
    """v2 for who cannot take a job out of the OOM killer's hands: it is frozen first and looked at then."""

    @pytest.fixture
    def bare(self, monkeypatch) -> Iterator[Places]:
        monkeypatch.setattr(cgroup.detect, "may_exempt", lambda: False)
        host = cgroup.open_host(os.getpid())
        host.begin()
        made = Places(host)
        yield made
        made.close()
        host.end()

    @staticmethod
    def frozen(group) -> str:
        return Path(group.path, "cgroup.freeze").read_text().strip()

    def test_it_is_frozen_when_it_is_looked_at(self, bare, monkeypatch):
        group = bare.group(48 * M, hold=True)
        seen, need = [], group.need
        monkeypatch.setattr(group, "need", lambda: seen.append(self.frozen(group)) or need())
        child = bare.child(group)
        assert quiet(group)
        child.want(64 * M)
        assert until(lambda: group.hear().at_limit, group.notice_fd())
        assert set(seen) == {"1"}
        group.set_limit(160 * M)
        group.thaw()
        assert child.hear() == {"ate": 64 * M}

    def test_what_it_does_not_need_is_no_reason_to_hold_it(self, bare, monkeypatch):
        group = bare.group(48 * M, hold=True)
        seen: list[str] = []
        monkeypatch.setattr(group, "need", lambda: seen.append(self.frozen(group)) or 0)
        child = bare.child(group)
        assert quiet(group)
        assert group.wire is not None
        child.want(group.wire)  # and what it is itself: a little beyond the wire, where the kernel hardly slows it
        assert until(lambda: group.hear().at_limit or seen, group.notice_fd())
        assert child.hear() == {"ate": group.wire}
        assert not group.hear().at_limit
        assert self.frozen(group) == "0"
        assert seen[0] == "1"
        assert set(seen[1:]) <= {"0"}  # far from its limit it is not stopped any more for being looked at

    def test_what_may_be_swapped_out_is_left_to_the_kernel_while_it_keeps_up(self, bare, monkeypatch):
        monkeypatch.setattr(cgroup.detect, "swap_free", lambda: 1 << 30)
        group = bare.group(48 * M, hold=True, swap=None)
        wire, seen = group.wire, []
        assert wire is not None
        monkeypatch.setattr(group, "need", lambda: seen.append(1) or wire)
        child = bare.child(group)
        assert quiet(group)
        child.want(wire)
        assert until(lambda: group.hear().at_limit or seen, group.notice_fd())
        assert child.hear() == {"ate": wire}
        assert self.frozen(group) == "0"
        monkeypatch.setattr(group, "need", lambda: wire + 3 * M)  # it does not
        child.want(M)
        assert until(lambda: group.hear().at_limit, group.notice_fd())
