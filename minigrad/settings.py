"""Settings of the engine for a `with` block, or while a function runs.

    with no_grad():             a block; the same object may be entered again, and inside itself
    @no_grad() or @no_grad      a function, a method, a generator, an async function or generator

A generator runs in pieces, between which its caller runs. The setting holds only in the pieces. At
each `yield` the caller gets its own settings back. At the next piece the generator gets its own
back, including those that it has changed itself. `await` in async functions works in the same way.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from threading import get_ident
from typing import Any, NoReturn, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


class Setting:
    """Values for some attributes of a state, as a context manager and as a decorator.

    Args:
        state: an object of the thread (a `threading.local`) whose attributes are read elsewhere.
        changes: attribute -> the value that it has inside.
    """

    def __init__(self, state: Any, **changes: Any) -> None:
        self._state, self._changes = state, changes
        # For each thread what to go back to, as often as it is inside.
        self._before: dict[int, list[dict[str, Any]]] = {}

    def __enter__(self) -> None:
        before = self._before.setdefault(get_ident(), [])
        before.append(_exchange(self._state, self._changes))

    def __exit__(self, *error: object) -> None:
        _exchange(self._state, self._before[get_ident()].pop())

    def __call__(self, function: Function) -> Function:
        """`function` with this setting while it runs.

        Raises:
            TypeError: it is not a function. The methods of a class are decorated one by one.
        """
        return self._around(function)

    def _around(self, function: Any) -> Any:
        if isinstance(function, (staticmethod, classmethod)):
            return type(function)(self(function.__func__))
        if isinstance(function, type) or not callable(function):
            raise TypeError(
                f"a setting decorates functions and methods, not {function!r}: decorate the "
                "methods of a class one by one, or use `with`"
            )
        state, changes = self._state, self._changes
        run: Callable[..., Any]
        if inspect.isgeneratorfunction(function):

            def generator(*args: Any, **kwargs: Any) -> Any:
                return (yield from _in_pieces(function(*args, **kwargs), _Inside(state, changes)))

            run = generator

        elif inspect.iscoroutinefunction(function):

            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                return await _Awaited(function(*args, **kwargs), _Inside(state, changes))

            run = coroutine

        elif inspect.isasyncgenfunction(function):

            async def async_generator(*args: Any, **kwargs: Any) -> Any:
                inside = _Inside(state, changes)
                pieces = function(*args, **kwargs)
                try:
                    given = await _Awaited(pieces.asend(None), inside)
                    while True:
                        try:
                            sent = yield given
                        except GeneratorExit:
                            await _Awaited(pieces.aclose(), inside)
                            raise
                        except BaseException as error:
                            given = await _Awaited(pieces.athrow(error), inside)
                        else:
                            given = await _Awaited(pieces.asend(sent), inside)
                except StopAsyncIteration:
                    return

            run = async_generator

        else:

            def plain(*args: Any, **kwargs: Any) -> Any:
                before = _exchange(state, changes)
                try:
                    return function(*args, **kwargs)
                finally:
                    _exchange(state, before)

            run = plain

        return functools.wraps(function)(run)


class Named:
    """A function such as `no_grad` that says what to type where its parentheses are forgotten."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._function(*args, **options)

    def __repr__(self) -> str:
        return repr(self._function)

    def __reduce__(self) -> str:
        """Pickled and copied as the global of this name, as a function is."""
        return self._function.__qualname__

    def __enter__(self) -> NoReturn:
        """Raise TypeError, always."""
        name = self._function.__name__
        raise TypeError(f"with minigrad.{name}: needs parentheses, as in `with minigrad.{name}():`")

    def __exit__(self, *error: object) -> None:
        """Not reached, but Python looks for it before it calls `__enter__`."""


def decorator_or_block(setting: Setting, function: Callable[..., Any] | None) -> Any:
    """What `@no_grad`, with a function, and `no_grad()`, without one, give."""
    return setting if function is None else setting(function)


def _exchange(state: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Set attributes; returns the values that they had."""
    before = {}
    for name, value in values.items():
        before[name] = getattr(state, name)
        setattr(state, name, value)
    return before


class _Inside:
    """What the attributes of a state are inside a function that runs in pieces."""

    def __init__(self, state: Any, values: dict[str, Any]) -> None:
        self._state, self._values = state, dict(values)

    def run(self, piece: Callable[..., Any], *args: Any) -> Any:
        """One piece, after which the caller's values are back."""
        outside = _exchange(self._state, self._values)
        try:
            return piece(*args)
        finally:
            self._values = _exchange(self._state, outside)


def _in_pieces(pieces: Any, inside: _Inside) -> Generator[Any, Any, Any]:
    """Pass on everything between a generator (or what is awaited) and its caller."""
    try:
        given = inside.run(pieces.send, None)
        while True:
            try:
                sent = yield given
            except GeneratorExit:
                inside.run(pieces.close)
                raise
            except BaseException as error:
                given = inside.run(pieces.throw, error)
            else:
                given = inside.run(pieces.send, sent)
    except StopIteration as end:
        return end.value


class _Awaited:
    """An awaitable whose pieces run inside."""

    def __init__(self, awaitable: Any, inside: _Inside) -> None:
        self._awaitable, self._inside = awaitable, inside

    def __await__(self) -> Generator[Any, Any, Any]:
        return _in_pieces(self._awaitable.__await__(), self._inside)
