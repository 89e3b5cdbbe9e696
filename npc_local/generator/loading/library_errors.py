"""What diffusers, transformers and torch do not accept, in our words."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from npc_local.core.device_errors import is_device_lost
from npc_local.core.errors import ConfigError, DeviceLostError

LIBRARY_FAILS = (
    OSError,
    ValueError,
    TypeError,
    RuntimeError,
    LookupError,
    AttributeError,
    AssertionError,
    ImportError,
    ArithmeticError,
    MemoryError,
)


def raise_if_lost(error: Exception) -> None:
    """Tell an error of a GPU that has failed for good from a setting that does not fit.

    Raises:
        DeviceLostError: it is one.
    """
    if is_device_lost(error):
        raise DeviceLostError(f"the GPU failed while loading the model: {error}") from error


def need(package: str, setting: str, extra: str) -> None:
    """Refuse a setting whose package is not installed, and say how to install it."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{setting} needs {package}, which is not installed: pip install 'npc-local[{extra}]'"
        )


@contextmanager
def fits(setting: str) -> Iterator[None]:
    """Turn a library's refusal of a setting into ours.

    Raises:
        ConfigError: the library does not accept it.
        DeviceLostError: it is the GPU that has failed for good.
    """
    try:
        yield
    except AttributeError as error:
        raise ConfigError(f"{setting}: this model has no such option ({error})") from error
    except LIBRARY_FAILS as error:
        raise_if_lost(error)
        raise ConfigError(f"{setting} does not fit this model or machine: {error}") from error
