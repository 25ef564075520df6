"""A small process that forks for a large one: what the jobs of a batch are born by.

A fork copies the page tables of who forks, and makes every page that both have a page fault for whoever writes to it next. CPython
writes to most of what it only reads (reference counts), so that after each fork of a supervisor of 40 MB it had a thousand
faults, and a launch was a quarter dearer than it is (measured with CPython 3.11: 1050 faults for each job before, 60 since). The midwife
is forked before the event loop is loaded, does nothing else, and stays small. With CLONE_PARENT those that it brings into the world are
children of the supervisor like all others: reaped by it, and nobody's orphans when the midwife is gone.

She is sent an order (launch.py) and the descriptors that it names. The child itself answers with its pid, before it does anything else: as
it holds her end of the socket until its exec, the end of the socket without an answer means that nobody was born, at whatever
moment she was killed, and that the order may be carried out once more. She ends with the end of her socket, at once
when the supervisor is killed: until then she holds the pipe to the dead man's hand open, so that it never begins before
the last child is through its exec. Whatever she cannot do (0, or she is gone) the supervisor does itself.
"""

from __future__ import annotations

import gc
import os
import pickle
import socket
from typing import TYPE_CHECKING, Any, NoReturn

from memrun import birth, launch, signals

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST = 128 << 10  # bytes of an order: more does not fit into one message
STREAMS = ("stdin", "stdout", "stderr")
CLOEXEC = 0x40000000  # MSG_CMSG_CLOEXEC, which the socket module does not name
NAME = "memrun-midwife"


class Midwife:
    """Our end of it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            self._socket.close()
            _attend(theirs)
        theirs.close()
        launch.Order.deliver = self.deliver

    def deliver(self, order: launch.Order, tell: int) -> int:
        """The pid of a child that is on its way to its exec; 0 where the order is to be carried out by ourselves."""
        fds = [tell, *order.procs_fds, *([order.birthplace] if order.birthplace >= 0 else []), *_streams(order)]
        data = pickle.dumps((order, launch.Order.files, fds))
        if len(data) > MOST:
            return 0
        try:
            socket.send_fds(self._socket, [data], fds)
            said = self._socket.recv(4)
        except OSError:  # "reset" is what is heard where she had not read the order yet
            said = b""
        if not said:  # somebody has killed her
            launch.Order.deliver = None
        return int.from_bytes(said, "little")

    def close(self) -> None:
        """She may go."""
        launch.Order.deliver = None
        self._socket.close()
        os.waitpid(self._pid, 0)


def _streams(order: launch.Order) -> list[int]:
    return [fd for name in STREAMS if (fd := getattr(order, name)) is not None and fd > 2]  # the first three she has herself


def _attend(calls: socket.socket) -> NoReturn:
    try:
        signals.block(signals.every())
        gc.disable()
        launch.call_itself(NAME)
        room = bytearray(MOST)
        while True:
            size, extra, _, _ = calls.recvmsg_into([room], socket.CMSG_SPACE(16 * 4), CLOEXEC)
            if not size:
                break
            _bear(pickle.loads(room[:size]), _descriptors(extra), calls)  # noqa: S301  (from ourselves)
    finally:
        os._exit(0)


def _descriptors(extra: Sequence[tuple[int, int, bytes]]) -> list[int]:
    return [int.from_bytes(data[at : at + 4], "little") for _, _, data in extra for at in range(0, len(data) - len(data) % 4, 4)]


def _bear(said: Any, fds: list[int], calls: socket.socket) -> None:  # noqa: ANN401  (what was pickled)
    order, files, names = said
    launch.Order.files = files
    here = dict(zip(names, fds, strict=True))
    order.procs_fds = tuple(here[fd] for fd in order.procs_fds)
    order.birthplace = here.get(order.birthplace, -1)
    for name in STREAMS:
        setattr(order, name, here.get(getattr(order, name), getattr(order, name)))
    pid, born = birth.for_parent(order.birthplace)
    if pid == 0:
        calls.send(os.getpid().to_bytes(4, "little"))
        launch.become(order, here[names[0]], born=born)
    if pid < 0:
        calls.send(bytes(4))
    for fd in fds:
        os.close(fd)
