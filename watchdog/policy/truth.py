"""What an admin may find out about an alarm."""

from __future__ import annotations

from enum import StrEnum


class Truth(StrEnum):
    """What an admin found out afterwards."""

    CONFIRMED = "confirmed"
    FALSE_ALARM = "false-alarm"
    MISSED = "missed"  # it failed, and no evacuation came before
