"""The house rules that a machine can check."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted([*(ROOT / "watchdog").rglob("*.py"), *(ROOT / "migrator").rglob("*.py")])
PURE = (
    "watchdog/policy/evaluate.py",
    "watchdog/policy/nearness.py",
    "watchdog/state.py",
    "watchdog/storm.py",
    "migrator/protocol/steps.py",
)
PURE_PACKAGES = ("migrator/choice/", "migrator/planning/")
IMPURE_IMPORTS = {"subprocess", "time", "os", "socket", "threading", "pathlib"}
LONGEST_FUNCTION, LONGEST_MODULE = 50, 400


def imports(tree: ast.AST) -> set[str]:
    """Return the names of all imported modules."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    text = path.read_text()
    tree = ast.parse(text)
    tops = {module.split(".")[0] for module in imports(tree)}
    assert ast.get_docstring(tree), "a module says what it is"
    assert text.count("\n") <= LONGEST_MODULE
    if name.startswith("migrator/"):
        assert "watchdog" not in tops, "migrator never imports watchdog"
    if name in PURE or name.startswith(PURE_PACKAGES):
        assert not tops & IMPURE_IMPORTS, "decisions take values and return values"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, node.name
        if isinstance(node, ast.Attribute) and node.attr in ("Popen", "check_output", "check_call"):
            annotation = name != "migrator/command.py" and "Popen(" in text
            assert not annotation, "programs are started by migrator.command only"
