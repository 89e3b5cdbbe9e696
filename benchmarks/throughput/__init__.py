"""How well many prompts keep the models busy."""
