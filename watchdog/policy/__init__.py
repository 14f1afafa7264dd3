"""Rules in files an admin can trust: their model, their loading, their evaluation."""
