"""A company to try Gatebook on: its people, its telemetry, and everybody who wants to read it."""
