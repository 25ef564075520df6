"""The family of errors, and the statuses that the outside world counts on."""

from __future__ import annotations

import errno

import pytest
import trio

from memrun import cli, errors


def family() -> list[type[errors.MemrunError]]:
    kinds = [errors.MemrunError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return kinds


def test_the_statuses_are_those_of_shells_and_timeout():
    assert (errors.SUCCESS, errors.TIMED_OUT, errors.FAILED) == (0, 124, 125)
    assert (errors.LOCKED, errors.LockedError("taken").status) == (75, 75)
    assert (errors.StoppedError("", 2).status, errors.StoppedError("", 15).status) == (130, 143)
    assert (errors.NOT_EXECUTABLE, errors.NOT_FOUND) == (126, 127)
    assert (errors.died_of(9), errors.died_of(15), errors.died_of(2)) == (137, 143, 130)


def test_one_sentence_and_a_remedy():
    assert str(errors.MemrunError("the roof is open")) == "the roof is open"
    assert str(errors.MemrunError("the roof is open", "Close it")) == "the roof is open. Close it"


@pytest.mark.parametrize("kind", family(), ids=lambda k: k.__name__)
def test_every_one_of_them_ends_memrun_with_a_status(kind):
    assert issubclass(kind, errors.MemrunError)
    assert kind.status == (errors.LOCKED if kind is errors.LockedError else errors.FAILED)
    assert kind.__doc__


def test_a_group_error_names_operation_path_and_data():
    e = errors.GroupError("write", "/g/limit", errno.EINVAL, "12x")
    assert str(e) == "cannot write '12x' to /g/limit: Invalid argument"
    assert (e.op, e.path, e.errno, e.data) == ("write", "/g/limit", errno.EINVAL, "12x")
    assert (
        str(errors.GroupError("open", "/g", errno.EACCES, remedy="Try it as root"))
        == "cannot open /g: Permission denied. Try it as root"
    )


def test_a_launch_error_brings_its_own_status():
    assert errors.LaunchError("gone", 127).status == 127
    assert errors.LaunchError("gone", 126, "Look for it").remedy == "Look for it"


def test_an_error_survives_being_raised_as_any_other():
    with pytest.raises(errors.MemrunError) as e:
        raise errors.UsageError("no", "Yes")
    assert (e.value.what, e.value.remedy) == ("no", "Yes")
    assert "no" in repr(e.value)


def raised(e, cause=None):
    """As an except clause gets it."""
    try:
        raise e from cause
    except BaseException as caught:
        return caught


async def raised_later(e):
    raise e


def test_what_the_kernel_refuses_an_event_loop_is_no_mistake_of_ours():
    full = OSError(errno.ENOSPC, "No space left on device")

    async def fail_twice():
        async with trio.open_nursery() as nursery:
            for e in (KeyError(3), full):
                nursery.start_soon(raised_later, e)

    with pytest.raises(Exception, match="nursery") as group:
        trio.run(fail_twice)
    assert errors.expected(group.value) is None
    for cause in (full, group.value):
        told = errors.expected(raised(trio.TrioInternalError("please file a bug"), cause))
        assert str(told) == "the system refused: No space left on device"
    assert errors.expected(raised(trio.TrioInternalError("please file a bug"))) is None
    assert "no memory left" in str(errors.expected(MemoryError()))


@pytest.mark.parametrize("trace", ["", "1"])
def test_a_mistake_of_ours_is_a_sentence_with_a_place_and_no_status_of_the_commands(monkeypatch, capfd, trace):
    def fail(*_given):
        raise ValueError("odd")

    monkeypatch.setenv("MEMRUN_TRACEBACK", trace)
    monkeypatch.setattr(cli, "_dispatch", fail)
    monkeypatch.setattr(cli.signals, "block", lambda _numbers: frozenset())
    assert cli.main([]) == 125
    said = capfd.readouterr().err
    assert ("Traceback" in said) is bool(trace)
    assert "memrun: a mistake of memrun's own (ValueError: odd, test_errors.py line " in said.splitlines()[-1]
    assert "MEMRUN_TRACEBACK=1" in said
