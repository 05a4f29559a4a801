"""What a policy set could allow, to whom, and whether that stays within what was promised."""
