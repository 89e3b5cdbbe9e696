"""The images of a journal: PNG files named by their step's key, checked whenever they are read."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from pathlib import Path

from PIL import Image

from npc_local.core.errors import StorageError
from npc_local.core.files import paths
from npc_local.core.files.atomic import TEMPORARY, cannot_write, sync_directory, write_durably
from npc_local.core.files.images import encoded

DAMAGED = "damaged"


class ImageDamaged(Exception):
    """An image file that is not what was written, and in which way."""


class Images:
    """The folder images/ in a journal's directory."""

    def __init__(self, directory: Path) -> None:
        """Take the journal's directory; remove what an earlier process left unfinished.

        Raises:
            StorageError: the folder cannot be written to.
        """
        self._folder = directory / "images"
        self._aside = directory / DAMAGED
        try:
            self._folder.mkdir(exist_ok=True)
            sync_directory(directory)
            for left in paths.children(self._folder, StorageError, f".*{TEMPORARY}"):
                left.unlink()
        except OSError as error:
            raise cannot_write(self._folder, error) from error

    def path(self, key: str) -> Path:
        """Return where the image of a step is."""
        return self._folder / f"{key}.png"

    def write(self, key: str, image: Image.Image) -> str:
        """Have an image on the disk; return the SHA-256 of its file.

        Raises:
            StorageError: it cannot be written.
        """
        data = encoded(image)
        write_durably(self.path(key), data)
        return hashlib.sha256(data).hexdigest()

    def read(self, key: str, sha256: str) -> Image.Image:
        """Return the image that was written.

        Raises:
            ImageDamaged: it is gone or has changed.
            StorageError: the file cannot be read.
        """
        path = self.path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise ImageDamaged(f"{path} is missing") from None
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ImageDamaged(f"{path} has changed (SHA-256)")
        with Image.open(io.BytesIO(data)) as opened:
            return opened.copy()

    def set_aside(self, key: str) -> None:
        """Keep a damaged image out of the way, if it is there.

        Raises:
            StorageError: it cannot be moved.
        """
        path = self.path(key)
        kept = self._aside / f"{key}-{secrets.token_hex(3)}.png"
        try:
            self._aside.mkdir(exist_ok=True)
            os.replace(path, kept)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise cannot_write(kept, error) from error
