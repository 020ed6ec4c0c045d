"""One file per group of routes; each handler decodes, asks a port and encodes."""
