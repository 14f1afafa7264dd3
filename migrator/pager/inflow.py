"""What brings pages into the spaces of a restored tree: in C where that was built, else in Python.

An inflow knows which memory is missing where (`space`), answers page faults on one link and fetches the bulk on
others; each of these by a thread of the sink, which calls it again and again. `hold` and `release`, `poison` and
`surrender` may come from any thread.
"""

from __future__ import annotations

from typing import Protocol

from migrator.pager import native
from migrator.pager.guard import Holder
from migrator.pager.links import Link
from migrator.pager.native_inflow import NativeInflow
from migrator.pager.python_inflow import PythonInflow


class Fetcher(Protocol):
    """The bulk on one link at a time."""

    def fetch(self, link: Link) -> None:
        """Fetch until there is nothing to ask for and nothing under way.

        Raises `OSError` when the link breaks, and then forgets what was under way; `ExecutionError` when the source
        sends nonsense.
        """


class Inflow(Protocol):
    """The spaces of a restored tree."""

    def add(self, pid: int, userfault: int, ranges: list[tuple[int, int]]) -> None:
        """Know what is missing of a new process; the pid is that by which the source knows it."""

    def hold(self) -> None:
        """Give no page and read no event until `release`."""

    def release(self) -> None:
        """Go on."""

    def answer(self, link: Link) -> None:
        """Answer faults as long as there are any, or for a moment.

        Raises `OSError` when the link breaks: what is owed then is asked for on the next one. `ExecutionError` as
        `Fetcher.fetch`.
        """

    def fetcher(self) -> Fetcher:
        """Return what fetches the bulk on a link."""

    def rest(self) -> bool:
        """Wait a moment for what others bring; return whether anything was missing."""

    def poison(self) -> tuple[int, bool]:
        """Let nobody ever read what is missing; return how many bytes that were, and whether it was all.

        It was not when processes change their mappings just now. Raises `OSError` on a kernel that cannot.
        """

    def surrender(self) -> list[int]:
        """Return all userfaultfds, to be closed; from here on none is used."""

    @property
    def received_bytes(self) -> int:
        """Return how much has come."""

    def tell(self) -> dict[str, object]:
        """Return what `statistics` counts."""


def inflow(guard: Holder) -> Inflow:
    """Return the faster one; `guard` is given the userfaultfd of each process that is forked."""
    return NativeInflow(guard) if native.BUILT else PythonInflow(guard)
