"""Benchmarks: many prompts, several arms, and numbers that say how sure they are."""
