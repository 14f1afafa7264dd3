"""md arrays as `mdadm --detail` describes them. Pure.

Source: mdadm's Detail.c (what is printed, and when), maps.c, super0.c and super1.c; mdadm(8). They become what
watchdog.signals.arrays reads in sysfs; mdadm does not tell the errors of members.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from uuid import UUID

from watchdog.signals.arrays import WORKING
from watchdog.signals.redundancy import Array, Member, redundancy_of

HEAD = re.compile(r"^[ \t]*/dev/(?P<name>\S+):[ \t]*\r?$", re.MULTILINE)
FIELD = re.compile(r"^[ \t]*(?P<key>[A-Z][\w ]*?) : (?P<value>.*?)\s*$", re.MULTILINE)
ROW = re.compile(r"^[ \t]*(?:\d+|-)\s+\d+\s+\d+\s+(?P<slot>-?\d+|-)\s+(?P<words>\S.*?)\s*$", re.MULTILINE)
"""Number, major, minor, place in the array, and words about the device with its path at the end."""

DETAIL = re.compile(r"^[ \t]*(?:Raid Level|Raid Devices|Total Devices) : ", re.MULTILINE)
BRIEF = re.compile(r"\s*(?:(?:INACTIVE-)?ARRAY /dev/\S+ .*\bUUID=|MD_LEVEL=)")
"""What `--detail --scan` and `--detail --export` say instead: which arrays there are, and not how they are."""

BUILDING = ("recovering", "resyncing", "reshaping")
ILL = ("degraded", "FAILED")
NOT_STARTED = "Not Started"
KNOWN = (*BUILDING, *ILL, NOT_STARTED, "checking")
PENDING = "(PENDING)"  # nothing begins before the first write
NO_UUID = UUID(int=0)

Fields = Mapping[str, str]


def is_mdadm(text: str) -> bool:
    """Say whether a text is of `mdadm --detail`, or of a verb of mdadm that looks like it."""
    return bool(DETAIL.search(text) or BRIEF.match(text))


def in_mdadm(text: str) -> Iterator[Array]:
    """Return the arrays of one or several outputs; raises `ValueError` when these do not say how they are."""
    parts = HEAD.split(text)[1:]
    described = [(name, block, _fields(block)) for name, block in zip(parts[::2], parts[1::2], strict=True)]
    ours = [item for item in described if _is_detail(item[0], item[2])]
    if not ours:
        raise ValueError("mdadm says nothing about the state of an array")
    if twice := next((name for name, count in Counter(item[0] for item in ours).items() if count > 1), None):
        raise ValueError(f"{twice} is described more than once, give each time a file of its own")
    for name, block, fields in ours:
        if fields.get("Raid Level") != "container":  # only holds the metadata of others
            yield _array(name, block, fields)


def _fields(block: str) -> Fields:
    found: dict[str, str] = {}
    for line in FIELD.finditer(block):
        found.setdefault(line["key"], line["value"])
    return found


def _is_detail(name: str, fields: Fields) -> bool:
    """Say whether a block is of `--detail`; `--examine` describes a member, by the magic number on it."""
    return "Magic" not in fields and (name.startswith("md") or bool({"Version", "Container"} & set(fields)))


def _array(name: str, block: str, fields: Fields) -> Array:
    state, *more = [word.strip() for word in re.sub(r"\([A-Z]+\)", "", _of(fields, "State", name)).split(",")]
    if unknown := [word for word in more if word not in KNOWN]:
        raise ValueError(f"mdadm says of {name} a state that is not known: {', '.join(unknown)}")
    broken = "" if state in WORKING else f"the array is {state}"
    if not broken and NOT_STARTED in more:
        broken = "the array is not started"
    level, disks, lost = fields.get("Raid Level", ""), 0, 0
    if not broken or "Raid Devices" in fields:  # of an inactive array nothing is counted
        level, disks = _of(fields, "Raid Level", name), _number(fields, "Raid Devices", name)
        lost = max(0, disks - _number(fields, "Active Devices", name), _not_in_step(block, disks, more))
    redundancy = redundancy_of(level, disks)
    return Array(
        kind="md",
        identity=_identity(fields) or name,
        name=name,
        redundancy=redundancy,
        lost=max(lost, redundancy + 1) if "FAILED" in more else lost,
        rebuilding=any(word in BUILDING for word in more) and PENDING not in fields["State"],
        broken=broken,
        members=tuple(_members(block)),
    )


def _of(fields: Fields, key: str, name: str) -> str:
    if not fields.get(key):
        raise ValueError(f"mdadm does not say the {key} of {name}")
    return fields[key]


def _number(fields: Fields, key: str, name: str) -> int:
    value = _of(fields, key, name)
    if not value.isdecimal():
        raise ValueError(f"mdadm does not say the {key} of {name}, but {value}")
    return int(value)


def _rows(block: str) -> Iterator[tuple[str, list[str]]]:
    """Return place and words of every device; without a table (`--no-devices`) there are none."""
    table = block.partition("RaidDevice")[2]
    return ((row["slot"], row["words"].split()) for row in ROW.finditer(table))


def _not_in_step(block: str, disks: int, state: list[str]) -> int:
    """Return how many places of the array no device is in step for: one that is replaced has two devices.

    A device without a node in /dev is missing, and dead only when mdadm finds the array to be ill.
    """
    ill = any(word in ILL for word in state)
    places: dict[int, bool] = {}
    for slot, words in _rows(block):
        if slot.isdecimal() and int(slot) < disks:
            in_step = "sync" in words and "faulty" not in words and not (ill and "missing" in words)
            places[int(slot)] = in_step or places.get(int(slot), False)
    return max(list(places.values()).count(False), int(ill))


def _members(block: str) -> Iterator[Member]:
    for _, words in _rows(block):
        if words[-1].startswith("/dev/"):
            yield Member(words[-1].rpartition("/")[2], None, words[-1])


def _identity(fields: Fields) -> str:
    """Return the UUID: with metadata 1.x as the kernel writes it (uuid_show), else as mdadm does."""
    found = re.match(r"[0-9a-f]{8}(?::[0-9a-f]{8}){3}", fields.get("UUID", ""))
    if found is None or UUID(found[0].replace(":", "")) == NO_UUID:
        return ""
    return str(UUID(found[0].replace(":", ""))) if fields.get("Version", "").startswith("1.") else found[0]
