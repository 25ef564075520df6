"""What `memrun show` makes of files that this machine may not have."""

from __future__ import annotations

from memrun.cgroup import details

V1 = """total=300 N0=100 N1=200
file=100 N0=100 N1=0
hierarchical_total=400 N0=150 N1=250
hierarchical_file=200 N0=150 N1=50
hierarchical_anon=200 N0=0 N1=200
hierarchical_unevictable=0 N0=0 N1=0
"""
V2 = """anon N0=4096 N1=8192
file N0=0 N1=4096
kernel_stack N0=0 N1=0
"""


def test_nodes_of_the_whole_subtree():
    assert [line for _, line, _ in details._nodes(V1)] == V1.splitlines()[2:5]
    assert [line for _, line, _ in details._nodes(V2)] == V2.splitlines()[:2]


def test_one_node_is_nothing_to_tell():
    assert details._nodes("anon N0=4096\nfile N0=0\n") == []
    assert details._nodes("") == []
