"""The vocabulary that every package may import: requests, names, errors, settings."""
