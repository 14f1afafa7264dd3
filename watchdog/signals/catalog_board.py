"""Signals of memory, processors, buses, sensors and power, of the kernel as a whole, and of the readers themselves.

Sources of the words: the kernel's EDAC, hwmon, thermal, power_supply and AER sysfs ABI, its tracepoints
ras:mc_event, ras:aer_event and mce:mce_record, its messages; IPMI 2.0 as ipmitool shows it; NUT's and
apcupsd's variable names.
"""

from __future__ import annotations

from watchdog.signals.model import DeviceKind

DIMM = {
    "edac.ce_count": ("counter", "count", "corrected memory errors since the driver was loaded"),
    "edac.ue_count": ("counter", "count", "uncorrected memory errors since the driver was loaded"),
}
SEL_DIMM = {
    "sel.corrected_memory_errors": ("counter", "count", "corrected memory errors in the BMC's event log"),
    "sel.uncorrected_memory_errors": ("counter", "count", "uncorrected memory errors in the BMC's event log"),
}
MCE = {
    "mce.corrected": ("counter", "count", "corrected machine checks of a processor socket, memory included"),
    "mce.uncorrected": (
        "counter",
        "count",
        "uncorrected machine checks of a processor socket, those included that were survived",
    ),
}
THROTTLE = {
    "cpu.throttle_events": ("counter", "count", "times a processor was slowed down by heat since boot"),
    "cpu.throttled_percent": (
        "gauge",
        "percent",
        "share of the time since the last reading in which heat slowed a processor down (Intel)",
    ),
}
SEL_PROCESSOR = {
    "sel.processor_errors": (
        "counter",
        "count",
        "processor failures in the BMC's event log: IERR, thermal trip, uncorrectable machine check",
    ),
}
PCIE = {
    "pcie.correctable_errors": ("counter", "count", "correctable AER errors of a PCIe device since boot"),
    "pcie.nonfatal_errors": (
        "counter",
        "count",
        "uncorrectable non-fatal AER errors since boot, without unsupported requests, which are no fault",
    ),
    "pcie.fatal_errors": ("counter", "count", "fatal AER errors since boot: the device is lost"),
    "pcie.link_narrow": ("flag", "bool", "the link has fewer lanes than it had before, or than both ends can"),
}
SEL_PCIE = {
    "sel.bus_errors": ("counter", "count", "PCI and bus errors in the BMC's event log"),
}
HWMON = {
    "hwmon.temperature": ("gauge", "celsius", "a temperature"),
    "hwmon.temperature_margin": ("gauge", "celsius", "how far a temperature is below the chip's critical limit"),
    "hwmon.temperature_critical": ("flag", "bool", "a temperature at or above the chip's own critical limit"),
    "hwmon.fan_speed": ("gauge", "rpm", "a fan's speed"),
    "hwmon.fan_failed": ("flag", "bool", "a fan that turned has stopped, or its sensor reports a fault"),
    "hwmon.voltage": ("gauge", "volt", "a voltage"),
    "hwmon.voltage_out_of_range": ("flag", "bool", "a voltage that has left the chip's own limits"),
    "hwmon.power": ("gauge", "watt", "a power; near its limit is normal for a processor"),
}
THERMAL = {
    "thermal.temperature": ("gauge", "celsius", "temperature of a thermal zone"),
    "thermal.critical_margin": (
        "gauge",
        "celsius",
        "how far a zone is below the trip point at which the kernel powers the host off",
    ),
    "thermal.critical": ("flag", "bool", "a zone at or above its trip point `hot` or `critical`"),
}
IPMI = {
    "ipmi.temperature": ("gauge", "celsius", "a temperature, as the BMC measures it"),
    "ipmi.fan_speed": ("gauge", "rpm", "a fan's speed, as the BMC measures it"),
    "ipmi.voltage": ("gauge", "volt", "a voltage, as the BMC measures it"),
    "ipmi.power": ("gauge", "watt", "a power, as the BMC measures it"),
    "ipmi.critical": (
        "flag",
        "bool",
        "a sensor of the BMC that was in order has passed a critical limit; the battery of the clock is left out",
    ),
    "ipmi.warning": ("flag", "bool", "a sensor of the BMC that was in order has passed a non-critical limit"),
}
POWER_SUPPLY = {
    "power.supply_failed": (
        "flag",
        "bool",
        "a power supply that delivered has failed or lost its input (power_supply class, BMC)",
    ),
}
SEL_POWER_SUPPLY = {
    "sel.power_supply_errors": (
        "counter",
        "count",
        "power supply failures and lost inputs in the BMC's event log",
    ),
}
UPS = {
    "ups.on_battery": ("flag", "bool", "the UPS runs on its battery: the mains are gone"),
    "ups.battery_low": ("flag", "bool", "the UPS says that its battery is nearly empty"),
    "ups.replace_battery": ("flag", "bool", "the UPS asks for a new battery, or has failed its own test"),
    "ups.unreachable": ("flag", "bool", "the UPS's daemon has lost its UPS"),
    "ups.runtime": ("gauge", "seconds", "how long the battery lasts at this load, by the UPS's estimate"),
    "ups.charge": ("gauge", "percent", "charge of the battery"),
    "ups.load": ("gauge", "percent", "load of the UPS"),
}
SCRIPT = {
    "script.problem": (
        "flag",
        "bool",
        "an admin's program ended with 1; unreadable when it ended otherwise or in no time. "
        "A rule names one by: where = { script = 'NAME' }",
    ),
}
KERNEL = {
    "kernel.hung_tasks": ("counter", "count", "tasks that were stuck for minutes, usually in a disk's way"),
    "kernel.lockups": ("counter", "count", "processors that were stuck: soft and hard lockups, RCU stalls"),
    "kernel.poisoned_pages": ("counter", "count", "memory pages that the kernel found damaged and took away"),
    "kernel.matches": (
        "counter",
        "count",
        "lines that an admin's own pattern found in the kernel log. "
        "A rule names one by: where = { pattern = 'NAME' }",
    ),
    "kernel.lost_lines": (
        "counter",
        "count",
        "lines of the kernel log that were overwritten before they were read",
    ),
}
FIRMWARE = {
    "firmware.corrected_errors": ("counter", "count", "errors the firmware corrected and reported (ACPI APEI)"),
    "firmware.recoverable_errors": ("counter", "count", "uncorrected errors, survived, the firmware reported"),
    "firmware.fatal_errors": (
        "counter",
        "count",
        "fatal errors the firmware reported, also those it kept from before this boot",
    ),
}
MEMORY = {
    "memory.poisoned": ("gauge", "bytes", "memory out of use because it was found damaged (HardwareCorrupted)"),
}
REDUNDANCY = {
    "power.redundancy_lost": (
        "flag",
        "bool",
        "fewer power supplies deliver than did, or the BMC says that redundancy is lost",
    ),
}
SEL = {
    "sel.full": ("flag", "bool", "the BMC's event log is full, or has lost events: it is blind until cleared"),
}
READER = {
    "reader.blind": ("flag", "bool", "unreadable while a reader finds nothing to read, fails or hangs"),
}
DRILL = {
    "lifeboat.drill": ("flag", "bool", "`lifeboat drill` is under way: it sets this itself"),
}

