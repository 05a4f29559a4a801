"""Transparency-log arithmetic and formats: RFC 6962 hashing, C2SP tiles, notes and proofs.

Pure: takes values and returns values. Needs only the standard library, except `keys` and `cosignature`, which need
`cryptography`. The service writes books with it, and the client checks them with it.
"""
