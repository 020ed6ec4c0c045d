"""The HTTP front: routes, handlers, one streaming loop, guards, metrics."""