TABLES = (
    (DeviceKind.DIMM, "edac", DIMM),
    (DeviceKind.DIMM, "ipmi", SEL_DIMM),
    (DeviceKind.PROCESSOR, "mce", MCE),
    (DeviceKind.PROCESSOR, "thermal", THROTTLE),
    (DeviceKind.PROCESSOR, "ipmi", SEL_PROCESSOR),
    (DeviceKind.PCIE, "pcie", PCIE),
    (DeviceKind.PCIE, "ipmi", SEL_PCIE),
    (DeviceKind.SENSOR, "hwmon", HWMON),
    (DeviceKind.SENSOR, "thermal", THERMAL),
    (DeviceKind.SENSOR, "ipmi", IPMI),
    (DeviceKind.POWER_SUPPLY, "power", POWER_SUPPLY),
    (DeviceKind.POWER_SUPPLY, "power", REDUNDANCY),
    (DeviceKind.POWER_SUPPLY, "ipmi", SEL_POWER_SUPPLY),
    (DeviceKind.UPS, "ups", UPS),
    (DeviceKind.SCRIPT, "script", SCRIPT),
    (DeviceKind.HOST, "kernel", KERNEL),
    (DeviceKind.HOST, "kernel", FIRMWARE),
    (DeviceKind.HOST, "edac", MEMORY),
    (DeviceKind.HOST, "ipmi", SEL),
    (DeviceKind.HOST, "", READER),
    (DeviceKind.HOST, "drill", DRILL),
)
"""What a signal is about, the reader that tells it, and the signals: name -> kind, unit, description."""
