"""The HTTP face: AuthZEN on the same core as gRPC; converts, limits, maps errors, and decides nothing."""
