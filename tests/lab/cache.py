"""Things that take long to build, kept under a hash of all that goes into them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.settings import CACHE
from tests.lab.state import layers_in_use, remove_tree


def cached(kind: str, recipe: str, build: Callable[[Path], None], *, keep: int = 2) -> Path:
    """Return the directory `build` made for this `recipe`, building it only when it is not there yet.

    `build` gets a directory that does not exist and must create it. It appears under its final name by
    a rename, so a half-built one is never used. The `keep` most recently used ones of a kind stay.
    """
    key = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    final = CACHE / f"{kind}-{key}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked(CACHE / f"{kind}.lock"):
        if not final.exists():
            build_once(kind, final, build)
        os.utime(final)
        forget_old(kind, keep=keep, but=final)
    return final


def build_once(kind: str, final: Path, build: Callable[[Path], None]) -> None:
    """Build into a temporary directory and rename it; say how long it took."""
    building = final.with_name(f"building-{final.name}")
    remove_tree(building)
    print(f"lab: building {kind} (once; cached in {final})", flush=True)
    began = time.monotonic()
    try:
        build(building)
    except BaseException:
        remove_tree(building)
        raise
    building.rename(final)
    print(f"lab: {kind} built in {time.monotonic() - began:.0f} s", flush=True)


def forget_old(kind: str, *, keep: int, but: Path) -> None:
    """Remove what was not used lately, except when a running lab has it in use."""
    candidates = [path for path in CACHE.glob(f"{kind}-????????????????") if path != but]
    candidates.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in candidates[max(keep - 1, 0) :]:
        if not any(Path(layer).is_relative_to(path) for layer in layers_in_use()):
            remove_tree(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; it is released even when this process is killed."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
