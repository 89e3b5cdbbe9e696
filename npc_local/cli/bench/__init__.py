"""`npc-local bench` and its commands."""
