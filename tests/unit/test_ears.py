"""Whose descriptors they are, and who hears them, also where the kernel has no more to give."""

from __future__ import annotations

import errno
import os
import select

import pytest

from memrun.cgroup.ears import READABLE, Ears


class Full:
    """As an epoll that takes so many."""

    def __init__(self, room):
        self.room, self.heard = room, []

    def register(self, fd, _mask, /):
        if len(self.heard) == self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.heard.append(fd)

    def unregister(self, fd, /):
        self.heard.remove(fd)


def descriptor():
    return os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


@pytest.mark.parametrize("room", [0, 1])
def test_all_of_them_are_told_of_or_none(room):
    ears, full = Ears(), Full(room)
    fds = [ears.add(descriptor(), READABLE) for _ in range(2)]
    with pytest.raises(OSError, match="No space"):
        ears.tell(full)
    assert full.heard == []
    assert select.select([ears.fileno()], [], [], 0)[0], "somebody else hears them afterwards"
    ears.close()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


def test_one_that_cannot_be_heard_is_not_kept_open():
    ears, full = Ears(), Full(1)
    ears.add(descriptor(), READABLE)
    ears.tell(full)
    fd = descriptor()
    with pytest.raises(OSError, match="No space"):
        ears.add(fd, READABLE)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    ears.close()
    assert full.heard == []
