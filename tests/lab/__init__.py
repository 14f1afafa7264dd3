"""The lab: whole hosts in namespaces, with systemd, podman, runc and CRIU, on one network."""
