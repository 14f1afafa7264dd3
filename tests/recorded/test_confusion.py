"""The shipped rules on labelled recordings that are not ours; nothing to collect where they are not there."""

from __future__ import annotations

from functools import cache

import pytest

from tests.recorded.confusion import (
    AS_LABELLED,
    DOCUMENT,
    EXPLAINED,
    Judged,
    courses,
    document,
    gravest,
    is_there,
    judged,
)

if is_there():

    @cache
    def everything() -> tuple[Judged, ...]:
        """Judge all recordings, once."""
        return tuple(judged())

    def files(label: str, *findings: str) -> list[str]:
        """Return the recordings of a label that are found so."""
        return [item.file for item in everything() if item.label == label and item.finding in findings]

    def test_nothing_that_cannot_be_known_is_found_healthy() -> None:
        assert files("unknown", "healthy", "alert only", "worn", "suspect", "failing") == []

    def test_healthy_devices_make_no_host_suspect() -> None:
        assert files("healthy", "failing", "suspect", "worn") == []

    def test_failing_devices_are_seen() -> None:
        assert files("failing", "healthy", "alert only", "unknown") == []

    def test_every_difference_is_explained() -> None:
        found = {(item.label, item.finding) for item in everything()}
        assert found - AS_LABELLED - set(EXPLAINED) == set()

    @pytest.mark.parametrize("kind", ["zero-stable", "nonzero-stable", "nvme-stable"])
    def test_drives_that_stand_still_are_left_alone(kind: str) -> None:
        found = {name: gravest(trial)[0] for name, trial in courses() if name.startswith(kind)}
        assert set(found.values()) == {"healthy"}, found

    def test_the_document_is_up_to_date() -> None:
        assert DOCUMENT.read_text() == document(), "run python -m tests.recorded.confusion"
