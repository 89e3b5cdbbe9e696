"""models.toml: read, checked, and resolved to a profile."""
