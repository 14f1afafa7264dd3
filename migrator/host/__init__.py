"""What this host is: its hardware, its programs, and what it tells its peers of itself."""
