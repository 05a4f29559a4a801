"""The revisions of policy sets and of the directory: stored, published, active."""
