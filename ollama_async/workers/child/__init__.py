"""The worker process: one model, two threads that prepare requests, one that steps."""
