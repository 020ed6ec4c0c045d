"""From messages to prompt text; runs in the worker, never in the gateway."""
