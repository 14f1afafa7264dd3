"""Section [signals] of lifeboat.toml."""

from __future__ import annotations

from pydantic import Field

from migrator.model import Value


class ExtraDrive(Value):
    """A drive that a scan does not find, as behind a RAID controller."""

    device: str = Field(description="as smartctl takes it: /dev/bus/0")
    type: str = Field(description="as smartctl -d takes it: megaraid,4")


class SignalSettings(Value):
    """What is read, and how often."""

    smart: bool = Field(default=True, description="read disks through smartctl")
    smart_poll_s: float = Field(default=300, ge=1, description="how often disks are read")
    smart_timeout_s: float = Field(default=45, gt=0, description="a drive that is silent for longer is unreadable")
    smart_wake_after_s: float = Field(
        default=86400,
        ge=0,
        description="a sleeping drive is woken to be read when its last reading is older; 0: never",
    )
    drives: tuple[ExtraDrive, ...] = Field(default=(), description="drives that a scan does not find")
    disks_poll_s: float = Field(default=30, ge=1, description="how often is looked whether disks are there")
    kernel_log: bool = Field(default=True, description="follow the kernel log")
    kernel_log_poll_s: float = Field(
        default=60, ge=1, description="how often its counts are told; a new line is told at once"
    )
    edac: bool = Field(default=True, description="read memory error counters")
    edac_poll_s: float = Field(default=60, ge=1, description="how often memory counters are read")
    hwmon: bool = Field(default=True, description="read temperatures, fans and voltages")
    hwmon_poll_s: float = Field(default=30, ge=1, description="how often sensors are read")
    ignored_devices: tuple[str, ...] = Field(
        default=(),
        description=(
            "serial numbers or names of devices to leave alone, `*` allowed: a disk taken out for good, "
            "a sensor with nothing connected"
        ),
    )
    keep_days: float = Field(default=90, gt=0, description="how long readings are kept")
