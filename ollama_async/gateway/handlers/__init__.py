"""One module per group of routes. A handler decodes, calls the store or the backend, encodes."""
