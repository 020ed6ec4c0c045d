"""Builds, checks and runs the native engine library in processes of its own."""
