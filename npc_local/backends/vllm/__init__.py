"""A vLLM server of our own: its command line, its life, and its end."""
