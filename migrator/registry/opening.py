"""The registry that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from migrator.later import Later
from migrator.registry.records import NoRecords, Presence, Registry
from migrator.registry.settings import Kind, RegistrySettings

etcd = Later("migrator.registry.etcd")


def open_registry(settings: RegistrySettings, host: str, pki: Path, presence: Callable[[], Presence]) -> Registry:
    """Return the registry of a host; `presence` is what it says of itself."""
    if settings.kind is Kind.EMBEDDED:
        return NoRecords()
    opened: Registry = etcd.EtcdRegistry(settings, host, pki, presence)
    return opened
