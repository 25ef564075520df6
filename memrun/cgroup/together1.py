"""One killed, all killed, on v1: what v2's kernel does by memory.oom.group, all at once.

v1 gives its notice first. Then it looks for a victim, writes its report into the kernel's log (1 to 2 ms here, where no console is slow), kills
him, and counts it: only then is it certain that there was a kill, and that all are to go. Whoever is not the victim would go on until then,
as if nothing had happened. So all are held still from the notice on, in the companion's freezer (which SIGKILL goes through), until
the kill is counted. Most notices are followed by one; where none comes (somebody had freed enough in that very moment, or nobody may be
killed), they go on after WITHIN.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cgroup.files import Dir

WITHIN = 0.005  # seconds


class Together:
    """Of one group."""

    __slots__ = ("_companion", "_kills", "_notices", "_since")

    def __init__(self, companion: Dir) -> None:
        self._companion = companion
        self._kills = self._notices = 0
        self._since: float | None = None  # when they were held still

    def look(self, kills: int, notices: int) -> None:
        """How many there were until now, at the group's own limit. After a notice there have to be more looks, as there are (news.LOOKS), until
        there was a kill, or WITHIN is over."""
        killed, self._kills = kills > self._kills, kills
        noticed, self._notices = notices > self._notices, max(notices, self._notices)  # one from above may be counted late
        if killed:
            self.over()  # all are killed, as soon as that is heard
        elif self._since is not None:
            if time.monotonic() - self._since > WITHIN:
                self.over()
                self._companion.write("cgroup.freeze", "0")
        elif noticed:
            self._since = time.monotonic()
            self._companion.write("cgroup.freeze", "1")

    def over(self) -> None:
        """Whether they are held is somebody else's affair from now on."""
        self._since = None
