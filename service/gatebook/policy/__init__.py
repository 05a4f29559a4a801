"""What a policy set says: its files, read strictly, as frozen values."""
