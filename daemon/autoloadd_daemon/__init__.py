"""autoloadd: a cache daemon, one per user, for what shells have already compiled."""
