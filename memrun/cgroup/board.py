"""What memrun and the process that samples for it have in common: a page of numbers, each written by one of them, or idempotent."""

from __future__ import annotations

import mmap

NONE = -1
FIELDS = (
    "limit",  # bytes; -1 is none
    "extra",  # bytes that are lent on top
    "hold",  # at the limit: stop it instead of killing
    "together",  # one killed, all killed
    "turn",  # counts what was decided anew: whoever acts on an older look takes it back
    "quit",  # the sampler may go
    "frozen",  # memrun has decided that nobody is to run
    "held",  # stopped at the limit: the turn of which that is true, and one more
    "holds", "kills", "own",  # how often
    "usage", "peak", "live",  # as of the last look
    "big_pid", "big_size",  # the largest process at the last limit event
)  # fmt: skip
ROOTS = 64  # processes that were started in it
NAME = 64  # bytes


class Board:
    """`board["limit"]`. Shared with whatever is forked after it was made."""

    __slots__ = ("_map", "_numbers")

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, mmap.PAGESIZE)
        self._numbers = memoryview(self._map)[: 8 * (len(FIELDS) + 2 * ROOTS)].cast("q")

    def __getitem__(self, field: str) -> int:
        return self._numbers[FIELDS.index(field)]

    def __setitem__(self, field: str, value: int) -> None:
        self._numbers[FIELDS.index(field)] = value

    @property
    def allowed(self) -> int | None:
        """Bytes that it may have now."""
        return None if self["limit"] == NONE else self["limit"] + self["extra"]

    @property
    def held(self) -> bool:
        """Whether it is stopped at the limit as it is now: what was decided anew since (`turn`) ends that, whoever writes first."""
        return self["held"] == self["turn"] + 1

    @property
    def still(self) -> bool:
        """Whether nobody is to run."""
        return bool(self["frozen"]) or self.held

    def hold(self, turn: int) -> None:
        """At its limit, as of a look that began in that turn; news, if that is still so when it is heard."""
        self["held"] = turn + 1
        self["holds"] += 1

    def roots(self) -> dict[int, int]:
        """pid -> when it was born, of who was started in it."""
        flat = self._numbers[len(FIELDS) :].tolist()
        return {pid: born for pid, born in zip(flat[::2], flat[1::2], strict=True) if pid}

    def admit(self, pid: int, born: int) -> None:
        """One more; it takes the place of one that is free."""
        at = next(at for at in range(len(FIELDS), len(self._numbers), 2) if self._numbers[at] in {0, pid})
        self._numbers[at + 1] = born
        self._numbers[at] = pid

    @property
    def big_name(self) -> str:
        """What the largest process was called."""
        return self._map[-NAME:].rstrip(b"\0").decode(errors="replace")

    @big_name.setter
    def big_name(self, name: str) -> None:
        self._map[-NAME:] = name.encode()[:NAME].ljust(NAME, b"\0")

    def close(self) -> None:
        """Let go of the page."""
        self._numbers.release()
        self._map.close()
