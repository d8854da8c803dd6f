"""What is written on nodes so that their pulls go through a cache, and what is written there."""
