"""Frozen values: what `@dataclass(frozen=True, slots=True)` makes, without the standard library's dataclasses.

That module, with `inspect` behind it, takes 2.7 MB that a waiting memrun would keep (of 11: measured on 3.11), and writes and compiles six
functions for each class. Here all classes share theirs.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from typing_extensions import dataclass_transform

    T = TypeVar("T")
else:

    def dataclass_transform(**_):  # noqa: ANN003, ANN201, D103
        return lambda made: made


class _Value:
    __slots__ = ()
    __match_args__: tuple[str, ...] = ()
    _otherwise: dict[str, object] = {}  # noqa: RUF012  (one for each class, which `value` makes)

    def __init__(self, *given: object, **named: object) -> None:
        names = self.__match_args__
        if len(given) > len(names):
            raise TypeError(f"{type(self).__name__} has {len(names)} fields, {len(given)} were given")
        for name, one in zip(names, given, strict=False):
            _put(self, name, one)
        for name in names[len(given) :]:
            if name in named:
                _put(self, name, named.pop(name))
            elif name in self._otherwise:
                _put(self, name, self._otherwise[name])
            else:
                raise TypeError(f"{type(self).__name__} lacks its {name}")
        if named:
            raise TypeError(f"{type(self).__name__} has no {next(iter(named))}, or was given it twice")

    def __setattr__(self, name: str, _: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} is not to be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} is not to be changed")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__match_args__)

    def __hash__(self) -> int:
        return hash((type(self), *[getattr(self, name) for name in self.__match_args__]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__match_args__)})"


_put = object.__setattr__


@dataclass_transform(frozen_default=True)
def value(kind: type[T]) -> type[T]:
    """A class whose annotations are the fields of its values, in that order, with the defaults that stand beside them."""
    names = tuple(kind.__annotations__)
    body = {name: one for name, one in vars(kind).items() if name not in {*names, "__dict__", "__weakref__"}}
    body["_otherwise"] = {name: vars(kind)[name] for name in names if name in vars(kind)}
    body["__slots__"] = body["__match_args__"] = names
    return type(kind.__name__, (_Value,), body)


def replace(thing: T, **changes: object) -> T:
    """The same value but for these fields."""
    made = object.__new__(type(thing))
    for name in type(thing).__match_args__:  # type: ignore[attr-defined]
        _put(made, name, changes.pop(name) if name in changes else getattr(thing, name))
    if changes:
        raise TypeError(f"{type(thing).__name__} has no {next(iter(changes))}")
    return made
