"""Gatebook: a policy engine that writes every decision into a provable book before it answers."""

__version__ = "0.1.0"
