"""Podman's words, one function each. Formats are podman 5's `--format json` outputs.

Podman holds a container's lock while it is parked or drained, and any command that looks at this container
waits for it; so every call here has a time-out, and names one container or leaves out those that move.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from migrator.admission.rules import Places
from migrator.command import run
from migrator.errors import CommandError, PrerequisiteError
from migrator.model import ContainerFacts, NetworkAttachment, NetworkFacts
from migrator.runtime.cgroup import Cgroup
from migrator.words import ORIGIN, UNIT_LABEL

TIMEOUT_S = 60.0
"""A question takes podman 0.1 s of processor time; a host whose processors are busy is not a broken one."""

START_LIMIT_S = 120.0
INFO_LIMIT_S = 15.0  # it looks at every container, those that move, too
FIXED_ADDRESS_DRIVERS = ("macvlan", "ipvlan", "bridge")
INSPECTED_AT_ONCE = 100  # one description has about 15 KB, and what a program says is cut at 16 MiB
CREATED_FROM = f"--annotation={ORIGIN}="
ID = re.compile("[0-9a-f]{64}")

GoOn = Callable[[], None]


def listed(leave_out: Collection[str] = (), *, volume: str = "", go_on: GoOn | None = None) -> list[dict[str, Any]]:
    """Return what `podman ps` says of the containers here, running or not; with `volume`, of those that use it.

    Those whose ids are left out are not looked at, and so not waited for; a filter by state would look at all.
    """
    argv = ["podman", "ps", "--all", "--no-trunc", "--format", "json"]
    argv += [f"--filter=volume={volume}"] if volume else []
    if ids := {item for item in leave_out if ID.fullmatch(item)}:
        argv.append(f"--filter=id={all_but(ids)}")
    found: list[dict[str, Any]] = _json(argv, go_on) or []
    return found


def all_but(ids: Collection[str]) -> str:
    """Return a regular expression of all ids but these; Go's have no negation, so it is spelt out by digits."""

    def others(tails: Collection[str]) -> str:
        digits = sorted({tail[0] for tail in tails})
        ways = [f"[^{''.join(digits)}]"]
        for digit in digits:
            if rest := {tail[1:] for tail in tails if tail[0] == digit and tail[1:]}:
                ways.append(digit + others(rest))
        return f"(?:{'|'.join(ways)})"

    return f"^{others(ids)}"


def inspect(name: str, go_on: GoOn | None = None) -> dict[str, Any]:
    """Return podman's description of one container; raises `CommandError` when there is none of this name."""
    found: dict[str, Any] = _json(["podman", "container", "inspect", name], go_on)[0]
    return found


def inspect_all(names: Sequence[str], go_on: GoOn | None = None) -> list[dict[str, Any]]:
    """Return podman's descriptions of containers; one that has vanished is not among them."""
    found: list[dict[str, Any]] = []
    for first in range(0, len(names), INSPECTED_AT_ONCE):
        argv = ["podman", "container", "inspect", *names[first : first + INSPECTED_AT_ONCE]]
        found += _found(argv, go_on)
    return found


def _found(argv: Sequence[str], go_on: GoOn | None = None) -> list[dict[str, Any]]:
    """Return what an `inspect` of several things knows; podman says last which one there is not."""
    asked = run(argv, timeout_s=TIMEOUT_S, check=False, go_on=go_on)
    if asked.status != 0 and "no such" not in asked.errors.lower():
        raise CommandError(asked.reason, code="command-failed")
    return json.loads(asked.output or "null") or []


def is_running(name: str) -> bool:
    """Say whether podman takes a container of this name or id for running; one that is not here does not run.

    Raises `CommandError` when podman cannot tell.
    """
    argv = ["podman", "container", "inspect", "--format", "{{.State.Running}}", name]
    asked = run(argv, timeout_s=TIMEOUT_S, check=False)
    if asked.status != 0 and "no such container" not in asked.errors.lower():
        raise CommandError(asked.reason, code="command-failed")
    return asked.status == 0 and asked.output.strip() == "true"


