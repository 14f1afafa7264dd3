"""The protocol of a migration: what is said, what is written down first, and who may do what next."""
