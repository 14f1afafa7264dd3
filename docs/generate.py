"""Write what can be derived from the code: man pages, the reference, the sample settings.

`python docs/generate.py` writes them; `tests/pure/test_docs.py` fails when they are out of date.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from migrator.choice.labels import LABELS
from watchdog.alerts.model import Event, Kind
from watchdog.cli.main import EPILOG
from watchdog.cli.main import build_parser as command_parser
from watchdog.daemon.main import build_parser as daemon_parser
from watchdog.policy.model import Condition, Rule, Window
from watchdog.settings import Settings
from watchdog.signals.catalog import CATALOG

DOCS = Path(__file__).parent
GENERATED = "Made by docs/generate.py; do not edit."

FILES = {
    "/etc/lifeboat/lifeboat.toml": "settings, see lifeboat.toml(5)",
    "/etc/lifeboat/policies/, /usr/lib/lifeboat/policies/": "policies, see lifeboat-policy(5)",
    "/etc/lifeboat/peers.json, /etc/lifeboat/pki/": "the cluster, made by lifeboat cluster",
    "/var/lib/lifeboat/": "journal, readings, outbox, tombstones; logs/ID has CRIU's logs of a migration",
    "/run/lifeboat/admin.sock": "the daemon's socket, for root only; /metrics on it speaks Prometheus",
}

DAEMON_TEXT = """\
It reads disks, memory counters and sensors, judges by policy files, and when the verdict is failing it moves to
other hosts of the cluster what would be lost: every container, or those whose storage lies on the failing devices.
Several move at once (migrator.at_once), by lazy-page live migration where they can, and only so many of them stand
still at a time as migrator.freezes_at_once says, which is one by default. Alerts go to webhooks.
It is started by lifeboatd.service, tells systemd when it is ready and that it is alive.

SIGHUP (systemctl reload lifeboatd) reads the policies again; when they are bad the last good ones stay in force and
an alert says so. SIGUSR1 writes to the journal what each of its threads does, for the case that it seems to hang:
systemctl kill --signal=USR1 --kill-whom=main lifeboatd. Settings are read at
start. What it began goes on when it is restarted, and when it dies."""

POLICY_TEXT = """\
A policy file holds rules in tables named [[rule]]. Files are read from /usr/lib/lifeboat/policies and
/etc/lifeboat/policies; one in /etc replaces the one of the same name, and a link to /dev/null removes it.

A rule has exactly one condition: is_set for flags; at_least, at_most, grows_by, rate_at_least or will_reach for
numbers; changes or blind_for for both. Or it has several, in tables [[rule.when]], of which needs says how many
must hold. It is looked at for each device on its own. readings and for say for how long a condition must hold
until the rule fires, clear_readings, clear_for and clear_at when it clears. Limits may have their unit behind
them, in quotes: '60 C', '90 %', '100 MiB'. What cannot be read neither fires nor clears a rule.

The worst verdict of all rules that have fired is the verdict on the host, if their mode is act; alert only sends
an alert, and record is only shown. Maintenance windows, in tables [[window]], and lifeboat silence lower the mode
for a time; the rules are judged all the same.

lifeboat policy check names every error of a file at once; lifeboat policy explain shows how each rule stands and
why it has not fired; lifeboat policy try judges recorded output of devices, lifeboat policy replay the past."""

COMMAND_TEXT = """\
Most verbs ask lifeboatd(8), which answers root alone. policy new, policy try, policy check, policy replay of files
and signals --catalog ask nobody and need no root; cluster works on files of root."""

COMMAND_OPTIONS = {
    "--version": "the version, and nothing else; before any verb",
    "--help": "what there is to say, of lifeboat or of a verb",
    "--json": "behind a verb: the answer as JSON on standard output. So is an error, with the keys error, code, "
    "hint and status (the exit status); its sentence is on standard error all the same.",
}

SETTINGS_TEXT = "Every key has a default; the file may be empty or missing. An unknown key is an error."


def main() -> int:
    """Write every generated file."""
    for path, text in outputs().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


def outputs() -> dict[Path, str]:
    """Return every generated file and what it must hold."""
    return {
        DOCS / "man/lifeboat.8": command_page(),
        DOCS / "man/lifeboatd.8": daemon_page(),
        DOCS / "man/lifeboat.toml.5": settings_page(),
        DOCS / "man/lifeboat-policy.5": policy_page(),
        DOCS / "samples/lifeboat.toml": sample_settings(),
        DOCS / "reference.md": reference(),
    }


# --- man pages ------------------------------------------------------------------------------------------


def page(name: str, section: int, purpose: str, *parts: str) -> str:
    """Return a man page in the macros of man(7)."""
    head = [
        f'.\\" {GENERATED}',
        f'.TH "{name}" {section} "" lifeboat lifeboat',
        ".SH NAME",
        f"{name} \\- {purpose}",
    ]
    return "\n".join([*head, *parts]) + "\n"


def section(title: str, *lines: str) -> str:
    """Return a section of a man page."""
    return "\n".join([f".SH {title.upper()}", *lines])


def paragraphs(text: str) -> str:
    """Return text as paragraphs."""
    return "\n".join(f".PP\n{escaped(part)}" for part in text.split("\n\n"))


def item(term: str, text: str) -> str:
    """Return a tagged paragraph."""
    return f".TP\n.B {escaped(term)}\n{escaped(text)}"


def literal(text: str) -> str:
    """Return text that keeps its lines."""
    return f".PP\n.nf\n.RS 4\n{escaped(text.rstrip())}\n.RE\n.fi"


def escaped(text: str) -> str:
    """Keep roff from reading text as its own."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").splitlines()
    return "\n".join("\\&" + line if line.startswith((".", "'")) else line for line in lines)


