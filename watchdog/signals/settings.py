"""Section [signals] of lifeboat.toml."""

from __future__ import annotations

from pydantic import Field

from migrator.model import Value


class ExtraDrive(Value):
    """A drive that a scan does not find, as behind a RAID controller."""

    device: str = Field(description="as smartctl takes it: /dev/bus/0")
    type: str = Field(description="as smartctl -d takes it: megaraid,4")


class Script(Value):
    """A program of yours that says whether something is wrong."""

    name: str = Field(pattern=r"^[a-zA-Z0-9._-]+$", description="its name, for rules: where = { script = 'NAME' }")
    command: tuple[str, ...] = Field(
        min_length=1, description="program and arguments; it ends with 0 for fine, 1 for a problem, else unknown"
    )
    poll_s: float = Field(default=60, ge=1, description="how often it is run")
    timeout_s: float = Field(default=30, gt=0, description="it is killed after so long, and its result is unknown")


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
    self_tests: bool = Field(default=False, description="have the drives test themselves from time to time")
    short_test_days: float = Field(default=7, gt=0, description="days between two short self-tests of a drive")
    long_test_days: float = Field(default=30, gt=0, description="days between two long ones; they take hours")
    drives: tuple[ExtraDrive, ...] = Field(default=(), description="drives that a scan does not find")
    disks_poll_s: float = Field(default=30, ge=1, description="how often is looked whether disks are there")
    kernel_log: bool = Field(default=True, description="follow the kernel log")
    kernel_log_poll_s: float = Field(
        default=60, ge=1, description="how often its counts are told; a new line is told at once"
    )
    arrays: bool = Field(default=True, description="read md arrays, btrfs, LVM volumes and ZFS pools")
    arrays_poll_s: float = Field(
        default=60, ge=1, description="how often they are read; md changes are seen at once"
    )
    volumes_poll_s: float = Field(default=300, ge=1, description="how often lvs and zpool are asked")
    mounts: bool = Field(default=True, description="look whether file systems have become read-only")
    mounts_poll_s: float = Field(default=60, ge=1, description="how often; changes of mounts are seen at once")
    edac: bool = Field(default=True, description="read memory error counters")
    edac_poll_s: float = Field(default=60, ge=1, description="how often memory counters are read")
    mce: bool = Field(default=True, description="hear machine checks: the kernel's tracepoints, or rasdaemon")
    mce_poll_s: float = Field(default=60, ge=1, description="how often counts are told; an event is told at once")
    hwmon: bool = Field(default=True, description="read temperatures, fans and voltages")
    hwmon_poll_s: float = Field(default=30, ge=1, description="how often sensors are read")
    thermal: bool = Field(default=True, description="read thermal zones and the throttling of processors")
    thermal_poll_s: float = Field(default=60, ge=1, description="how often they are read")
    pcie: bool = Field(default=True, description="read PCIe error counters and lanes")
    pcie_poll_s: float = Field(default=60, ge=1, description="how often they are read")
    power: bool = Field(default=True, description="read power supplies and UPS (the kernel's, NUT's, apcupsd's)")
    power_poll_s: float = Field(default=30, ge=1, description="how often they are read")
    ipmi: bool = Field(default=True, description="ask the board's BMC, where there is one (ipmitool)")
    ipmi_poll_s: float = Field(default=120, ge=1, description="how often it is asked")
    script: tuple[Script, ...] = Field(default=(), description="programs of your own")
    ignored_devices: tuple[str, ...] = Field(
        default=(),
        description=(
            "serial numbers or names of devices to leave alone, `*` allowed: a disk taken out for good, "
            "a sensor with nothing connected"
        ),
    )
    keep_days: float = Field(default=90, gt=0, description="how long readings are kept; no rule looks further back")
    keep_mb: float = Field(
        default=200, ge=1, description="space for readings on disk; beyond it the oldest are forgotten"
    )