def exists(kind: str, name: str) -> bool:
    """Say whether there is a thing of this kind (`container`, `image`, `pod`, `volume`) here.

    Raises `CommandError` when podman cannot tell: it ends with 1 for no (podman-container-exists(1)), and with 125
    when it failed, as on a disk that takes no writes. Taken for a no, that would free what is still here.
    """
    asked = run(["podman", kind, "exists", name], timeout_s=TIMEOUT_S, check=False)
    if asked.status not in (0, 1):
        raise CommandError(asked.reason, code="command-failed")
    return asked.status == 0


def start(name: str) -> None:
    """Start a stopped container; one that runs is left alone."""
    run(["podman", "start", name], timeout_s=START_LIMIT_S)


def start_by_policy(name: str) -> None:
    """Start a container that its restart policy, or its systemd unit, would have started at boot."""
    inspected = inspect(name)
    unit = (inspected["Config"].get("Labels") or {}).get(UNIT_LABEL)
    if inspected["HostConfig"].get("RestartPolicy", {}).get("Name") in ("always", "unless-stopped"):
        start(name)
    elif unit:
        run(["systemctl", "start", unit], timeout_s=START_LIMIT_S)


def stop(name: str, timeout_s: float) -> None:
    """Stop a container as podman does: its stop signal, and the kill when its own time is over.

    `timeout_s` is what podman may take besides that time, which is the container's to choose.
    """
    inspected = inspect(name)
    run(["podman", "stop", name], timeout_s=timeout_s + float(inspected["Config"].get("StopTimeout") or 0))


def kill_and_wait(name: str) -> None:
    """Kill a container, frozen or not, and return when podman knows that it has ended; quiet when it does not run.

    A frozen process dies of SIGKILL (cgroup v2), but `podman kill` would wait for a paused one.
    """
    if is_running(name):
        Cgroup.of_process(first_pid(name)).kill()
        run(["podman", "wait", name], timeout_s=START_LIMIT_S, check=False)


def create_argv(name: str, facts: ContainerFacts) -> tuple[str, ...]:
    """Return the command that creates this container anew elsewhere, with the address it has here.

    Made of the words with which it was created here (`CreateCommand`); raises `PrerequisiteError` when podman does
    not know them, as for one made through its API.
    """
    words = list(inspect(name)["Config"].get("CreateCommand") or ())
    verb = next((index for index, word in enumerate(words) if word in ("run", "create")), None)
    if verb is None:
        raise PrerequisiteError(
            f"podman does not know how {name} was created", code="no-create-command", hint="make it with podman run"
        )
    head, tail = ["podman", *words[1:verb], "create"], words[verb + 1 :]
    dropped = ("-d", "--detach", "--replace", "--detach=true", "--replace=true")
    kept = [word for word in tail if word not in dropped and not word.startswith(CREATED_FROM)]
    if not any(word == "--name" or word.startswith("--name=") for word in kept):
        head += ["--name", facts.name]
    if len(facts.networks) == 1 and facts.networks[0].driver in FIXED_ADDRESS_DRIVERS:
        head += _identity(facts.networks[0], kept)
    return (*head, *kept)


def created_from(argv: Sequence[str], container: str) -> list[str]:
    """Return a command of `create_argv`, for whose container the ban of `container`, its id elsewhere, holds.

    Podman gives that an id of its own, which nobody knows beforehand: `tombstone` tells how the ban finds it.
    """
    verb = argv.index("create") + 1
    return [*argv[:verb], CREATED_FROM + container, *argv[verb:]]


def created_here(container: str, name: str) -> str:
    """Return the id of a container of this name here that was `created_from` another (its id); empty for none."""
    for inspected in inspect_all([name]):
        if (inspected["Config"].get("Annotations") or {}).get(ORIGIN) == container:
            return str(inspected["Id"])
    return ""


