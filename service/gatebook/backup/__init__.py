"""Copies of a data directory that can be served again: taken while it is written, and restored without a fork."""
