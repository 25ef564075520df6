"""What a wheel carries beside the package: the command, and the man page and the shell completions, made from the source that it is built of."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MOST = 120  # characters of a first line that every kernel reads


class Papers(BuildHookInterface[Any]):
    """An editable install has no papers: they would be copies of what is about to change."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # Built on the machine where it is installed, the interpreter is the one that its first line has to name.
        strange = " " in sys.executable or len(sys.executable) > MOST
        build_data["shared_scripts"][f"bin/memrun{'.sh' if strange else ''}"] = "memrun"
        if version == "editable":
            return
        self.made = tempfile.TemporaryDirectory()
        sys.path.insert(0, self.root)
        try:
            from tools import papers

            for path in papers.write(Path(self.made.name), []):
                build_data["shared_data"][str(path)] = str(path.relative_to(self.made.name))
        finally:
            sys.path.remove(self.root)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        if version != "editable":
            self.made.cleanup()
