"""What a run asks of the batch that it belongs to. A run alone has no usher, and asks the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from memrun.supervisor import Run


class Usher(Protocol):
    """Who shares out memory among the runs of a batch. Each is told, and answers with events or `enter` when it can."""

    def launch(self, run: Run, limit: int | None) -> None:
        """It wants another attempt, with this limit."""

    def ask(self, run: Run, limit: int) -> None:
        """It is held at its limit, and wants this one: Granted or Denied."""

    def allow(self, run: Run, limit: int | None) -> None:
        """A person wants to give it this limit: RefusedError where it is not to be had."""

    def may_lend(self, run: Run) -> bool:
        """Whether it may have a little more than its limit for a moment."""

    def asked(self, run: Run) -> None:
        """It is about to be asked, or made, to end."""

    def finished(self, run: Run) -> None:
        """It has its record: to be written down in the same breath, whatever happens next."""
