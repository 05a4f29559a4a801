"""The book: what is written, how it is kept, and how it is proved."""
