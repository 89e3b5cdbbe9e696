"""Measurements of speed and of rules that developers make; not part of what is installed."""
