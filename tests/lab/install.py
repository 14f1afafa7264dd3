"""lifeboat in a lab host, put together as on a real one: wheel, private environment, units, policies.

Two layers on the root: the Python packages lifeboat depends on (made anew when pyproject.toml changes), and
lifeboat itself (made anew when its source changes, which takes some seconds).
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from migrator import command
from migrator.errors import ExecutionError
from tests.lab.cache import cached
from tests.lab.layers import build_layer
from tests.lab.settings import CHECKOUT

VENV = "/usr/lib/lifeboat/venv"
WHEEL_TAGS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014", "linux")
"""Binary packages Debian 13 (glibc 2.41) can use, newest kind first (PEP 600)."""

DOWNLOAD_TIMEOUT_S = 600
BUILD_TIMEOUT_S = 300
SOURCES = (
    "pyproject.toml",
    "README.md",
    "run",
    "migrator",
    "watchdog",
    "policies",
    "systemd",
    "docs/man",
    "docs/samples",
)
SITE = f"{VENV}/lib/python3.*/site-packages"
COMPILE = "python3 -OO -m compileall -qq"
"""As the daemon runs (PYTHONOPTIMIZE); pip compiles for others only, and each new host would do it anew."""
COMPILE_PACKAGES = f"{COMPILE} {SITE} || true; {COMPILE} -x '/(test|tests|idlelib)/' /usr/lib/python3.* || true"
COMPILE_PROJECT = f"{COMPILE} {SITE}/migrator {SITE}/watchdog"
BUILD_REQUIREMENT = "setuptools>=77"  # not needed here, but by `./run install` in a host without a network
LEFT_OVER = ("__pycache__", "*.so")  # what an editable installation leaves among the sources


def layers(root: Path) -> list[Path]:
    """Return the layers of a host with lifeboat installed, topmost first, the root last."""
    packages = dependencies_layer(root)
    return [project_layer(root, packages), packages, root]


def dependencies_layer(root: Path) -> Path:
    """Return the layer with the private environment and everything but lifeboat in it."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"]
    recipe = json.dumps([wanted, BUILD_REQUIREMENT, root.name, COMPILE_PACKAGES])
    return cached("packages", recipe, lambda target: build_dependencies(target, root, wanted)) / "files"


def build_dependencies(target: Path, root: Path, wanted: list[str]) -> None:
    """Download with this machine's pip and its settings, then install in the root without a network."""
    wheels = target / "wheels"
    wheels.mkdir(parents=True)
    download([*wanted, BUILD_REQUIREMENT], python_of(root), wheels)
    pip = f"{VENV}/bin/pip install --quiet --no-index --find-links /mnt"
    script = f'python3 -m venv {VENV}; {pip} "$@"; {COMPILE_PACKAGES}'
    build_layer(target, [root], (wheels, "/mnt"), ["sh", "-ec", script, "sh", *wanted])


def download(wanted: list[str], version: str, directory: Path) -> None:
    """Fetch the packages for the root's Python, which need not be the one that runs this."""
    platforms = [f"--platform={tag}_{platform.machine()}" for tag in WHEEL_TAGS]
    target = [f"--python-version={version}", "--implementation=cp", "--only-binary=:all:", *platforms]
    pip = [sys.executable, "-m", "pip", "download", "-qq", "--dest", str(directory)]
    result = command.run([*pip, *target, *wanted], timeout_s=DOWNLOAD_TIMEOUT_S, check=False)
    if result.status != 0:
        raise ExecutionError(f"Python packages cannot be had: {result.reason}", code="lab-packages")


def python_of(root: Path) -> str:
    """Return the version of the root's Python, as in `3.13`."""
    return (root / "usr/bin/python3").readlink().name.removeprefix("python")


def project_layer(root: Path, packages: Path) -> Path:
    """Return the layer with this checkout's lifeboat."""
    recipe = json.dumps([str(packages), digest_of_sources(), COMPILE_PROJECT])
    return cached("lifeboat", recipe, lambda target: build_project(target, root, packages), keep=4) / "files"


def build_project(target: Path, root: Path, packages: Path) -> None:
    """Build the wheel here, where a compiler is, install it inside the root, and place all other files."""
    with tempfile.TemporaryDirectory(prefix="lifeboat-lab-") as name:
        copy, wheels = Path(name, "source"), Path(name, "wheels")
        for source in SOURCES:
            copy_source(CHECKOUT / source, copy / source)
        pip = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-index", "--no-build-isolation"]
        command.run([*pip, "--wheel-dir", str(wheels), str(copy)], timeout_s=BUILD_TIMEOUT_S)
        script = f"{VENV}/bin/pip install --quiet --no-deps --no-index /mnt/*.whl; {COMPILE_PROJECT}"
        build_layer(target, [packages, root], (wheels, "/mnt"), ["sh", "-ec", script])
        place = [str(copy / "run"), "place-files", str(target / "files")]
        command.run(place, timeout_s=60)


def copy_source(source: Path, target: Path) -> None:
    """Copy a file or a directory, if it is there, without what building leaves behind."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*LEFT_OVER))
    elif source.exists():
        shutil.copy2(source, target)


def digest_of_sources() -> str:
    """Return a hash of all that is installed, so that a change of any file is seen."""
    digest = hashlib.sha256()
    for source in SOURCES:
        top = CHECKOUT / source
        files = sorted(top.rglob("*")) if top.is_dir() else [top]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".so":
                digest.update(f"{file.relative_to(CHECKOUT)}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()
