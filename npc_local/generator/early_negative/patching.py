"""Standing before the calls of one object for a while, and giving it back as it was found.

A stand-in on the attribute `forward` would be lost: offload hooks, caches, PEFT and users' own
wrappers replace and restore that attribute whenever they like (the prefetch hook of diffusers'
group offload writes it at the end of the first forward). So the object gets a class of its own for
a while, where Python looks up `model(...)`: what others do to `forward` works below.
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
    """Answers the calls of one object while it stands there; see `standing_before`."""

    def __init__(self, owner: Any, answer: Callable[..., Any]) -> None:
        """Remember whose calls are answered, and by what."""
        self.owner = owner
        self.answer = answer

    def compute(self, *args: Any, **kwargs: Any) -> Any:
        """Call the object as if this did not stand before it."""
        others = _standing[id(self.owner)]
        place = others.index(self)
        if place > 0:
            return others[place - 1].answer(*args, **kwargs)
        return _stock(type(self.owner)).__call__(self.owner, *args, **kwargs)

    @property
    def is_there(self) -> bool:
        """Whether calls of the object still come here."""
        return isinstance(self.owner, Marked) and self in _standing.get(id(self.owner), ())


@contextmanager
def standing_before(owner: Any, answer: Callable[..., Any]) -> Iterator[StandIn]:
    """Let `answer` answer every call of `owner`.

    Only this object changes, and copies made meanwhile are as before. Several may stand before the
    same object, and may leave in any order.

    Raises:
        ConfigError: Python cannot give an object of this class another one.
    """
    stand_in = StandIn(owner, answer)
    with _lock:
        if not isinstance(owner, Marked):
            stock: type = type(owner)
            try:
                owner.__class__ = _class_for(stock)
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
    members = {
        "__call__": functools.wraps(stock.__call__)(call),
        "__module__": stock.__module__,
        "__qualname__": stock.__qualname__,
        "__doc__": stock.__doc__,
    }
    return types.new_class(
        stock.__name__, (Marked, stock), exec_body=lambda namespace: namespace.update(members)
    )


@functools.cache  # so that a compiled model is not compiled anew for each call of its pipeline
def _class_for(stock: type) -> type:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        standing = _standing.get(id(self))
        if not standing:  # made of this class meanwhile
            return stock.__call__(self, *args, **kwargs)
        return standing[-1].answer(*args, **kwargs)

    return with_call(stock, call)


def _stock(kind: type) -> type:
    """Return the class that one made here stands for."""
    order = kind.__mro__
    return order[order.index(Marked) + 1]


@contextmanager
def listening_to(owner: Any, name: str, told: Callable[[], None]) -> Iterator[None]:
    """Let `told` be called before each call of the method `owner.name`."""
    own = vars(owner).get(name)
    method = getattr(owner, name)
    active = True

    # Pipelines read the signature of scheduler.step: show the real one.
    @functools.wraps(method)
    def shown(*args: Any, **kwargs: Any) -> Any:
        if active:  # a wrapper that somebody has put around it may outlive this
            told()
        return method(*args, **kwargs)

    setattr(owner, name, shown)
    try:
        yield
    finally:
        active = False
        if vars(owner).get(name) is shown:
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)
