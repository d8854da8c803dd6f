"""What to fetch: image lists of several kinds, read into selectors."""
