"""The OCI runtime shim: podman calls it in runc's place, and it stops one step before the deed.

For one invocation of podman (`CONTAINERS_CONF_OVERRIDE`) the runtime `runc` is a small script in the
migration's directory that runs `python -m migrator.shim DIRECTORY ARGUMENTS...`. `checkpoint` and
`restore` are *parked* there until the daemon says go; everything else is passed on to the real runc.
"""
