"""All settings of the daemon: /etc/lifeboat/lifeboat.toml. Every key has a default."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from migrator.model import Value
from migrator.registry.settings import RegistrySettings
from migrator.settings import MigratorSettings
from watchdog.alerts.model import AlertSettings
from watchdog.paths import SETTINGS
from watchdog.signals.settings import SignalSettings
from watchdog.storm import StormLimits
from watchdog.toml_files import load


class ListenSettings(Value):
    """Where peers reach this host."""

    address: str = Field(default="", description="address to listen on; empty is this host's own in peers.json")


class EvacuationSettings(Value):
    """When this host empties itself."""

    automatic: bool = Field(default=True, description="evacuate by itself when the verdict is failing")
    tick_s: float = Field(default=1.0, gt=0, le=60, description="how often the verdict is looked at")
    again_s: float = Field(
        default=60, gt=0, description="how often a failing host tries anew to move what nobody could take"
    )
    storm_share_percent: float = Field(
        default=30, gt=0, le=100, description="when more of the cluster than this turns bad at once, it is a storm"
    )
    storm_hosts: int = Field(default=3, ge=2, description="and no fewer hosts than these, this one counted")
    storm_window_s: float = Field(default=600, gt=0, description="what `at once` means")
    storm_poll_s: float = Field(
        default=5, gt=0, description="how often a failing host asks the others how they are"
    )
    retry_s: float = Field(
        default=2, gt=0, description="how long a container that a target refused waits for the next attempt"
    )
    warm_up_s: float = Field(
        default=300,
        ge=0,
        description="how often a suspect host brings the images, volumes and layers up to date that it has copied "
        "ahead to the planned targets; 0: it copies nothing ahead",
    )
    checkpoint_s: float = Field(
        default=0,
        ge=0,
        description="how often, at most, a suspect host also puts a complete checkpoint of each container beside "
        "these, from which lifeboat recover can start it there should the host die all of a sudden; the container "
        "stands still while its memory is written; 0: never",
    )
    check_s: float = Field(
        default=600, ge=0, description="how often it is looked whether every container could be moved; 0 for never"
    )

    @property
    def storm_limits(self) -> StormLimits:
        """Return when moving on signals alone ends."""
        return StormLimits(self.storm_share_percent, self.storm_hosts, self.storm_window_s)


class Settings(Value):
    """The file as a whole."""

    listen: ListenSettings = ListenSettings()
    signals: SignalSettings = SignalSettings()
    evacuation: EvacuationSettings = EvacuationSettings()
    migrator: MigratorSettings = MigratorSettings()
    registry: RegistrySettings = RegistrySettings()
    alerts: AlertSettings = AlertSettings()


def load_settings(path: Path = SETTINGS) -> Settings:
    """Read the settings; a missing file at the usual place means the defaults, anywhere else an error."""
    if path == SETTINGS and not path.exists():
        return Settings()
    return load(path, Settings)


def own_name() -> str:
    """Return this host's name, for alerts before it belongs to a cluster."""
    return os.uname().nodename.split(".")[0]
