"""Says what a decision allows of a dataset's rows in SQL."""