def _identity(network: NetworkAttachment, said: Sequence[str]) -> Iterator[str]:
    """Yield the options that give a container the addresses it has here, but for what is said already."""
    inside = (part for word in said for part in word.partition(":")[2].split(","))  # --network lan:ip=...,mac=...
    known = {word.partition("=")[0].removeprefix("--") for word in (*said, *inside)}
    for address in network.addresses:
        bare = address.partition("/")[0]
        option = "ip6" if ":" in bare else "ip"
        if option not in known:
            yield from (f"--{option}", bare)
    if network.driver != "ipvlan" and not known & {"mac-address", "mac"}:  # an ipvlan's is its host's
        yield from ("--mac-address", network.mac)


def network_drivers() -> dict[str, str]:
    """Return name -> driver of this host's podman networks."""
    return {item["name"]: item["driver"] for item in _json(["podman", "network", "ls", "--format", "json"])}


@dataclass(frozen=True)
class Directories:
    """Where the files of one container lie."""

    upper: Path  # its writable layer
    shared_memory: Path  # the tmpfs that is its /dev/shm


def directories(name: str) -> Directories:
    """Return where the files of a container lie."""
    inspected = inspect(name)
    driver = inspected["GraphDriver"]
    if driver["Name"] != "overlay":
        raise PrerequisiteError(
            f"storage driver {driver['Name']} of {name}",
            code="storage-driver",
            hint="only overlay is supported",
        )
    return Directories(Path(driver["Data"]["UpperDir"]), Path(inspected["StaticDir"]) / "shm")


def first_pid(name: str) -> int:
    """Return the pid of a container's first process."""
    return int(inspect(name)["State"]["Pid"])


def network_status(facts: ContainerFacts) -> dict[str, Any]:
    """Return what podman calls `network.status`: the addresses a restore must use again."""
    return {
        attachment.network: {
            "interfaces": {
                attachment.interface: {
                    "subnets": [{"ipnet": address} for address in attachment.addresses],
                    "mac_address": attachment.mac,
                }
            }
        }
        for attachment in facts.networks
    }


def has_image(image_id: str) -> bool:
    """Say whether an image with this id or name is here; see `exists`."""
    return exists("image", image_id)


def ensure_name(image_id: str, name: str) -> None:
    """Let an image that came by its id be found by the name its container was made from."""
    if name and not has_image(name):
        run(["podman", "tag", image_id, name], timeout_s=TIMEOUT_S)


def is_nameless(image_id: str) -> bool:
    """Say whether an image is here and has no name, so that nobody asked for it by one."""
    argv = ["podman", "image", "inspect", "--format", "{{len .RepoTags}}", image_id]
    asked = run(argv, timeout_s=TIMEOUT_S, check=False)
    return asked.status == 0 and asked.output.strip() == "0"


def remove_image(image: str) -> None:
    """Remove an image by name or id; quiet when it is gone or in use."""
    run(["podman", "image", "rm", image], timeout_s=TIMEOUT_S, check=False)


def has_container(name: str) -> bool:
    """Say whether a container of this name or id is known here, running or not; see `exists`."""
    return exists("container", name)


def create_volume(name: str, options: Mapping[str, str], labels: Mapping[str, str]) -> None:
    """Create a named volume of the driver `local`, with its options as podman shows them in `volume inspect`."""
    argv = ["podman", "volume", "create"]
    for option in ("type", "device", "o"):
        if option in options:
            argv += ["--opt", f"{option}={options[option]}"]
    for label, value in labels.items():
        argv += ["--label", f"{label}={value}"]
    run([*argv, name], timeout_s=TIMEOUT_S)


def inspect_volume(name: str) -> dict[str, Any]:
    """Return podman's description of a named volume."""
    found: dict[str, Any] = _json(["podman", "volume", "inspect", name])[0]
    return found


