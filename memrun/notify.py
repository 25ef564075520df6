"""What systemd is told of a service (sd_notify(3)), where it wants to know: NOTIFY_SOCKET.

The variable is taken out of our environment: a job that found it there would speak for us. (`--pass-env NOTIFY_SOCKET` leaves it.) A datagram that
cannot be sent at once is not sent; nothing depends on it but READY, for which there is room.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

VARIABLE = "NOTIFY_SOCKET"


class Notify:
    """The one who wants to know; '' is nobody."""

    __slots__ = ("_address", "_stopping")

    def __init__(self, keep: Collection[str] = ()) -> None:
        """`keep`: variables that the job is to find."""
        address = os.environ.get(VARIABLE, "")
        self._address = address if address.startswith(("/", "@")) else ""
        self._stopping = False
        if VARIABLE not in keep:
            os.environ.pop(VARIABLE, None)

    def ready(self, status: str) -> None:
        """It is started, or has reloaded."""
        self._tell("READY=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._tell(f"STATUS={text}")

    def reloading(self) -> None:
        """Until `ready`."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """It is about to end. Said once."""
        if not self._stopping:
            self._stopping = True
            self._tell("STOPPING=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        import socket  # 3 ms that only a service has to pay

        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as wire:
            try:
                place = "\0" + self._address[1:] if self._address.startswith("@") else self._address
                wire.sendto("\n".join(line.replace("\n", " ") for line in lines).encode(errors="replace"), place)
            except OSError:
                return
