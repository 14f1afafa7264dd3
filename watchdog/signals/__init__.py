"""Readers of what a host tells about itself, one module for each source."""
