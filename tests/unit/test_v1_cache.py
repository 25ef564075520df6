"""What is left in the page cache of a v1 group when it is removed: asked to be dropped only where that is quick."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from memrun.cgroup.cache1 import drop_small

MIB = 1 << 20


@pytest.mark.parametrize(
    ("cache", "dirty", "writeback", "dropped"),
    [(0, 0, 0, False), (4096, 0, 0, True), (4096, 4096, 0, False), (4096, 0, 4096, False), (65 * MIB, 0, 0, False)],
)
def test_only_a_little_that_is_clean_is_dropped(cache, dirty, writeback, dropped):
    written = []
    stat = f"cache {cache}\nrss 0\ndirty {dirty}\nwriteback {writeback}\n"
    drop_small(SimpleNamespace(read={"memory.stat": stat}.get, write=lambda *words: written.append(words)))
    assert written == ([("memory.force_empty", "0")] if dropped else [])
