"""What a live view of thousands of jobs reads."""

from __future__ import annotations

from types import SimpleNamespace

from memrun.batch.progress import FRESH, IN_TURN, Uses


class Group:
    """Counts how often it was read."""

    def __init__(self, number):
        self.number, self.reads = number, 0

    def usage(self):
        self.reads += 1
        return self.number + 1000 * self.reads


def entry(number, word="RUNNING", *, alive=True):
    run = SimpleNamespace(attempt=SimpleNamespace(group=Group(number)))
    return SimpleNamespace(name=f"job-{number}", word=word, alive=alive, run=run)


def reads(entries):
    return [one.run.attempt.group.reads for one in entries]


def test_a_few_are_all_read_each_time():
    entries, uses = [*map(entry, range(FRESH)), entry(FRESH, alive=False)], Uses()
    for times in (1, 2, 3):
        found = uses.look(entries)
        assert found == {**{f"job-{n}": n + 1000 * times for n in range(FRESH)}, f"job-{FRESH}": None}


def test_of_many_those_that_are_shown_and_the_rest_in_turn():
    rest = 4 * IN_TURN
    entries, uses = list(map(entry, range(FRESH + rest))), Uses()
    for look in (1, 2, 3, 4):
        found = uses.look(entries)
        assert reads(entries[:FRESH]) == [look] * FRESH
        assert sum(reads(entries[FRESH:])) == look * IN_TURN
        assert len(found) == FRESH + look * IN_TURN
    assert reads(entries[FRESH:]) == [1] * rest
    held = entries[-1]
    held.word = "PAUSED"  # comes first now
    for _ in range(4):
        uses.look(entries)
    assert held.run.attempt.group.reads == 5
    assert min(reads(entries)) == 2
    assert max(reads(entries)) <= 8


def test_who_has_ended_is_forgotten():
    entries, uses = list(map(entry, range(FRESH + 2 * IN_TURN))), Uses()
    uses.look(entries)
    assert set(uses.look(entries[-5:])) == {one.name for one in entries[-5:]}
