"""Whole numbers as people and programs give them."""

from __future__ import annotations

import operator

from npc_local.core.errors import ConfigError


def whole_number(name: str, value: object) -> int:
    """Return a count or a seed as an int, numpy's integers too; True counts nothing.

    Raises:
        ConfigError: it is none, such as 3.0 or True; the message has `name`.
    """
    if not isinstance(value, bool):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise ConfigError(f"{name} = {value!r} must be a whole number")
