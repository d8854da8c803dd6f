"""Weeks of syncing in seconds: the real admission and ledger against a registry on paper.

`world` is the registry, with others who pull from it, and the least possible time; `virtual` the
time that passes only when nothing else happens; `warming` one warming with restarts; `cases` what
is tried and what must hold; `table` prints it (`make simulate`).
"""
