"""Libraries that come later: the daemon starts without them, and they are there when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from migrator.later import Later

HEAVY = ("cryptography", "requests", "pyroute2", "rich", "prometheus_client", "charset_normalizer")
LOADED = "import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
FOR_NO_COMMAND = (*HEAVY, "fastapi", "starlette", "uvicorn", "pydantic", "apscheduler", "sqlite3")


def loaded_by(modules: str) -> list[str]:
    """Return the packages that are loaded after a new interpreter has imported `modules`."""
    code = LOADED.format(module=modules)
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


def test_a_module_is_loaded_when_it_is_looked_into() -> None:
    code = (
        "import sys; from migrator.later import Later; m = Later('fractions'); before = 'fractions' in sys.modules;"
    )
    code += "print(before, m.Fraction(1, 2), 'fractions' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.split() == ["False", "1/2", "True"]


def test_a_module_that_is_not_there_is_told_when_it_is_used() -> None:
    missing = Later("no_such_library")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        _ = missing.anything


def test_an_idle_daemon_does_without_heavy_libraries() -> None:
    said = loaded_by("watchdog.daemon.main")
    assert "watchdog" in said
    assert [name for name in HEAVY if name in said] == []


def test_a_command_does_without_heavy_libraries() -> None:
    said = loaded_by("watchdog.cli.main, watchdog.cli.watch, watchdog.cli.act")
    assert "watchdog" in said
    assert [name for name in FOR_NO_COMMAND if name in said] == []
