"""The daemon: reads, judges, acts, tells; once a tick."""
