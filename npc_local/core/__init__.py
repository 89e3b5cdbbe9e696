"""The ground: what all rooms stand on, and nothing of npc_local above it."""
