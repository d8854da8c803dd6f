"""`prefetch.yaml` into settings."""
