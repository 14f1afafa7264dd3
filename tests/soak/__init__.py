"""Tests that take too long for the gate: `./run soak NAME`."""
