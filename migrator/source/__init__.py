"""The source's side of a migration: hold the container, hand it over, release it."""
