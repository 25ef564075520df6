"""Calls into the C library, without the ctypes package."""

from __future__ import annotations

import errno
import gc
import os
import resource

import pytest

from memrun import clib, news


def test_a_call_leaves_nothing_behind():
    """The midwife makes some for every job, and collects no garbage."""
    call = clib.function("syscall")
    assert call is not None
    call(clib.long(39))
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            call(clib.long(39), clib.long(1 << 40))  # getpid, on x86_64
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_failure_is_negative():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fd = os.dup(0)
    os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (fd, hard))
    try:
        with pytest.raises(OSError, match="signalfd") as e:
            news.signal_fd()
        assert e.value.errno == errno.EMFILE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
