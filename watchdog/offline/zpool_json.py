"""ZFS pools as `zpool status -j` describes them. Pure.

Source: OpenZFS 2.3 and later, cmd/zpool/zpool_main.c (status_callback_json, vdev_stats_nvlist, fill_vdev_info) and
zpool-status(8). It becomes the rows of `zpool status -P -p`, which the daemon's own reader judges.

What it says of a group is not looked at, but what it says of devices: of a dRAID group the state is left out
(openzfs/zfs#18431), and of two groups called spare-0 it gives that of the first (zpool_find_vdev goes by the name).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from watchdog.signals.redundancy import Array
from watchdog.signals.volumes import GROUP, UNREACHABLE, Row, pool_of

KINDS = ("mirror", "raidz", "draid")
SECTIONS = ("dedup", "special", "logs", "l2cache")
"""Beside the data; spares are in none of the groups until one is at work, and then it is among the data."""

STATES = {
    "ONLINE": "ONLINE", "HEALTHY": "ONLINE", "DEGRADED": "DEGRADED", "FAULTED": "FAULTED", "REMOVED": "REMOVED",
    "OFFLINE": "OFFLINE", "CLOSED": "OFFLINE", "CANT_OPEN": "UNAVAIL", "UNAVAIL": "UNAVAIL",
}  # fmt: skip
"""Of a device, to what the text calls it (zpool_state_to_name); HEALTHY stands in the man page."""

ERRORS = ("read_errors", "write_errors", "checksum_errors")

Json = Mapping[str, Any]


def is_zpool_json(found: Json) -> bool:
    """Say whether a JSON is one of zpool's, whichever of its commands it is of."""
    return str(_part(found, "output_version").get("command", "")).startswith("zpool ")


def in_zpool_json(found: Json) -> Iterator[Array]:
    """Return the pools of an answer; raises `ValueError` when it does not say how they are."""
    command, pools = _part(found, "output_version").get("command"), found.get("pools")
    if command != "zpool status" or not isinstance(pools, dict):
        raise ValueError(f"{command} says nothing about the state of pools")
    for key in pools:
        pool = _part(pools, key)
        yield _pool(str(pool.get("name") or key), pool)


def _pool(name: str, pool: Json) -> Array:
    state, tree = pool.get("state"), _part(pool, "vdevs")
    if state not in ("ONLINE", "DEGRADED", *UNREACHABLE):
        raise ValueError(f"zpool status says of {name} a state that is not known: {state}")
    if any("parent" in _part(tree, key) for key in tree):
        raise ValueError(
            f"zpool status was asked for the devices of {name} without their groups (--json-flat-vdevs)"
        )
    devices = _part(_part(tree, name), "vdevs")
    if not devices:
        raise ValueError(f"zpool status says nothing about the devices of {name}")
    parts = [devices, *(_part(pool, section) for section in SECTIONS)]
    rows = [
        Row(0, name, state, 0),
        *(row for part in parts for key in part for row in _rows(key, _part(part, key), 2)),
    ]
    return pool_of(name, state, rows, rebuilding=_is_rebuilding(_part(pool, "scan_stats")))


def _rows(name: str, vdev: Json, depth: int) -> Iterator[Row]:
    """Return a group and what is in it, or a device."""
    below = _part(vdev, "vdevs")
    if not below:
        yield Row(depth, _path(name, vdev), _state(name, vdev), _errors(name, vdev))
        return
    rows = [row for key in below for row in _rows(key, _part(below, key), depth + 2)]
    group = GROUP.match(name)
    if group is None and vdev.get("vdev_type") in KINDS:
        raise ValueError(f"zpool status was asked for numbers instead of names (-g): {name}")
    if group is not None and group["kind"] == "mirror" and len(below) < 2:
        raise ValueError(f"zpool status leaves out the devices of {name} that are well (-e)")
    yield Row(depth, name, "ONLINE" if all(row.state == "ONLINE" for row in rows) else "DEGRADED", 0)
    yield from rows


def _path(name: str, vdev: Json) -> str:
    """Return what `zpool status -P` calls a device: its path, or a number for one that is not there."""
    if name.startswith("/") or "not_present" in vdev:
        return name
    if not isinstance(path := vdev.get("path"), str):
        raise ValueError(f"zpool status does not say the path of {name}")
    return path


def _state(name: str, vdev: Json) -> str:
    state = STATES.get(str(vdev.get("state")))
    if state is None:
        raise ValueError(f"zpool status says of {name} a state that is not known: {vdev.get('state')}")
    return state


def _errors(name: str, vdev: Json) -> int:
    counts = [str(vdev.get(kind)) for kind in ERRORS]
    if not all(count.isdecimal() for count in counts):
        raise ValueError(f"zpool status does not count the errors of {name} exactly: {', '.join(counts)}")
    return sum(map(int, counts))


def _is_rebuilding(scan: Json) -> bool:
    """Say whether a resilver runs, or a sequential one of some group."""
    groups = _part(scan, "rebuild_stats")
    resilver = (scan.get("function"), scan.get("state")) == ("RESILVER", "SCANNING")
    return resilver or any(_part(groups, key).get("state") == "ACTIVE" for key in groups)


def _part(found: Json, key: str) -> Json:
    value = found.get(key)
    return value if isinstance(value, dict) else {}
