"""Why a host cannot take a container: each filter gives its reason, in a code and in words.

Filters on a `Need` look at what the host is; those on a `Claim` at the room it has left.
"""

from __future__ import annotations

from collections.abc import Callable

from migrator.choice.need import Claim, Need, Room
from migrator.health import Verdict
from migrator.model import ContainerFacts, HostFacts, Method, Pager, Rejection

DISK_HEADROOM_BYTES = 1 << 30  # below this podman itself begins to fail

Reason = tuple[str, str]  # code, words
NeedFilter = Callable[[Need, HostFacts, HostFacts], Reason | None]
ClaimFilter = Callable[[Claim, Room], Reason | None]


def reject(
    container: ContainerFacts,
    source: HostFacts,
    target: HostFacts,
    method: Method,
    *,
    headroom_percent: float = 10.0,
) -> tuple[Rejection, ...]:
    """Return every reason why `target` cannot take `container`; empty when it can."""
    room = Room.of(target, source.host, headroom_percent)
    found = need_reasons(Need.of([container], [method]), source, target)
    found += claim_reasons(Claim.of([container]), room)
    return tuple(Rejection(host=target.host, code=code, reason=reason) for code, reason in found)


def need_reasons(need: Need, source: HostFacts, target: HostFacts) -> list[Reason]:
    """Return why a host is not what is needed, whatever room it has."""
    return [reason for check in NEED_FILTERS if (reason := check(need, source, target))]


def claim_reasons(claim: Claim, room: Room) -> list[Reason]:
    """Return why a host has no room for a claim."""
    return [reason for check in CLAIM_FILTERS if (reason := check(claim, room))]


def _same_host(_: Need, source: HostFacts, target: HostFacts) -> Reason | None:
    return ("same-host", "it is the source") if source.host == target.host else None


def _health(_: Need, _source: HostFacts, target: HostFacts) -> Reason | None:
    if target.verdict is not Verdict.HEALTHY:
        return "target-unhealthy", f"its own verdict is {target.verdict}"
    if target.evacuating:
        return "target-evacuating", "it is being emptied itself"
    return ("target-cordoned", "it is cordoned") if target.cordoned else None


def _processor(_: Need, source: HostFacts, target: HostFacts) -> Reason | None:
    """A process may use any flag of the processor it was started on; CRIU compares them too."""
    if target.architecture != source.architecture:
        return "target-architecture", f"it is {target.architecture}, not {source.architecture}"
    if target.cpu_flags != source.cpu_flags:
        missing = sorted(set(source.cpu_flags) - set(target.cpu_flags))
        if missing:
            return "target-lacks-cpu-flags", f"its processor lacks {', '.join(missing[:5])}"
    return None


def _registers(_: Need, source: HostFacts, target: HostFacts) -> Reason | None:
    """CRIU restores only where the area of `xsave` is as large (criu/arch/x86/cpu.c: "xsave size mismatch")."""
    sizes = (source.signal_frame_bytes, target.signal_frame_bytes)
    if all(sizes) and sizes[0] != sizes[1]:
        return "target-xsave-differs", f"it saves registers in {sizes[1]} bytes, the source in {sizes[0]}"
    return None


def _programs(_: Need, _source: HostFacts, target: HostFacts) -> Reason | None:
    for name, found in (("podman", target.podman), ("runc", target.runc), ("CRIU", target.criu)):
        if not found:
            return f"target-lacks-{name.lower()}", f"{name} is not installed there"
    return None


def _criu(need: Need, source: HostFacts, target: HostFacts) -> Reason | None:
    """A CRIU reads the images of the same or an older one.

    CRIU's own page protocol changed between 4.1 and 4.2 (`nr_pages` became 64 bit wide), so with its pager both
    must be the same; ours speaks a protocol of its own, and what it writes into images both read.
    """
    ours, theirs = release(source.criu), release(target.criu)
    same = Method.LAZY in need.methods and source.pager is Pager.CRIU
    if target.criu and (theirs < ours or (same and theirs != ours)):
        return "target-criu-differs", f"CRIU {target.criu} there, {source.criu} here"
    return None


def _cold(need: Need, _: HostFacts, target: HostFacts) -> Reason | None:
    if Method.COLD in need.methods and not target.creates_for_others:
        return "target-refuses-cold", "it creates no containers by the words of other hosts (accept_privileged)"
    return None


CRIU_FOR_KERNEL = (((6, 16), (4, 2)), ((6, 13), (4, 0)))
"""From this kernel on, CRIU must be at least this: sockets' SO_PASSCRED (6.16) and the vvar area (6.13)."""


