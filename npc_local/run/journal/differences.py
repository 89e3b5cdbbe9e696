"""Says in what two runs differ."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in which keys two mappings differ, nested ones as `generator.steps`."""
    old, new = dict(_flat(there)), dict(_flat(now))
    return [
        f"{key}: {_shown(old, key)} there, {_shown(new, key)} now"
        for key in {**old, **new}
        if (key in old, old.get(key)) != (key in new, new.get(key))
    ]


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _shown(flat: Mapping[str, Any], key: str) -> str:
    if key not in flat:
        return "absent"
    value = flat[key]
    return value if isinstance(value, str) and 0 < len(value) <= 16 else _SHORT.repr(value)
