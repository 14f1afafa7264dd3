"""What was ordered: an evacuation on disk, so that a restart of the daemon takes it up again."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from migrator.model import Method, Value
from watchdog.daemon.kept import KeptFile
from watchdog.signals.model import Device

_log = logging.getLogger(__name__)


class Cause(StrEnum):
    """Who wants the host empty."""

    VERDICT = "verdict"
    ADMIN = "admin"
    DRILL = "drill"


class Order(Value):
    """One evacuation as it was ordered."""

    cause: Cause
    method: Method | None = None
    only: tuple[str, ...] | None = None  # names of containers; None means all
    devices: tuple[Device, ...] = ()  # only what is lost with these; none means all
    again: bool = False  # an earlier one left something; say nothing when that is still so
    time_left_s: float | None = None

    def covers(self, devices: tuple[Device, ...]) -> bool:
        """Say whether everything leaves by this order that is lost with these devices; none means the host."""
        if self.only is not None:
            return False
        own = {device.identity for device in self.devices}
        return not own or (bool(devices) and {device.identity for device in devices} <= own)


class OrderFile:
    """The order under way, `evacuation.json`; there is none when no evacuation is."""

    def __init__(self, path: Path) -> None:
        self.file = KeptFile(path)

    def read(self) -> Order | None:
        """Return what a daemon before this one did not bring to its end."""
        try:
            return Order.model_validate_json(self.file.path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            _log.warning("%s is not understood and not used: %s", self.file.path, error.errors()[0]["msg"])
            return None

    def write(self, order: Order) -> None:
        """Remember an order, on disk if that takes it."""
        self.file.keep(order.model_dump_json().encode())

    def clear(self) -> None:
        """The evacuation has ended."""
        self.file.keep(None)
