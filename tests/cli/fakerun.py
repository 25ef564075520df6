"""A memrun that says what a test wants: rows, and answers when they are due. One thread, one socket."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import threading


class FakeRun:
    """Listens below `runtime` as the memrun of process `pid`."""

    def __init__(self, runtime, pid=4711):
        place = runtime / "memrun"
        place.mkdir(mode=0o700, exist_ok=True)
        self.rows = []
        self.path = place / f"{pid}.sock"
        self._wire = socket.socket(socket.AF_UNIX)
        self._wire.bind(str(self.path))
        self._wire.listen(16)
        self._held = {"wait": [], "events": []}
        self._changed = threading.Condition()
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def row(self, name="job", **known):
        """One more job."""
        self.rows.append({
            "name": name, "file": None, "state": "RUNNING", "pid": os.getpid(), "cgroup": "/x", "limit": 8 << 20, "usage": 4 << 20,
            "peak": 6 << 20, "attempt": 1, "since": "2026-11-24T22:00:00.000Z", "result": None, **known,
        })  # fmt: skip

    def _serve(self):
        with selectors.DefaultSelector() as ready:
            ready.register(self._wire, selectors.EVENT_READ)
            ready.register(self._stop, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    if key.fileobj is self._wire:
                        ready.register(self._wire.accept()[0], selectors.EVENT_READ)
                    elif key.fileobj == self._stop:
                        for other in ready.get_map().values():
                            if isinstance(other.fileobj, socket.socket):
                                other.fileobj.close()
                        return
                    else:
                        self._answer(ready, key.fileobj)

    def _answer(self, ready, client):
        try:
            data = client.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            ready.unregister(client)
            client.close()
            return
        verb = json.loads(data)["verb"]
        if verb == "ps":
            self.say(client, {"ok": True, "jobs": self.rows})
            return
        if verb == "events":
            self.say(client, {"ok": True})
        with self._changed:
            self._held[verb].append(client)
            self._changed.notify_all()

    @staticmethod
    def say(client, words):
        with contextlib.suppress(OSError):  # who asked is gone
            client.sendall(json.dumps(words).encode() + b"\n")

    def asked(self, verb):
        """Who asks that; waits for the first one."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._held[verb], timeout=20)
            return self._held[verb][-1]

    def close(self):
        """As kill -9 would leave it: every connection is cut, the socket's file stays."""
        if self._thread.is_alive():
            os.write(self._stopped, b"x")
            self._thread.join()
            for fd in (self._stop, self._stopped):
                os.close(fd)
