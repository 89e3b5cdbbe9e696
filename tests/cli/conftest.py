"""The tiny encoder that tests of salience have, and caches of our own."""

from tests.salience.conftest import caches, encoder_settings

__all__ = ["caches", "encoder_settings"]