def command_page() -> str:
    """Return lifeboat(8)."""
    parser = command_parser()
    verbs = "\n".join(verb_text(words, sub) for words, sub in subparsers(parser))
    status, _, examples = EPILOG.partition("examples:\n")
    return page(
        "lifeboat",
        8,
        "move containers off a host, before it fails or whenever you like",
        section("Synopsis", ".B lifeboat", ".I VERB", "[options]"),
        section("Description", paragraphs(str(parser.description)), paragraphs(COMMAND_TEXT)),
        section("Options", *(item(name, text) for name, text in COMMAND_OPTIONS.items())),
        section("Verbs", verbs),
        section("Labels of containers", *(item(name, text) for name, text in LABELS.items())),
        section("Exit status", literal(status.partition(":\n")[2])),
        section("Examples", literal(examples)),
        section("Files", *(item(name, text) for name, text in FILES.items())),
        section("See also", "lifeboatd(8), lifeboat.toml(5), lifeboat\\-policy(5)"),
    )


def daemon_page() -> str:
    """Return lifeboatd(8)."""
    parser = daemon_parser()
    return page(
        "lifeboatd",
        8,
        "evacuate containers before this host fails",
        section("Synopsis", ".B lifeboatd", "[options]"),
        section("Description", paragraphs(DAEMON_TEXT)),
        section("Options", options_text(parser)),
        section("Exit status", escaped(str(parser.epilog).removeprefix("Exit status: "))),
        section("Files", *(item(name, text) for name, text in FILES.items())),
        section("See also", "lifeboat(8), lifeboat.toml(5), lifeboat\\-policy(5)"),
    )


def settings_page() -> str:
    """Return lifeboat.toml(5)."""
    sections = []
    for heading, model in tables(Settings):
        items = (item(f"{name} = {default_of(field)}", says(field)) for name, field in keys(model))
        sections.append(section(heading, *items))
    example = section("Example", literal(sample_settings()))
    intro = section("Description", paragraphs(SETTINGS_TEXT))
    return page("lifeboat.toml", 5, "settings of lifeboatd", intro, *sections, example, *see_also())


def policy_page() -> str:
    """Return lifeboat-policy(5)."""
    keys_of = {heading: [item(n, says(f)) for n, f in rows] for heading, rows in policy_keys().items()}
    rule = "\n".join(section(heading, *items) for heading, items in keys_of.items())
    signals = section("Signals", *(item(f"{s.name} ({s.kind}, {s.unit})", s.description) for s in CATALOG.values()))
    shipped = (DOCS.parent / "policies/disks.toml").read_text().split("\n\n")[1]
    intro = section("Description", paragraphs(POLICY_TEXT))
    return page(
        "lifeboat-policy", 5, "rules by which lifeboatd judges", intro, rule, signals,
        section("Example", literal(shipped)), *see_also(),
    )  # fmt: skip


def policy_keys() -> dict[str, list[tuple[str, FieldInfo]]]:
    """Return heading -> keys of the tables of a policy file."""
    rule = [(n, f) for n, f in Rule.model_fields.items() if n not in Condition.model_fields]
    tables_of = {
        "Keys of a rule": rule,
        "Keys of a condition, in a rule or in [[rule.when]]": list(Condition.model_fields.items()),
        "Keys of a [[window]]": list(Window.model_fields.items()),
    }
    return {heading: [(f.alias or n, f) for n, f in rows] for heading, rows in tables_of.items()}


def see_also() -> Iterator[str]:
    """Return the end of the pages in section 5."""
    yield section("See also", "lifeboat(8), lifeboatd(8), lifeboat.toml(5), lifeboat\\-policy(5)")


