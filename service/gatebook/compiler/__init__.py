"""Makes a policy set into an immutable program that answers fast. Pure."""
