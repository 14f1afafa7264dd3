"""The files of a container: its writable layer, its volumes, its shared memory directory, its image."""
