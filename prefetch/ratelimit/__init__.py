"""What registries say about their limits, and the arithmetic of budgets. Pure: no I/O, no clock."""
