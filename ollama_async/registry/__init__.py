"""The way to other registries: names to addresses, tokens, transfers that survive faults."""
