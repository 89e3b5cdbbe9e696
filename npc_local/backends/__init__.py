"""Who serves the agents: one protocol, and a chat server, a script or a recording behind it."""
