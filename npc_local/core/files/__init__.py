"""Files: written whole or not at all, hashed once, examined before they are loaded."""
