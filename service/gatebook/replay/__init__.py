"""Decides again what is in the book: under the revisions of then, or under a draft."""
