"""Builds and closes everything; one function for each command."""
