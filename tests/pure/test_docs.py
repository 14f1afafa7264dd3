"""What is generated from the code is up to date, and what it shows is true."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from watchdog.settings import Settings
from watchdog.toml_files import load, parse

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """Return docs/generate.py."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_files_are_up_to_date(generate: ModuleType) -> None:
    for path, text in generate.outputs().items():
        assert path.read_text() == text, f"{path} is out of date: run python docs/generate.py"


def test_the_sample_with_every_line_taken_in_gives_the_defaults() -> None:
    sample = ROOT / "docs/samples/lifeboat.toml"
    heading, lines = "", []
    for line in sample.read_text().splitlines()[3:]:
        text = line.removeprefix("# ")
        heading = text if text.startswith("[") else heading
        if not heading.startswith("[["):  # drives and webhooks have no defaults
            lines.append(text)
    assert parse("\n".join(lines), sample, Settings) == Settings()
    assert load(sample, Settings) == Settings()


def test_the_manual_tells_what_every_verb_takes_and_what_none_has_to(generate: ModuleType) -> None:
    page = generate.command_page()
    for option in ("\\-\\-json", "\\-\\-version"):
        assert f".TP\n.B {option}\n" in page
    assert "130  interrupted" in page
    assert "so it needs root" not in page
    reference = generate.reference()
    for verb in ("policy check [FILES]", "policy replay [FILES]", "policy try FILES"):
        assert f"`lifeboat {verb}" in reference


def test_every_verb_and_every_key_is_in_the_manual(generate: ModuleType) -> None:
    page = (ROOT / "docs/man/lifeboat.8").read_text()
    for words, _ in generate.subparsers(generate.command_parser()):
        assert f".SS {' '.join(words)}\n" in page
    page = (ROOT / "docs/man/lifeboat.toml.5").read_text()
    for _, model in generate.tables(Settings):
        for name, _ in generate.keys(model):
            assert name in page
