"""prefetch: fill a cache registry before it is needed, with the pulls that are left."""

__version__ = "0.1.0"
