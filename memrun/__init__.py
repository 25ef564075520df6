"""memrun: run commands under memory limits, and decide what happens when memory runs out.

Import cost matters (a wrapper in front of every cron job): this file imports nothing. `run` and its record are
loaded when they are first asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.api import Record as Record
    from memrun.api import run as run
    from memrun.errors import MemrunError as MemrunError

__version__ = "0.1.0"
__all__ = ["MemrunError", "Record", "__version__", "run"]


def __getattr__(name: str) -> object:
    """Load the Python API on first use (PEP 562), so that the command line never pays for it."""
    if name == "MemrunError":
        from memrun.errors import MemrunError

        return MemrunError
    if name in {"run", "Record"}:
        import memrun.api  # the whole point: not before it is asked for

        return getattr(memrun.api, name)
    raise AttributeError(f"module 'memrun' has no attribute {name!r}")
