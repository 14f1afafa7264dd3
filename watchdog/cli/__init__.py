"""The command `lifeboat`: one module for each group of verbs."""
