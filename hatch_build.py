"""What a wheel carries beside the package: the man page and the shell completions, made from the source that it is built of."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Papers(BuildHookInterface[Any]):
    """An editable install has none: they would be copies of what is about to change."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
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
