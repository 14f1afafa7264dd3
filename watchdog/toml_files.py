"""The one loader for everything an admin writes: settings and policies.

It reports *all* errors of a file at once, each with file, line, key, what was read, what is allowed and the
nearest name. `policy check`, start, reload and the tests use it.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from migrator.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[str | int, ...]
"""Where something stands in a file: the keys, and numbers of tables from 0, that lead to it."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file; `line` is 0 when it concerns the whole file."""

    file: Path
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class FileError(UsageError):
    """A file, or several, that cannot be used; `problems` has every one of its errors."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, problems)), code="bad-file")


def load(path: Path, model: type[Model]) -> Model:
    """Read a TOML file as `model`; raises `FileError` with everything that is wrong with it."""
    return parse(read(path), path, model)


def read(path: Path) -> str:
    """Return the text of a file; raises `FileError` when there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FileError([Problem(path, 0, "", "there is no such file")]) from error
    except (OSError, UnicodeDecodeError) as error:
        raise FileError([Problem(path, 0, "", f"cannot be read: {error}")]) from error


def parse(text: str, path: Path, model: type[Model]) -> Model:
    """Read TOML text as `model`; `path` names it in errors."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"line (\d+)", str(error))
        problem = Problem(path, int(place.group(1)) if place else 0, "", f"is not TOML: {error}")
        raise FileError([problem]) from error
    try:
        found: Model | None = model.model_validate(data)
        problems: list[Problem] = []
    except ValidationError as error:
        found, problems = None, [_problem(path, text, model, item) for item in error.errors()]
    cross_check: Callable[[Any], Iterable[tuple[Location, str]]] | None = getattr(model, "cross_check", None)
    if cross_check is not None:
        problems += [problem_at(path, text, location, message) for location, message in cross_check(data)]
    if problems or found is None:
        raise FileError(sorted(dict.fromkeys(problems), key=lambda problem: problem.line))
    return found


def problem_at(path: Path, text: str, location: Location, message: str) -> Problem:
    """Return a problem of what stands at a place of a file's text."""
    key = ".".join(str(part + 1) if isinstance(part, int) else str(part) for part in location)
    return Problem(path, line_of(text, location), key, message)


def _problem(path: Path, text: str, model: type[BaseModel], error: Any) -> Problem:
    location = tuple(part for part in error["loc"] if not _is_union_branch(part))
    return problem_at(path, text, location, _message(model, location, error))


def _message(model: type[BaseModel], location: Location, error: Any) -> str:
    read = error.get("input")
    if error["type"] == "extra_forbidden":
        allowed = _fields(model, location[:-1])
        return f"is no key here{nearest(str(location[-1]), allowed)}; allowed: {', '.join(sorted(allowed))}"
    if error["type"] == "missing":
        return "is missing"
    said = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "enum":
        allowed = re.findall(r"'([^']+)'", said)
        return f"read {read!r}{nearest(str(read), allowed)}; allowed: {', '.join(allowed)}"
    return f"read {read!r}: {said}" if isinstance(read, str | int | float) else said


def nearest(word: str, allowed: Sequence[str]) -> str:
    """Return a question with the name that was probably meant, or nothing."""
    found = difflib.get_close_matches(word, allowed, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def line_of(text: str, location: Location) -> int:
    """Return the line on which a key path stands, or that of the table it should stand in; 0 if unknown."""
    lines = text.splitlines()
    table: int | None = None  # index of the line that opened the innermost table found so far
    line = 0
    for number, part in enumerate(location):
        if isinstance(part, int):
            continue
        following = location[number + 1] if number + 1 < len(location) else 0
        count = following + 1 if isinstance(following, int) else 1
        found = _find(lines, table, part, count)
        if found is None:
            return line
        line, table = found + 1, found
    return line


def _find(lines: Sequence[str], table: int | None, key: str, count: int) -> int | None:
    """Find the `count`-th line behind that of `table` that opens a table of the name, or sets the key in it."""
    name = re.escape(key)
    opens = re.compile(rf"^\s*\[+\s*([\w.\"-]+\.)*\"?{name}\"?\s*\]+")
    sets = re.compile(rf"^\s*\"?{name}\"?\s*=")
    inside = True
    for index in range(0 if table is None else table + 1, len(lines)):
        if opens.match(lines[index]) or (inside and sets.match(lines[index])):
            count -= 1
            if count == 0:
                return index
        inside = inside and not re.match(r"^\s*\[", lines[index])
    return None


def _is_union_branch(part: str | int) -> bool:
    """Pydantic names the tried type of a union in the path; nobody wrote that."""
    return isinstance(part, str) and ("[" in part or part in ("str", "int", "float", "bool"))


def _fields(model: type[BaseModel], location: Location) -> list[str]:
    """Return the keys allowed at a place of the model."""
    current: Any = model
    for part in location:
        if isinstance(part, int) or not hasattr(current, "model_fields"):
            continue
        field = current.model_fields.get(part)
        current = _inner(field.annotation) if field else current
    fields = getattr(current, "model_fields", {})
    return [field.alias or name for name, field in fields.items()]


def _inner(annotation: Any) -> Any:
    """Return the model inside `tuple[Model, ...]`, `Model | None` and the like."""
    for argument in getattr(annotation, "__args__", ()):
        if hasattr(argument, "model_fields"):
            return argument
    return annotation
