"""Where health, promises of memory and commits are known: with the hosts themselves, or in etcd as well."""
