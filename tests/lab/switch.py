"""The bridge that joins the hosts, in a network namespace of its own, so the machine keeps its network."""

from __future__ import annotations

from migrator import command
from tests.lab.namespaces import in_network
from tests.lab.settings import ipv4, ipv6

TIMEOUT_S = 20


def set_up(switch: int) -> None:
    """Make the bridge; it forwards at once (no spanning tree) and keeps out of multicast."""
    ip_batch(
        switch,
        [
            "link set lo up",
            "link add lan type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            "link set lan up",
        ],
    )


def plug(switch: int, name: str, holder: int, number: int) -> None:
    """Join the network of process `holder` to the bridge as eth0, with the addresses of `number`."""
    ip_batch(
        switch,
        [
            f"link add {name} type veth peer name eth0 netns {holder}",
            f"link set {name} master lan",
            f"link set {name} up",
        ],
    )
    ip_batch(
        holder,
        [
            "link set lo up",
            f"address add {ipv4(number)}/24 dev eth0",
            f"address add {ipv6(number)}/64 dev eth0 nodad",
            "link set eth0 up",
        ],
    )


def cut(switch: int, one: str, other: str, nft: list[str]) -> None:
    """Drop all that goes between two ports, in both directions."""
    rules = (
        "add table bridge cut\n"
        "add chain bridge cut forward { type filter hook forward priority 0 ; }\n"
        f'add rule bridge cut forward iifname "{one}" oifname "{other}" drop\n'
        f'add rule bridge cut forward iifname "{other}" oifname "{one}" drop\n'
    )
    command.run([*in_network(switch, nft), "-f", "-"], timeout_s=TIMEOUT_S, stdin=rules.encode())


def heal(switch: int, nft: list[str]) -> None:
    """Let everything through again."""
    rules = b"add table bridge cut\ndelete table bridge cut\n"
    command.run([*in_network(switch, nft), "-f", "-"], timeout_s=TIMEOUT_S, stdin=rules)


def ip_batch(holder: int, lines: list[str]) -> None:
    """Run several commands of ip(8) in the network of a process."""
    argv = in_network(holder, ["ip", "-batch", "-"])
    command.run(argv, timeout_s=TIMEOUT_S, stdin="".join(f"{line}\n" for line in lines).encode())
