"""The network of a container while it moves: the gate, the announcement, sockets left in repair."""
