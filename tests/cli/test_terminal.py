"""In a terminal memrun is not there: Ctrl-C, Ctrl-Z, fg, reading, all as without it. Against a real pty and a real shell."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time

import pytest

MEMRUN = f"{sys.executable} -m memrun"


class Terminal:
    """An interactive shell on a pty."""

    def __init__(self):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(PS1="$ ", TERM="dumb", HISTFILE="")
            os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
        self.seen = ""
        self.type("stty -echo; bind 'set enable-bracketed-paste off'; PS1=%%; echo be''gin\n")
        self.expect("begin")
        self.prompted()

    def type(self, text):
        os.write(self.fd, text.encode())

    def expect(self, text, seconds=20):
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self.fd, 4096).decode()
        before, _, self.seen = self.seen.partition(text)
        return before

    def prompted(self):
        """The shell has the terminal again: what is typed before that may be lost."""
        return self.expect("%%")

    def close(self):
        os.kill(self.pid, signal.SIGHUP)
        os.close(self.fd)
        os.waitpid(self.pid, 0)


@pytest.fixture
def terminal():
    shell = Terminal()
    yield shell
    shell.close()


def test_control_c_ends_the_command_once(terminal):
    terminal.type(
        f"{MEMRUN} --limit 50M -- sh -c 'trap \"echo got-int\" INT; echo $((6*7)); i=0; while [ $i -lt 40 ]; do sleep 0.05; i=$((i+1)); done; echo over'\n"
    )
    terminal.expect("42")
    terminal.type("\x03")
    said = terminal.expect("over")
    assert said.count("got-int") == 1


def test_control_c_kills_what_does_not_handle_it(terminal):
    terminal.type(f"{MEMRUN} --limit 50M -- sh -c 'echo $((6*7)); exec sleep 1000'\n")  # exec: dash loses a ^C at its fork
    terminal.expect("42")
    terminal.type("\x03")
    terminal.expect("died of SIGINT")
    terminal.prompted()
    terminal.type("echo status=$?\n")
    terminal.expect("status=130")


def test_control_c_breaks_a_loop_of_the_shell(terminal):
    """A shell goes on after a command that *exits* 130; it stops after one that died of the signal."""
    terminal.type(f"for i in 1 2 3; do {MEMRUN} --limit 50M -- sh -c 'echo ran$((6*7)); exec sleep 1000'; done; true\n")
    terminal.expect("ran42")
    terminal.type("\x03")
    said = terminal.prompted()
    terminal.type("echo be''hind\n")
    assert "ran42" not in said + terminal.expect("behind")


def test_control_z_and_fg(terminal):
    terminal.type(f"{MEMRUN} --limit 50M -- sh -c 'echo $((6*7)); sleep 1; read x; echo got-$x'\n")
    terminal.expect("42")
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.prompted()
    terminal.type("echo in''between\n")
    terminal.expect("inbetween")
    terminal.type("fg\n")
    terminal.expect("read x")
    terminal.type("word\n")
    terminal.expect("got-word")


def test_reading_from_the_terminal(terminal):
    terminal.type(f"{MEMRUN} --limit 50M -- sh -c 'echo $((6*7)); read x; echo got-$x'\n")
    terminal.expect("42")
    terminal.type("hello\n")
    terminal.expect("got-hello")


def test_in_a_pipeline(terminal):
    terminal.type(f"{MEMRUN} --limit 50M -- yes | head -n 1 | sed s/y/pi''ped/; echo st''atus=${{PIPESTATUS[0]}}\n")
    terminal.expect("piped")
    terminal.expect("status=141")


def test_control_backslash_is_the_commands(terminal):
    """A Java or Go program says by it what its threads do, and goes on."""
    terminal.type(
        f"{MEMRUN} --limit 50M -- sh -c 'trap \"echo got-\\$((1+2))\" QUIT; echo $((6*7)); while :; do sleep 0.05; done'; echo st''atus=$?\n"
    )
    terminal.expect("42")
    terminal.type("\x1c")
    terminal.expect("got-3")
    terminal.type("\x03")
    terminal.expect("died of SIGINT")
