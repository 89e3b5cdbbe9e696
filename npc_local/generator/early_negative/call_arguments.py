"""The arguments of a pipeline call by name, also where a subclass hands them on unseen.

`def __call__(self, *args, **kwargs)` says nothing about what it takes; the class that it hands its
arguments to does.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_UNNAMED = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def parameters(kind: type, method: str = "__call__") -> dict[str, Parameter]:
    """Return what a method takes by name, including what it hands on to the classes above."""
    named: dict[str, Parameter] = {}
    for own in _definitions(kind, method):
        for parameter in own:
            if parameter.kind not in _UNNAMED:
                named.setdefault(parameter.name, parameter)
    return named


def hands_on(kind: type, until: str) -> bool:
    """Whether a subclass of diffusers' class `until` takes arguments that no signature names."""
    for base in kind.__mro__:
        if base.__name__ == until and base.__module__.startswith("diffusers."):
            break
        if "__call__" in vars(base):
            return any(
                parameter.kind is Parameter.VAR_KEYWORD
                for parameter in _own(vars(base)["__call__"])
            )
    return False


@dataclass(frozen=True, slots=True)
class CallArguments:
    """One call's arguments.

    Attributes:
        args: as they were given, by position.
        kwargs: as they were given, by name.
        positions: the names of `args`, as far as they are known.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    positions: tuple[str, ...]

    @classmethod
    def of(cls, kind: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CallArguments:
        """Name the arguments of a call of an object of class `kind`.

        Raises:
            TypeError: the call does not fit the signature.
        """
        inspect.signature(kind.__call__).bind(None, *args, **kwargs)
        positions: list[str] = []
        for own in _definitions(kind, "__call__"):
            positions += [
                parameter.name
                for parameter in own
                if parameter.kind in _BY_POSITION and parameter.name not in positions
            ]
            if not any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in own):
                break
        return cls(args, kwargs, tuple(positions[: len(args)]))

    @property
    def named(self) -> dict[str, Any]:
        """All arguments whose names are known."""
        return dict(zip(self.positions, self.args, strict=False)) | self.kwargs

    def with_named(
        self, named: Mapping[str, Any], defaults: Mapping[str, Parameter]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the call's arguments with these in place of `named`, each given as it was."""
        args = [named[name] if name in named else defaults[name].default for name in self.positions]
        unnamed = self.args[len(args) :]
        rest = {name: value for name, value in named.items() if name not in self.positions}
        return (*args, *unnamed), rest


def _definitions(kind: type, method: str) -> list[list[Parameter]]:
    """Return the parameters of a method as each class defines it, as far as it is handed on."""
    definitions: list[list[Parameter]] = []
    for base in kind.__mro__:
        if method in vars(base):
            definitions.append(_own(vars(base)[method]))
            if not any(parameter.kind in _UNNAMED for parameter in definitions[-1]):
                break
    return definitions


def _own(method: Any) -> list[Parameter]:
    """Return a class member's parameters without the object or class that it is called on."""
    bound = not isinstance(method, staticmethod)
    function = method.__func__ if isinstance(method, staticmethod | classmethod) else method
    return list(inspect.signature(function).parameters.values())[bound:]
