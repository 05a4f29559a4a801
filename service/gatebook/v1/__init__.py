"""The messages and stubs of `proto/gatebook/v1`, written by `make proto` and never edited."""
