"""The other side of a memrun's socket may be gone by the time that it is asked."""

from __future__ import annotations

import socket

import pytest

from memrun import clients
from memrun.errors import MemrunError


def test_one_that_ended_after_it_was_found(tmp_path):
    with pytest.raises(MemrunError, match="has just ended"):
        clients.ask(str(tmp_path / "7.sock"), {"verb": "wait"})
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(str(tmp_path / "8.sock"))  # its memrun was killed: nobody listens
    with pytest.raises(MemrunError, match="has just ended"):
        clients.ask(str(tmp_path / "8.sock"), {"verb": "wait"})
