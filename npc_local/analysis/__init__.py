"""Why the method works, if it does, from the journals of finished runs."""
