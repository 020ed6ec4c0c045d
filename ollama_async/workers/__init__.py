"""The parent's side of worker processes: pool, process life cycle, link, ring, pipe, messages."""
