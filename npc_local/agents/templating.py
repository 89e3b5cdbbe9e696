"""Strict rendering of the instructions in templates/: no variable missing, none unused.

A mistake here is one of ours, not the user's, hence `ValueError` and not an `NpcError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from string import Template


def render(name: str, values: Mapping[str, object]) -> str:
    """Fill the `$variables` of templates/`name`. Values are data and are never expanded again.

    Raises:
        ValueError: the template has a variable without a value, or a value finds no variable.
    """
    template = _load(name)
    variables = set(template.get_identifiers())
    if missing := variables - values.keys():
        raise ValueError(f"template {name}: no value for {', '.join(sorted(missing))}")
    if unused := values.keys() - variables:
        raise ValueError(f"template {name}: never uses {', '.join(sorted(unused))}")
    return template.substitute(values)


@cache
def _load(name: str) -> Template:
    text = (
        resources.files("npc_local.agents").joinpath("templates", name).read_text(encoding="utf-8")
    )
    return Template(text.strip())
