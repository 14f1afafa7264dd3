"""Recorded output of devices, judged without a daemon: `lifeboat policy try` and `replay`."""
