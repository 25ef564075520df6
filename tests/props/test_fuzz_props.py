"""Everything that takes a text from outside, with any bytes: an answer or a sentence, never a traceback. A little of what `make fuzz` does."""

from __future__ import annotations

import os

import pytest
from fuzz.targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("MEMRUN_TEST_FUZZ", "60"))


def inputs(seeds):
    """Bytes; and good ones that were torn, doubled and mixed."""
    pieces = st.sampled_from(seeds) | st.binary(max_size=8) | st.text(max_size=8).map(lambda s: s.encode(errors="surrogatepass"))
    torn = st.tuples(pieces, st.integers(0, 40), st.integers(0, 40)).map(lambda cut: cut[0][cut[1] : cut[1] + cut[2]])
    return st.binary(max_size=200) | st.lists(pieces | torn, max_size=6).map(b"".join)


def any_bytes(name):
    act, seeds = TARGETS[name]
    settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])(given(inputs(seeds))(act))()


@pytest.mark.parametrize("name", sorted(set(TARGETS) - {"socket"}))
def test_any_bytes(name):
    any_bytes(name)


def test_any_bytes_on_the_socket():
    any_bytes("socket")
