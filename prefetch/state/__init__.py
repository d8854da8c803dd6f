"""What prefetch knows and has spent: references, manifests, runs, and the pull ledger."""
