"""Which lifeboat this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """Return lifeboat's version."""
    try:
        return version("lifeboatd")
    except PackageNotFoundError:
        return "unknown"
