"""What a compiled policy set answers, and what an answer obliges to. Pure."""
