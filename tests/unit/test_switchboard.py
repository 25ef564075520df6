"""One epoll for the news of many groups, with eventfds in their place."""

from __future__ import annotations

import os
import select

import pytest
import trio
import trio.testing

from memrun.switchboard import Line, Switchboard


class Group:
    """Counts what it is told of, as a group's `hear` does."""

    def __init__(self, board: Switchboard, act=lambda: None) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.seen: list[int] = []
        self._act = act
        self.line = Line(board, self.look)
        self.line.register(self.fd, select.EPOLLIN)

    def look(self) -> None:
        self.seen.append(os.eventfd_read(self.fd))
        self._act()

    def close(self) -> None:
        if self.fd >= 0:
            self.line.unregister(self.fd)
            os.close(self.fd)
            self.fd = -1


@pytest.fixture
def play():
    """Run an async function of (board, nursery) while the board is served."""

    def run(act):
        async def main():
            board = Switchboard()
            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(board.serve)
                    await act(board, nursery)
                    nursery.cancel_scope.cancel()
            board.close()

        trio.run(main)

    return run


def test_who_is_meant_looks_and_goes_on_and_nobody_else(play):
    async def act(board, nursery):
        one, other = Group(board), Group(board)
        nursery.start_soon(other.line.wait)
        os.eventfd_write(one.fd, 3)
        await one.line.wait()
        os.eventfd_write(one.fd, 4)
        await one.line.wait()
        assert (one.seen, other.seen) == ([3, 4], [])
        one.close()
        other.close()

    play(act)


def test_what_came_while_nobody_waited_is_not_lost(play):
    async def act(board, nursery):
        group, beside = Group(board), Group(board)
        os.eventfd_write(group.fd, 1)
        os.eventfd_write(beside.fd, 1)
        await beside.line.wait()  # by then the board has rung the other one, too
        assert group.seen == []
        await group.line.wait()
        assert group.seen == [1]
        group.close()
        beside.close()

    play(act)


def test_what_a_look_raises_is_raised_where_it_is_waited_for(play):
    def fail():
        raise ValueError

    async def act(board, nursery):
        group = Group(board, fail)
        os.eventfd_write(group.fd, 1)
        with pytest.raises(ValueError):
            await group.line.wait()
        group.close()

    play(act)


def test_a_look_may_end_the_watch_that_waits_for_it(play):
    """What is seen may be the end: the run that watches is cancelled, and its descriptors are closed, in the look itself."""

    async def act(board, nursery):
        scope = trio.CancelScope()
        group = Group(board)
        group._act = lambda: (scope.cancel(), group.close())
        os.eventfd_write(group.fd, 1)
        with scope:
            await group.line.wait()
        assert scope.cancelled_caught
        other = Group(board)  # has the number of the one that is closed
        os.eventfd_write(other.fd, 2)
        await other.line.wait()
        assert (group.seen, other.seen) == ([1], [2])
        other.close()

    play(act)


def test_one_look_may_close_another_that_has_news_too(play):
    async def act(board, nursery):
        groups = [Group(board), Group(board)]
        for group, other in (groups, groups[::-1]):
            group._act = other.close
            nursery.start_soon(group.line.wait)
        await trio.testing.wait_all_tasks_blocked()
        for group in groups:
            os.eventfd_write(group.fd, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(group.seen for group in groups) == [[], [1]]
        for group in groups:
            group.close()

    play(act)


def test_a_wait_that_is_given_up_leaves_nothing_behind(play):
    async def act(board, nursery):
        group = Group(board)
        with trio.move_on_after(0):
            await group.line.wait()
        os.eventfd_write(group.fd, 5)
        await group.line.wait()
        assert group.seen == [5]
        group.close()

    play(act)
