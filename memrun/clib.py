"""Calls into the C library that the standard library has not: CPython's own `_ctypes`, without the ctypes package, which takes 1.4 ms
instead of 0.3, and half a megabyte."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

RTLD_NOW = 2


def function(name: str) -> Callable[..., int] | None:
    """One that takes numbers (C int; `long` for wider ones) and bytes, and gives a C int; None on a Python without _ctypes."""
    try:
        import _ctypes
    except ImportError:
        return None
    flags = (
        _ctypes.FUNCFLAG_PYTHONAPI | _ctypes.FUNCFLAG_USE_ERRNO
    )  # the interpreter's lock is kept: who is forked has it from the start
    call = type("call", (_ctypes.CFuncPtr,), {"_flags_": flags, "_restype_": _kind(_ctypes, "i")})
    found = call(_ctypes.dlsym(_ctypes.dlopen(None, RTLD_NOW), name))  # type: ignore[arg-type]
    return lambda *given: int(found(*given))


def long(number: int) -> object:
    """A number as wide as a register."""
    import _ctypes

    return _kind(_ctypes, "l")(number)


_kinds: dict[str, Any] = {}  # made once: a class is garbage that only the collector finds, and the midwife has none


def _kind(_ctypes: Any, letter: str) -> Any:  # noqa: ANN401
    if letter not in _kinds:
        _kinds[letter] = type("number", (_ctypes._SimpleCData,), {"_type_": letter})  # noqa: SLF001  (there is no other way to say so)
    return _kinds[letter]


def errno() -> int:
    """Of the last call."""
    import _ctypes

    return _ctypes.get_errno()
