"""Containers as people run them: what one is made of, what keeps it from moving, and where it fits."""