def inspect_volumes(names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return podman's descriptions of named volumes by their names; one that has vanished is not among them."""
    argv = ["podman", "volume", "inspect", *sorted(names)]
    return {item["Name"]: item for item in (_found(argv) if names else ())}


def secret_names() -> tuple[str, ...]:
    """Return the names of this host's secrets."""
    names = run(["podman", "secret", "ls", "--format", "{{.Name}}"], timeout_s=TIMEOUT_S)
    return tuple(names.output.split())


def image_bytes(image_id: str) -> int:
    """Return the size of an image."""
    return int(_json(["podman", "image", "inspect", image_id])[0]["Size"])


def has_volume(name: str) -> bool:
    """Say whether a volume of this name is here; see `exists`."""
    return exists("volume", name)


def volume_names() -> tuple[str, ...]:
    """Return the names of all volumes here."""
    return tuple(run(["podman", "volume", "ls", "--quiet"], timeout_s=TIMEOUT_S).output.split())


def volume_path(name: str) -> Path:
    """Return where a named volume is mounted on the host."""
    return Path(inspect_volume(name)["Mountpoint"])


def remove_volume(name: str) -> None:
    """Remove a named volume; quiet when it is gone."""
    run(["podman", "volume", "rm", name], timeout_s=TIMEOUT_S, check=False)


def remove_container(name: str) -> None:
    """Remove a container whatever its state, at once; quiet when it is gone."""
    run(["podman", "rm", "--force", "--ignore", "--time", "0", name], timeout_s=60, check=False)


def renew_health_check(name: str, interval: str) -> None:
    """Let podman make the timer of a health check anew: a restore makes none, a change of the interval does.

    One that is no change does nothing (libpod, `IsTimeChanged`), so there are two. `interval` is in `ms`. Raises
    `CommandError` with podman before 5.4.
    """
    for text in (f"{int(interval.removesuffix('ms')) + 1}ms", interval):
        run(["podman", "update", f"--health-interval={text}", name], timeout_s=TIMEOUT_S)


def checkpoint_argv(name: str, archive: Path) -> list[str]:
    """Return the command whose runtime call is parked on the source.

    With `--export` podman writes its own description of the container before it calls the runtime.
    """
    argv = ["podman", "container", "checkpoint", "--tcp-established", "--file-locks", "--ignore-rootfs"]
    return [*argv, "--ignore-volumes", "--compress", "none", "--export", str(archive), name]


def write_checkpoint_archive(archive: Path, members: Mapping[str, str]) -> None:
    """Write what `podman container restore --import` needs to see of a checkpoint, given podman's own files."""
    with tarfile.open(archive, "w") as tar:
        for name, text in {**members, "checkpoint/inventory.img": "the images come later\n"}.items():
            data = text.encode()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o600
            tar.addfile(member, BytesIO(data))


def restore_argv(archive: Path, pod: str = "") -> list[str]:
    """Return the command whose runtime call is parked on the target; `pod` is the one (its id) that it joins."""
    argv = ["podman", "container", "restore", "--tcp-established", "--file-locks", "--ignore-rootfs"]
    argv += ["--pod", pod] if pod else []
    return [*argv, "--ignore-volumes", "--import", str(archive)]


def _json(argv: Sequence[str], go_on: GoOn | None = None) -> Any:
    result = run(argv, timeout_s=TIMEOUT_S, go_on=go_on)
    return json.loads(result.output or "null")


@cache
def places() -> Places:
    """Return where this host's podman keeps its things.

    Asked once: podman looks at every container for this answer, so it waits for a parked one.
    """
    told = run(["podman", "info", "--format", "json"], timeout_s=INFO_LIMIT_S)
    store = json.loads(told.output)["store"]
    return Places(Path(store["graphRoot"]), Path(store["runRoot"]), Path(store["volumePath"]))


def networks() -> tuple[NetworkFacts, ...]:
    """Return this host's podman networks."""
    return tuple(
        NetworkFacts(
            name=item["name"],
            driver=item["driver"],
            subnets=tuple(subnet["subnet"] for subnet in item.get("subnets") or ()),
        )
        for item in _json(["podman", "network", "ls", "--format", "json"])
    )


def image_ids() -> tuple[str, ...]:
    """Return the ids of all images here."""
    ids = run(["podman", "image", "ls", "--quiet", "--no-trunc"], timeout_s=TIMEOUT_S)
    return tuple(line.removeprefix("sha256:") for line in ids.output.split())
