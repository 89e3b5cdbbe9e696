"""What a negative prompt costs in time."""
