"""The typed expression tree of matchers and conditions, and the passes over it. Pure."""
