"""Which instance serves which request: connections to workers, routes, migration, draining."""
