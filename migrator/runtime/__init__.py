"""Container runtimes as they are: podman's and runc's words, the container's cgroup."""
