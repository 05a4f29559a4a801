"""A witness (C2SP tlog-witness): cosigns the checkpoints of books that it never saw contradict themselves.

Runs on another machine than the books, in the hands of somebody else, and needs no other part of the service.
"""
