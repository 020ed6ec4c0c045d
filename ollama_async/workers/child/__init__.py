"""The worker process: one model, one intake thread, one step thread."""
