"""The target's side of a migration: reserve, receive, park, restore, open the gate, drain."""
