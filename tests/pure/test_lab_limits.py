"""The lab's answer to a root without CAP_SYS_RESOURCE."""

from __future__ import annotations

import pytest

from tests.lab import limits


@pytest.mark.parametrize(("effective", "has"), [("000001ffffffffff", True), ("000001fffeffffff", False)])
def test_the_capability_is_found_among_the_effective_ones(effective: str, has: bool) -> None:
    assert limits.has_capability(f"CapPrm:\t0000000000000000\nCapEff:\t{effective}\n") is has
