#!/bin/sh
# The command where the interpreter's path can not be in a first line: it has a blank in it, or is too long. A shell looks for it beside this file,
# for Python what that shell is told is a string.
'''exec' "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"
'''
import sys

if sys.path and sys.path[0] == __file__.rpartition("/")[0]:
    del sys.path[0]  # as in the other one

from memrun.__main__ import main

main()
