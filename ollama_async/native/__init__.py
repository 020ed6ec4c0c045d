"""Builds and checks the native engine library that workers load."""