def _kernel(_: Need, source: HostFacts, target: HostFacts) -> Reason | None:
    """An older major kernel may lack what the processes already use; a new one needs a CRIU that knows it."""
    theirs = release(target.kernel)
    if theirs[:1] < release(source.kernel)[:1]:
        return "target-kernel-older", f"its kernel is {target.kernel}, the source's is {source.kernel}"
    for kernel, criu in CRIU_FOR_KERNEL:
        if target.criu and theirs >= kernel and release(target.criu) < criu:
            wanted = ".".join(map(str, criu))
            return (
                "target-criu-too-old",
                f"kernel {target.kernel} needs CRIU {wanted} or later, it has {target.criu}",
            )
    return None


def _networks(need: Need, _: HostFacts, target: HostFacts) -> Reason | None:
    if not need.networks:
        return None
    there = {network.name: network.driver for network in target.networks}
    for name, driver in sorted(need.networks):
        if name not in there:
            return "target-lacks-network", f"it has no podman network {name}"
        if there[name] != driver:
            return "target-network-differs", f"its network {name} is {there[name]}, not {driver}"
    return None


def _devices(need: Need, _: HostFacts, target: HostFacts) -> Reason | None:
    missing = sorted(need.devices - set(target.devices)) if need.devices else []
    return ("target-lacks-device", f"it has no device {missing[0]}") if missing else None


def _mounts(need: Need, source: HostFacts, target: HostFacts) -> Reason | None:
    """What lies under a bind mount goes along only where an admin says that it is the same on both hosts."""
    for path in sorted(need.bind_mounts):
        for host in (source, target):
            if not any(f"{path}/".startswith(f"{top.rstrip('/')}/") for top in host.shared_paths):
                where = "there" if host is target else "on the source"
                return "target-lacks-mount", f"{path} is not among migrator.shared_paths {where}"
    return None


def _fit(need: Need, _: HostFacts, target: HostFacts) -> Reason | None:
    """What the target itself said of this container: its secrets, volumes, addresses, storage."""
    own = sorted((code, reason) for host, code, reason in need.unfit if host == target.host)
    return own[0] if own else None


def _wishes(need: Need, _: HostFacts, target: HostFacts) -> Reason | None:
    if need.pinned is not None and target.host not in need.pinned:
        pins = ", ".join(sorted(need.pinned)) or "no host at all"
        return "pinned-elsewhere", f"it is pinned to {pins} (lifeboat.pin)"
    if target.host in need.forbidden:
        return "forbidden", "an admin forbids it (lifeboat.forbid)"
    for name, value in sorted(need.required):
        if target.labels.get(name) != value:
            found = target.labels.get(name)
            return "target-lacks-label", f"its {name} is {found or 'not said'}, not {value} (lifeboat.require)"
    return None


NEED_FILTERS: tuple[NeedFilter, ...] = (
    _same_host,
    _health,
    _processor,
    _registers,
    _programs,
    _criu,
    _cold,
    _kernel,
    _networks,
    _devices,
    _mounts,
    _fit,
    _wishes,
)


def _memory(claim: Claim, room: Room) -> Reason | None:
    free = room.memory_bytes - room.headroom_bytes
    if claim.memory_bytes <= free:
        return None
    return "target-lacks-memory", (
        f"{claim.memory_bytes >> 20} MiB are needed, {max(0, free) >> 20} MiB are free there "
        f"({room.headroom_bytes >> 20} MiB kept back)"
    )


def _disk(claim: Claim, room: Room) -> Reason | None:
    if claim.disk_bytes + DISK_HEADROOM_BYTES <= room.disk_bytes:
        return None
    return "target-lacks-disk", (
        f"{claim.disk_bytes >> 20} MiB of disk are needed, {max(0, room.disk_bytes) >> 20} MiB are free there "
        f"({DISK_HEADROOM_BYTES >> 20} MiB kept back)"
    )


def _names(claim: Claim, room: Room) -> Reason | None:
    taken = sorted(claim.names & room.names)
    return ("target-name-taken", f"it has a container named {taken[0]} already") if taken else None


def _ports(claim: Claim, room: Room) -> Reason | None:
    taken = sorted(claim.ports & room.ports)
    return ("target-port-taken", f"its port {taken[0]} is in use") if taken else None


CLAIM_FILTERS: tuple[ClaimFilter, ...] = (_memory, _disk, _names, _ports)


def release(version: str) -> tuple[int, ...]:
    """Return major and minor of a version."""
    parts = version.split(".")[:2]
    return tuple(int(part) if part.isdigit() else 0 for part in parts)
