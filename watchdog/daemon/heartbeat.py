"""The heartbeat: systemd's notify protocol (sd_notify(3)). WATCHDOG=1 is sent from the tick only."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(**words: str) -> None:
    """Tell systemd something, as `notify(READY="1", STATUS="...")`; without systemd nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    message = "\n".join(f"{name}={' '.join(value.split())}" for name, value in words.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, suppress(OSError):
        channel.sendto(message.encode(), address)
