"""What migrations leave behind when they do not clean up."""

from __future__ import annotations

from tests.lab.host import Host


def leftovers(host: Host) -> list[str]:
    """Return what a migration has left on a host that should be clean."""
    found = []
    places = ["/run/lifeboat/migrations", "/run/lifeboat/allowed", "/run/lifeboat/pods"]
    places += [f"/var/lib/lifeboat/{name}" for name in ("banned", "staging", "made", "pods")]
    if files := host.run(["find", *places, "-mindepth", "1"], check=False).output.split():
        found.append(f"files {files[:3]}")
    units = host.run(["systemctl", "list-units", "--plain", "--no-legend", "lifeboat-*"]).output.splitlines()
    # podman's monitor of a container that came stays in the scope in which podman was started
    running = host.run(["podman", "ps", "--quiet"]).output
    if left := [line.split()[0] for line in units if not (running and line.startswith("lifeboat-target-"))]:
        found.append(f"scopes {left}")
    for namespace in host.run(["sh", "-c", "ls /run/netns 2>/dev/null || true"]).output.split():
        tables = host.run(["nsenter", f"--net=/run/netns/{namespace}", "nft", "list", "tables"], check=False).output
        if "lifeboat_gate" in tables:
            found.append(f"a gate in {namespace}")
    namespaces = host.run(["sh", "-c", "ls /run/netns 2>/dev/null | wc -l"]).output.strip()
    if int(namespaces) > len(running.split()):
        found.append(f"{namespaces} network namespaces for {len(running.split())} containers")
    mounts = host.run(["sh", "-c", "grep -c -E 'criu-root|/merged ' /proc/self/mountinfo || true"]).output.strip()
    if int(mounts) > len(running.split()):
        found.append(f"{mounts} mounts for {len(running.split())} containers")
    ours = "pgrep -a -f 'migrator[.]|lifeboat[-](guard|room)|criu (dump|restore)' || true"
    if processes := host.run(["sh", "-c", ours]).output:
        found.append(f"processes {processes.splitlines()[:3]}")
    return found


def volumes(host: Host) -> list[str]:
    """Return the volumes of a host: one to which nothing came has none that came, even half, with a container.

    Where a container was they stay when it goes, for it may come back.
    """
    return host.run(["podman", "volume", "ls", "--quiet"]).output.split()
