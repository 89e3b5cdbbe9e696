"""Standing before a method of one object for a while, and giving the object back as it was found.

A stand-in on the attribute `forward` would be lost: offload hooks, caches, PEFT and users' own
wrappers replace and restore that attribute whenever they like (the prefetch hook of diffusers'
group offload writes it at the end of the first forward). So the object gets a class of its own for
a while, where Python looks up `model(...)`: what others do to `forward` works below. Copies of the
object are of its own class, and have nothing before them.
"""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from npc_local.core.errors import ConfigError

_lock = threading.Lock()
# By id of the object, whoever came last at the end. They hold the object, so the id stays its.
_standing: dict[int, list[StandIn]] = {}


class StandIn:
    """Answers the calls of a method of one object while it stands there; see `standing_before`."""

    def __init__(self, owner: Any, answer: Callable[..., Any], method: str) -> None:
        """Remember whose calls are answered, and by what."""
        self.owner = owner
        self.answer = answer
        self.method = method
        self.computing = False

    def compute(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method as if this did not stand before it."""
        others = _standing[id(self.owner)]
        place = others.index(self)
        if place > 0:
            return others[place - 1].answer(*args, **kwargs)
        self.computing = True
        try:
            return _beneath(self.owner, self.method)(*args, **kwargs)
        finally:
            self.computing = False

    @property
    def is_there(self) -> bool:
        """Whether calls of the object still come here."""
        return isinstance(self.owner, Marked) and self in _standing.get(id(self.owner), ())


@contextmanager
def standing_before(
    owner: Any, answer: Callable[..., Any], method: str = "__call__"
) -> Iterator[StandIn]:
    """Let `answer` answer every call of a method of `owner`, by default of `owner` itself.

    Several may stand before the same method, and may leave in any order.

    Raises:
        ConfigError: Python cannot give an object of this class another one.
    """
    stand_in = StandIn(owner, answer, method)
    with _lock:
        if not isinstance(owner, Marked):
            stock: type = type(owner)
            try:
                owner.__class__ = _class_for(stock, method)
            except TypeError as error:
                raise ConfigError(
                    f"nothing can stand before the calls of a {stock.__name__}: {error}"
                ) from error
        _standing.setdefault(id(owner), []).append(stand_in)
    try:
        yield stand_in
    finally:
        with _lock:
            _standing[id(owner)].remove(stand_in)
            if not _standing[id(owner)]:
                del _standing[id(owner)]
                # A class that others derived from ours meanwhile stays; it hands calls on.
                if Marked in type(owner).__bases__:
                    owner.__class__ = _stock(type(owner))


class Marked:
    """Marks the classes made here."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Leave what stands before an object out of its copies and pickles."""
        reduced: tuple[Any, ...] = tuple(super().__reduce_ex__(protocol))
        return reduced[0], (_stock(type(self)), *reduced[1][1:]), *reduced[2:]


def with_call(stock: type, call: Callable[..., Any]) -> type:
    """Return a class that is `stock` in all but its `__call__`, in name and signature too."""
    return _derived(stock, {"__call__": functools.wraps(stock.__call__)(call)})


@functools.cache  # so that a compiled model is not compiled anew for each call of its pipeline
def _class_for(stock: type, method: str) -> type:
    if method != "__call__":
        return _derived(stock, {method: _Method(method)})

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        standing = _standing.get(id(self))
        if not standing:  # made of this class meanwhile
            return stock.__call__(self, *args, **kwargs)
        return standing[-1].answer(*args, **kwargs)

    return with_call(stock, call)


class _Method:
    """A method of a class made here, which an attribute of the object does not hide.

    Others may put a wrapper there, before or after this one came; it works below. One that has
    taken this for the method that it wraps would lead back here: then it gets the real one.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, kind: type) -> Any:
        if owner is None:
            return getattr(_stock(kind), self.name)
        stock = types.MethodType(getattr(_stock(kind), self.name), owner)

        # Pipelines read the signature of scheduler.step: show the real one.
        @functools.wraps(stock)
        def method(*args: Any, **kwargs: Any) -> Any:
            standing = _standing.get(id(owner))
            if not standing or standing[-1].computing:
                return stock(*args, **kwargs)
            return standing[-1].answer(*args, **kwargs)

        return method

    def __set__(self, owner: Any, value: Any) -> None:
        vars(owner)[self.name] = value

    def __delete__(self, owner: Any) -> None:
        vars(owner).pop(self.name, None)


def _derived(stock: type, members: dict[str, Any]) -> type:
    described = {"__module__": stock.__module__, "__doc__": stock.__doc__}
    described["__qualname__"] = stock.__qualname__
    return types.new_class(
        stock.__name__,
        (Marked, stock),
        exec_body=lambda namespace: namespace.update(described | members),
    )


def _stock(kind: type) -> type:
    """Return the class that one made here stands for."""
    order = kind.__mro__
    return order[order.index(Marked) + 1]


def _beneath(owner: Any, method: str) -> Callable[..., Any]:
    """Return a method as the object has it without us."""
    own: Callable[..., Any] | None = vars(owner).get(method) if method != "__call__" else None
    if own is not None:
        return own
    return types.MethodType(getattr(_stock(type(owner)), method), owner)
