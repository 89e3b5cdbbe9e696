"""What diffusers, transformers and torch do not accept, in our words."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from npc_local.core.errors import ConfigError

LIBRARY_FAILS = (
    OSError,
    ValueError,
    TypeError,
    RuntimeError,
    LookupError,
    AttributeError,
    AssertionError,
    ImportError,
)


def need(package: str, setting: str, extra: str) -> None:
    """Refuse a setting whose package is not installed, and say how to install it."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{setting} needs {package}, which is not installed: pip install 'npc-local[{extra}]'"
        )


@contextmanager
def fits(setting: str) -> Iterator[None]:
    """Turn a library's refusal of a setting into ours."""
    try:
        yield
    except AttributeError as error:
        raise ConfigError(f"{setting}: this model has no such option ({error})") from error
    except LIBRARY_FAILS as error:
        raise ConfigError(f"{setting} does not fit this model or machine: {error}") from error
