"""`python -m prefetch`."""

from prefetch.cli import main

main()
