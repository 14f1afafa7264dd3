"""Decides: signals, policy, verdict, planning trigger, alerts, daemon, command line and admin API."""

LIFEBOAT = True
"""Tells this package from the unrelated one on PyPI that imports under the same name."""
