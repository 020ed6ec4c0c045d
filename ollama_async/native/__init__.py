"""Builds, checks and runs the native engine library in separate processes."""
