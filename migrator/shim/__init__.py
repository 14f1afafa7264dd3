"""The OCI runtime shim: podman calls it in runc's place, and it stops one step before the deed.

For one invocation of podman (`CONTAINERS_CONF_OVERRIDE`) the runtime `runc` is a small script in the
migration's directory. For `checkpoint` and `restore` it runs `python -m migrator.shim DIRECTORY ARGUMENTS...`,
where they are *parked* until the daemon says go; everything else it passes on to the real runc.
"""
