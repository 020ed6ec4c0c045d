"""Pulls and pushes: transfers between the store and model registries that survive faults."""
