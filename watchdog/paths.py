"""Where everything of the daemon lies."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path("/etc/lifeboat")
SETTINGS = DIRECTORY / "lifeboat.toml"
STATE = Path("/var/lib/lifeboat")
RUNTIME = Path("/run/lifeboat")
ADMIN_SOCKET = RUNTIME / "admin.sock"
