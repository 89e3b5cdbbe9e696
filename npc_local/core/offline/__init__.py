"""No network: the switches of every library, and the guard that refuses what they miss."""
