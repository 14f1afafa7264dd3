"""What others say, made harmless before it is shown or becomes a file's name."""

from __future__ import annotations

import re

UNIT_LABEL = "PODMAN_SYSTEMD_UNIT"  # set by quadlet and by podman generate systemd
ORIGIN = "lifeboat.created-from"  # annotation: the id, at its source, of what a cold migration created here
UNIT_NAME_BYTES = 255  # systemd.unit(5)

_UNIT = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9:_.\\@-]*\.[a-z]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def is_unit(name: str) -> bool:
    """Say whether this can be the name of a systemd unit, so of a file and of no other path."""
    return len(name) <= UNIT_NAME_BYTES and _UNIT.fullmatch(name) is not None


def printable(text: str, longest: int = 1000) -> str:
    """Return what was said without anything that a terminal or a log would obey."""
    return _CONTROL.sub(" ", text)[:longest]
