"""Ranks negative prompts in text space, before any image is made with them."""
