"""no_grad and similar settings: as blocks, and on functions, generators and async functions."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor
from minigrad.state import STATE, first_order

KIN: list[tuple[Callable[..., Any], str, bool]] = [
    (mg.no_grad, "grad_enabled", False),
    (mg.textbook, "textbook", True),
    (mg.detect_nan, "detect_nan", True),
    (first_order, "keep_inputs", False),
]
each = pytest.mark.parametrize(("setting", "name", "inside"), KIN)


@each
def test_a_block_can_be_entered_twice_and_inside_itself(
    setting: Callable[..., Any], name: str, inside: bool
) -> None:
    block = setting()
    for _ in range(2):
        with block:
            assert getattr(STATE, name) is inside
            with block, setting():
                assert getattr(STATE, name) is inside
            assert getattr(STATE, name) is inside
        assert getattr(STATE, name) is not inside
    with pytest.raises(KeyError), block:
        raise KeyError
    assert getattr(STATE, name) is not inside


def test_a_block_is_each_threads_own() -> None:
    block, seen = mg.no_grad(), []

    def elsewhere() -> None:
        seen.append(STATE.grad_enabled)
        with block:
            seen.append(STATE.grad_enabled)
        seen.append(STATE.grad_enabled)

    with block:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert not STATE.grad_enabled
    assert seen == [True, False, True] and STATE.grad_enabled


@each
def test_functions_and_methods(setting: Callable[..., Any], name: str, inside: bool) -> None:
    for decorate in (setting, setting()):

        @decorate
        def plain(x: int, *, y: int = 2) -> Any:
            """What it says."""
            return x, y, getattr(STATE, name)

        class Model:
            @decorate
            def method(self) -> Any:
                return self, getattr(STATE, name)

            @decorate
            @staticmethod
            def static() -> Any:
                return getattr(STATE, name)

            @classmethod
            @decorate
            def of_class(cls) -> Any:
                return cls, getattr(STATE, name)

            other = decorate(classmethod(lambda cls: (cls, getattr(STATE, name))))

        model = Model()
        assert plain(1, y=3) == plain(1, y=3) == (1, 3, inside)
        assert (plain.__name__, plain.__doc__) == ("plain", "What it says.")
        assert model.method() == (model, inside) and model.static() is inside
        assert Model.of_class() == Model.other() == (Model, inside)

        @decorate
        def recursive(n: int) -> Any:
            return getattr(STATE, name) if n == 0 else recursive(n - 1)

        assert recursive(3) is inside
        assert getattr(STATE, name) is not inside


def test_what_is_no_function_is_refused() -> None:
    for wrong in (type("Model", (), {}), 3, Tensor(1.0)):
        with pytest.raises(TypeError, match="decorates functions"):
            mg.no_grad(wrong)


@each
def test_a_generator_has_the_setting_and_its_caller_has_not(
    setting: Callable[..., Any], name: str, inside: bool
) -> None:
    seen: list[Any] = []

    @setting
    def numbers(first: int) -> Iterator[Any]:
        try:
            got = yield first
            while True:
                seen.append((got, getattr(STATE, name)))
                try:
                    got = yield getattr(STATE, name)
                except KeyError as error:
                    got = error.args[0]
                if got == "end":
                    return "result"
        finally:
            seen.append(("closed", getattr(STATE, name)))

    generator = numbers(7)
    outside = getattr(STATE, name)
    assert next(generator) == 7 and getattr(STATE, name) is outside
    assert generator.send("a") is inside and getattr(STATE, name) is outside
    assert generator.throw(KeyError("b")) is inside and getattr(STATE, name) is outside
    with pytest.raises(StopIteration) as end:
        generator.send("end")
    assert end.value.value == "result" and getattr(STATE, name) is outside
    assert seen == [("a", inside), ("b", inside), ("closed", inside)]
    generator = numbers(1)
    next(generator)
    generator.close()
    assert seen[3:] == [("closed", inside)] and getattr(STATE, name) is outside
    generator = numbers(1)
    next(generator)
    with pytest.raises(ValueError, match="mine"):
        generator.throw(ValueError("mine"))
    assert getattr(STATE, name) is outside


def test_a_generator_keeps_what_it_has_changed_itself() -> None:
    @mg.no_grad()
    @mg.textbook
    def steps() -> Iterator[tuple[bool, bool]]:
        yield STATE.grad_enabled, STATE.textbook
        with mg.enable_grad():
            yield STATE.grad_enabled, STATE.textbook
            yield STATE.grad_enabled, STATE.textbook
        yield STATE.grad_enabled, STATE.textbook

    seen = []
    for pair in steps():
        assert STATE.grad_enabled and not STATE.textbook
        seen.append(pair)
    assert seen == [(False, True), (True, True), (True, True), (False, True)]


def test_two_generators_take_turns() -> None:
    @mg.no_grad
    def without() -> Iterator[bool]:
        for _ in range(3):
            yield STATE.grad_enabled

    @mg.enable_grad()
    def with_() -> Iterator[bool]:
        for _ in range(3):
            yield STATE.grad_enabled

    for outside in (mg.enable_grad(), mg.no_grad()):
        with outside:
            assert list(zip(without(), with_(), strict=True)) == [(False, True)] * 3


@each
def test_async_functions_take_turns(setting: Callable[..., Any], name: str, inside: bool) -> None:
    seen: list[Any] = []

    @setting()
    async def inner(n: int) -> int:
        for _ in range(3):
            seen.append(getattr(STATE, name) is inside)
            await asyncio.sleep(0)
        if n == 2:
            raise KeyError(n)
        return n

    async def other() -> None:
        for _ in range(6):
            seen.append(getattr(STATE, name) is not inside)
            await asyncio.sleep(0)

    async def main() -> Any:
        return await asyncio.gather(inner(1), other(), inner(2), return_exceptions=True)

    one, nothing, error = asyncio.run(main())
    assert (one, nothing) == (1, None) and isinstance(error, KeyError)
    assert all(seen) and len(seen) == 12 and getattr(STATE, name) is not inside


def test_async_generators() -> None:
    seen: list[Any] = []

    @mg.no_grad
    async def numbers() -> AsyncIterator[Any]:
        try:
            got = yield STATE.grad_enabled
            await asyncio.sleep(0)
            seen.append((got, STATE.grad_enabled))
            try:
                yield STATE.grad_enabled
            except KeyError:
                seen.append(("caught", STATE.grad_enabled))
            yield STATE.grad_enabled
        finally:
            seen.append(("closed", STATE.grad_enabled))

    async def main() -> None:
        generator = numbers()
        assert await anext(generator) is False and STATE.grad_enabled
        assert await generator.asend("a") is False and STATE.grad_enabled
        assert await generator.athrow(KeyError()) is False and STATE.grad_enabled
        with pytest.raises(StopAsyncIteration):
            await anext(generator)
        generator = numbers()
        await anext(generator)
        await generator.aclose()
        assert [x async for x in numbers()] == [False] * 3 and STATE.grad_enabled

    asyncio.run(main())
    closed = ("closed", False)
    assert seen == [("a", False), ("caught", False), closed, closed, (None, False), closed]


def test_nothing_is_recorded_in_a_decorated_function() -> None:
    w = Tensor(np.ones(2), requires_grad=True)

    @mg.no_grad
    def predict() -> Tensor:
        return w * 2

    assert not predict().requires_grad and (w * 2).requires_grad


def test_the_default_device_is_such_a_setting() -> None:
    block = mg.functions.default_device("cpu")
    with block, block:
        assert mg.ones(2).device == mg.Device("cpu")
    assert block(mg.ones)(2).tolist() == [1, 1]
