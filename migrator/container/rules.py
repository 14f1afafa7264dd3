"""What an administrator says about directories of the host that containers mount."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from migrator.settings import BindMounts, MigratorSettings

LABEL = "lifeboat.bind-mounts"  # of one container: refuse or sync


@dataclass(frozen=True)
class StorageRules:
    """How bind mounts are treated."""

    bind_mounts: BindMounts = BindMounts.REFUSE
    shared_paths: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: MigratorSettings, labels: Mapping[str, str] | None = None) -> StorageRules:
        """Return the settings' rules, as one container's label changes them; an unknown word changes nothing."""
        word = (labels or {}).get(LABEL, "").lower()
        policy = BindMounts(word) if word in set(BindMounts) else settings.bind_mounts
        return cls(policy, settings.shared_paths)
