"""Podman's words about pods, one function each; see migrator.runtime.podman.

A question about a pod waits for each of its members, so none is asked while one of these is parked or frozen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from migrator.command import run
from migrator.model import NetworkAttachment, PodFacts, PublishedPort
from migrator.runtime.podman import FIXED_ADDRESS_DRIVERS, TIMEOUT_S, GoOn, exists, inspect

COMPANY = "lifeboat.company"
"""Label of a pod that was made for members that come: the migration of the first of them."""


def inspect_pod(name: str, go_on: GoOn | None = None) -> dict[str, Any]:
    """Return podman's description of a pod; raises `CommandError` when there is none of this name."""
    found = json.loads(run(["podman", "pod", "inspect", name], timeout_s=TIMEOUT_S, go_on=go_on).output)
    described: dict[str, Any] = found[0] if isinstance(found, list) else found  # podman 4 has no list
    return described


def has_pod(name: str) -> bool:
    """Say whether there is a pod of this name or id; it does not wait for anything. See `podman.exists`."""
    return exists("pod", name)


def create_pod(pod: PodFacts, networks: Sequence[NetworkAttachment], company: str) -> str:
    """Create a pod like this one, stopped, with the same addresses; return its id.

    A restart policy of the pod itself is left out: its members have theirs, and what they start starts the pod.
    """
    return run(["podman", "pod", "create", *_words(pod, networks, company)], timeout_s=TIMEOUT_S).output.strip()


def _words(pod: PodFacts, networks: Sequence[NetworkAttachment], company: str) -> Iterator[str]:
    yield from (f"--name={pod.name}", f"--hostname={pod.hostname}", f"--share={','.join(pod.shares)}")
    yield f"--exit-policy={pod.exit_policy}"
    yield from (f"--label={key}={value}" for key, value in pod.labels.items() if key != COMPANY)
    yield f"--label={COMPANY}={company}"
    yield from (f"--network={_network(network)}" for network in networks)
    if not networks:
        yield "--network=none"
    yield from (f"--publish={_port(port)}" for port in pod.ports)
    if pod.shared_memory_bytes:
        yield f"--shm-size={pod.shared_memory_bytes}b"
    yield from (f"--dns={server}" for server in pod.dns_servers)
    yield from (f"--dns-search={domain}" for domain in pod.dns_search)
    yield from (f"--dns-option={option}" for option in pod.dns_options)
    yield from (f"--add-host={entry}" for entry in pod.hosts)


def _network(network: NetworkAttachment) -> str:
    said = [f"interface_name={network.interface}"]
    if network.driver in FIXED_ADDRESS_DRIVERS:
        said += [f"ip={address.partition('/')[0]}" for address in network.addresses]
        if network.driver != "ipvlan":  # an ipvlan's hardware address is its host's
            said.append(f"mac={network.mac}")
    return f"{network.network}:{','.join(said)}"


def _port(port: PublishedPort) -> str:
    address = f"[{port.host_address}]" if ":" in port.host_address else port.host_address
    at = f"{address}:{port.host_port}" if address else str(port.host_port)
    return f"{at}:{port.container_port}/{port.protocol}"


def mounted_at(container: str, destination: str) -> str:
    """Return what of this host is mounted at a place in a container, empty when nothing is."""
    specification = json.loads(Path(inspect(container)["OCIConfigPath"]).read_text())
    return mount_source(specification, destination)


def mount_source(specification: Mapping[str, Any], destination: str) -> str:
    """Return the source of the mount at a place, by an OCI specification."""
    for item in specification.get("mounts") or ():
        if item.get("destination") == destination:
            return str(item.get("source", ""))
    return ""


def infra_of(pod: str) -> str:
    """Return the id of a pod's infra container; nothing of the pod is parked or frozen."""
    return str(inspect_pod(pod)["InfraContainerID"])


def remove_pod(pod: str) -> None:
    """Remove a pod with all that is in it, at once; quiet when it is gone."""
    run(["podman", "pod", "rm", "--force", "--ignore", "--time", "0", pod], timeout_s=TIMEOUT_S, check=False)
