"""What happens to jobs, in files of theirs (--events): a line of JSON for each event, as `memrun events --json` prints it, in one write each.

Nobody waits for such a file: what cannot be written at once is left out, and that is said once. The files are those of whom the job is run
as, and are opened with that user's rights. Not more than some are open at a time: a batch may have a thousand of them.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

from memrun.identity import as_whom, look_up, opened_as, own_descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from memrun.identity import Identity
    from memrun.options import Spec

MOST = 16  # open files
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC


class Chronicle:
    """The files of all runs of one memrun."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        self._complain = complain
        self._open: dict[tuple[str, str, str], int] = {}
        self._failed: set[str] = set()

    def take(self, spec: Spec, line: Mapping[str, object]) -> None:
        """One event."""
        if not spec.events:
            return
        data = (json.dumps(line) + "\n").encode()
        try:
            if os.write(self._file(spec), data) < len(data):
                self._failed_at(spec, "there was room for half a line")
        except OSError as e:
            self._failed_at(spec, e.strerror or str(e))

    def close(self) -> None:
        """No more events."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def _file(self, spec: Spec) -> int:
        key = (spec.events, str(spec.user), str(spec.group))
        fd = self._open.pop(key, -1)
        if fd < 0:
            if len(self._open) >= MOST:
                os.close(self._open.pop(next(iter(self._open))))
            fd = _opened(spec)
        self._open[key] = fd  # the latest used is the last to be closed
        return fd

    def _failed_at(self, spec: Spec, why: str) -> None:
        if spec.events not in self._failed:
            self._failed.add(spec.events)
            self._complain(f"{spec.name}: events are missing in {spec.events}{as_whom(_whose(spec))}: {why}")


def _whose(spec: Spec) -> Identity | None:
    return look_up(str(spec.user), str(spec.group))


def _opened(spec: Spec) -> int:
    own = own_descriptor(spec.events)
    if own >= 0:
        # Opened anew, a file would have an offset of its own, and one would write over the other.
        return os.dup(own) if stat.S_ISREG(os.stat(spec.events).st_mode) else os.open(spec.events, FLAGS)
    # The last component of a path is not followed if it is a link, for the directory may be somebody else's.
    return opened_as(_whose(spec), spec.events, FLAGS | os.O_NOFOLLOW, 0o644)
