"""Migrations that did not end by themselves: going on after our own death, and what a human decides."""