def subparsers(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Return every verb, as words, with its parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from subparsers(sub, (*words, name))
            return
    yield words, parser


def verb_text(words: tuple[str, ...], parser: argparse.ArgumentParser) -> str:
    """Return what a man page says about a verb."""
    return "\n".join([f".SS {' '.join(words)}", escaped(str(parser.description)), options_text(parser)])


def options_text(parser: argparse.ArgumentParser) -> str:
    """Return the arguments and options of a parser, without what all have."""
    return "\n".join(item(name, text) for name, text in options(parser))


def options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Return (name with its value, meaning) of each argument."""
    for action in parser._actions:
        if action.dest not in ("help", "json"):
            yield shown(action), str(action.help or "")


def shown(action: argparse.Action) -> str:
    """Return an argument's name, or an option's with its value."""
    if not action.option_strings:
        return action.dest.upper()
    choices = "|".join(map(str, action.choices)) if action.choices else ""
    value = "" if action.nargs == 0 else choices or action.metavar or action.dest.upper()
    return f"{', '.join(action.option_strings)} {value}".strip()


# --- settings -------------------------------------------------------------------------------------------


def tables(model: type[BaseModel], name: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Return every table of a settings model as (heading in TOML, model), outermost first."""
    if name:
        yield f"[{name}]", model
    for key, field in model.model_fields.items():
        inner = inner_model(field.annotation)
        path = f"{name}.{key}" if name else key
        if inner is None:
            continue
        if get_origin(field.annotation) is tuple:
            yield f"[[{path}]]", inner
        else:
            yield from tables(inner, path)


def keys(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Return the keys of a table that are not tables themselves."""
    for name, field in model.model_fields.items():
        if inner_model(field.annotation) is None:
            yield name, field


def inner_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation is, or is a tuple of."""
    candidates = [annotation]
    if get_origin(annotation) in (tuple, Union, UnionType):
        candidates += get_args(annotation)
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def says(field: FieldInfo) -> str:
    """Return a key's description with what it may be."""
    text = field.description or ""
    choices = [str(choice) for choice in getattr(field.annotation, "__members__", {}).values()]
    if choices:
        text += f" ({' or '.join(choices)})"
    return text


def default_of(field: FieldInfo) -> str:
    """Return a key's default as TOML."""
    if field.is_required():
        return "..."
    default = field.get_default(call_default_factory=True)
    return toml(default)


def toml(value: Any) -> str:
    """Return a plain value as TOML."""
    if isinstance(value, str):
        return json.dumps(str(value))
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def sample_settings() -> str:
    """Return lifeboat.toml with every key at its default, commented out."""
    lines = [
        "# Settings of lifeboatd: /etc/lifeboat/lifeboat.toml. Every key has a default, shown here;",
        "# take the # away in front of what you change, and of the heading above it.",
        "# An unknown key is an error; lifeboatd --check says whether the file is good.",
    ]
    for heading, model in tables(Settings):
        lines += ["", f"# {heading}"]
        for name, field in keys(model):
            lines += [f"# {name} = {default_of(field)}  # {says(field)}"]
    return "\n".join(lines) + "\n"


# --- reference ------------------------------------------------------------------------------------------


def reference() -> str:
    """Return the reference for reading in a browser."""
    parts = [
        f"<!-- {GENERATED} -->\n# Reference",
        "## Command\n\nAll verbs take `--json` and `--help`.",
        markdown(
            ("verb", "what"),
            [
                (f"`lifeboat {' '.join(w)}{arguments(p)}`", str(p.description))
                for w, p in subparsers(command_parser())
            ],
        ),
        f"```\n{EPILOG.partition('examples:')[0].rstrip()}\n```",
        "## Settings: /etc/lifeboat/lifeboat.toml",
    ]
    for heading, model in tables(Settings):
        rows = [(f"`{name}`", f"`{default_of(field)}`", says(field)) for name, field in keys(model)]
        parts += [f"### {heading}", markdown(("key", "default", "meaning"), rows)]
    parts += [
        "## Labels of containers\n\nGiven to `podman run --label`; an evacuation keeps them.",
        markdown(("label", "meaning"), [(f"`{name}`", text) for name, text in LABELS.items()]),
        "## Policies",
        POLICY_TEXT,
        *(
            f"### {heading}\n\n" + markdown(("key", "meaning"), [(f"`{n}`", says(f)) for n, f in rows])
            for heading, rows in policy_keys().items()
        ),
        "## Signals",
        markdown(
            ("signal", "kind", "unit", "meaning"),
            [(f"`{s.name}`", str(s.kind), s.unit, s.description) for s in CATALOG.values()],
        ),
        "## Alerts",
        "The body of every webhook is JSON with these keys. Header `X-Lifeboat-Event` has the id, the same in each "
        "attempt; with a secret, `X-Lifeboat-Signature` is `sha256=` and the HMAC-SHA256 of the body. "
        f"Kinds: {', '.join(f'`{kind}`' for kind in Kind)}.",
        f"```json\n{json.dumps(Event.model_json_schema()['properties'], indent=1)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def arguments(parser: argparse.ArgumentParser) -> str:
    """Return a parser's arguments as one line of usage."""
    needed = {shown(action) for action in parser._actions if action.required and action.nargs != "*"}
    return "".join(f" {name}" if name in needed else f" [{name}]" for name, _ in options(parser))


def markdown(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
