"""Files from one place of this host to another, whole: attributes, hard links, holes and owners included."""

from __future__ import annotations

from pathlib import Path

from migrator.command import run

MIRROR = ("rsync", "-aHAXS", "--numeric-ids", "--delete")
COPY = ("cp", "--archive", "--reflink=auto")


def mirror(source: Path, place: Path, timeout_s: float, *, aside: Path | None = None) -> None:
    """Let a directory hold what another one holds, and nothing else; what that replaces goes `aside`."""
    kept = ["--backup", f"--backup-dir={aside}"] if aside else []
    run([*MIRROR, *kept, f"{source}/", f"{place}/"], timeout_s=timeout_s)


def copy(source: Path, place: Path, timeout_s: float) -> None:
    """Copy what a directory holds into another one, which is made."""
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    run([*COPY, f"{source}/.", str(place)], timeout_s=timeout_s)
