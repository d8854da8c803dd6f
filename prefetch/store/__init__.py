"""The content store: bytes, named by their digest."""
