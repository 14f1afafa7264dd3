"""Decides: signals, policy, verdict, planning trigger, alerts, daemon, command line and admin API."""
