"""The format: references, descriptors, manifests, platforms, the distribution API's grammar."""
