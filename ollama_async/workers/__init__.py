"""Workers: the pool that owns them, their clients and load plans, and the pipe to a process."""
