"""Registries: who we are to them, how requests travel, and what they are asked."""
