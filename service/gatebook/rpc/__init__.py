"""The gRPC face: converts, limits, maps errors, and decides nothing."""
