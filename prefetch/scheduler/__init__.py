"""Timed syncs: when an entry of the schedule is due, and one run of it at a time."""
