"""The engine's one verb: `apply` runs an op on tensors and records it if a gradient is wanted.

An op is a pair of pure array functions under one name (see `minigrad.ops`):

    forward(xp, *arrays, **statics)             -> out, saved
    backward(xp, dy, saved, needs, **statics)   -> one gradient (or None) per input array

`minigrad.ops.TEXTBOOK` holds the readable pair of every op, `minigrad.kernels.cpu.KERNELS` and
`minigrad.kernels.cuda.KERNELS` a faster pair (the same two functions without `xp`) for some.
`apply` picks one and the node remembers which, so that the forward of one never meets the backward
of the other. A CUDA kernel that does not take what it is given leaves the op to the textbook, and
that is announced.

A kernel may also offer

    infer(*arrays, **statics)                           -> out

which is run instead of `forward` where no gradient is wanted, and need not keep what a backward
would want. And it may offer a backward that writes the gradients of leaves (weights) where
they are wanted, instead of into new arrays that are then copied:

    backward_into(dy, saved, needs, places, **statics)   -> gradients, as `backward`

`places[i]` is an array of input i's shape and dtype that its gradient may be written to, or None.
What it holds is garbage, and it aliases nothing. Where the kernel returns `places[i]` itself, that
has been written (all of it); returning another array or leaving a place unused is fine, the engine
then copies. `minigrad.autograd.write_gradients` offers a place for each leaf that nothing has been
written to yet; everything else, such as the second gradient of a weight that is used twice, or
`backward()`, goes through `backward`, so a kernel needs both (one may call the other).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from minigrad.device import CPU, Device, device_of
from minigrad.dtypes import LOW, widened
from minigrad.errors import DeviceError, InPlaceError, NonFiniteError, ShapeError
from minigrad.kernels import cpu as cpu_kernels
from minigrad.kernels import cuda as cuda_kernels
from minigrad.kernels.announce import announce
from minigrad.ops import EXACT, TEXTBOOK, VIEWS
from minigrad.settings import Setting, decorator_or_block
from minigrad.state import STATE
from minigrad.tensor import Tensor
from minigrad.version import Seen, Version

KERNELS: dict[str, Mapping[str, Any]] = {
    "cpu": cpu_kernels.KERNELS,
    "gpu": cuda_kernels.KERNELS,
}


def _set(**changes: Any) -> Setting:
    return Setting(STATE, **changes)


def no_grad(function: Any = None) -> Any:
    """Context manager and decorator: ops in this thread record nothing.

    `with no_grad():`, `@no_grad()` and `@no_grad`; see `minigrad.settings`, also for the next ones.
    """
    return decorator_or_block(_set(grad_enabled=False), function)


def enable_grad(function: Any = None) -> Any:
    """Context manager and decorator: ops record again inside a `no_grad` block."""
    return decorator_or_block(_set(grad_enabled=True), function)


def textbook(function: Any = None) -> Any:
    """Context manager and decorator: every op runs its textbook pair, no kernel is used."""
    return decorator_or_block(_set(textbook=True), function)


def detect_nan(function: Any = None) -> Any:
    """Context manager and decorator: raise `NonFiniteError` at the first NaN or Inf.

    The error names the op, its shapes, the module, and if it was in the forward or the backward
    pass. Each op's result is looked at, so a pass takes about twice its time. A backward pass must
    run inside the block as well.
    """
    return decorator_or_block(_set(detect_nan=True), function)


def first_order(function: Any = None) -> Any:
    """Context manager and decorator: what is recorded inside keeps fewer arrays, but has first
    derivatives only.

    A node usually holds the tensors that its op read, because `create_graph=True` runs the op again
    from them. In here it forgets the arrays of those that ops have made, so that what no op has
    saved for its backward is free at once.
    """
    return decorator_or_block(_set(keep_inputs=False), function)


class Forgotten:
    """A tensor that an op read, without its array."""

    __slots__ = ("_node", "_version", "dtype", "requires_grad", "shape")

    def __init__(self, x: Tensor) -> None:
        self._node, self._version, self.requires_grad = x._node, x._version, x.requires_grad
        self.dtype, self.shape = x.dtype, x.shape


class Node:
    """One recorded op: what its backward needs, and the tensors that it read.

    Attributes:
        order: a number that grows with creation, so descending order is a topological order.
        rule: the pair (forward, backward) that ran.
        xp: the array namespace if `rule` is a textbook pair, None if it is a kernel.
        low: whether an input of float16 was widened before the rule ran (see `minigrad.dtypes`).
        saved: what forward left for backward; `FREED` once a backward has used it up.
        needs: for each input, whether a gradient is wanted.
        versions: what the version counters of the inputs were when the op ran.
        seen: what the inputs were whose memory somebody outside of the engine could write to.
        result: the version of the op's own result if that was saved, and what its counter was.
        modules: the modules that were running (kept under `detect_nan` only).
    """

    __slots__ = (
        "inputs",
        "low",
        "modules",
        "name",
        "needs",
        "order",
        "result",
        "rule",
        "saved",
        "seen",
        "statics",
        "versions",
        "xp",
    )

    counter = itertools.count()

    def __init__(
        self,
        name: str,
        rule: Any,
        xp: Any,
        inputs: tuple[Any, ...],  # tensors, None for an optional input that is not given
        statics: dict[str, Any],
        saved: Any,
        needs: tuple[bool, ...],
        low: bool,
    ) -> None:
        self.order = next(Node.counter)
        self.name = name
        self.rule = rule
        self.xp = xp
        self.inputs = inputs
        self.statics = statics
        self.saved = saved
        self.needs = needs
        self.low = low
        self.versions = tuple([None if x is None else x._version.number for x in inputs])
        self.seen: dict[int, Seen] | None = None
        self.result: tuple[Version, int] | None = None
        self.modules = STATE.modules

    def watch(self, inputs: tuple[Tensor | None, ...], result: Tensor) -> None:
        """Remember what `check_versions` will look for (see `minigrad.version`)."""
        for position, x in enumerate(inputs):
            if x is None:
                continue
            x._version.read = True
            if x._version.outside and isinstance(x.array, np.ndarray):
                self.seen = self.seen or {}
                self.seen[position] = Seen(x.array)
        if _holds(self.saved, result.array):
            result._version.read = True
            self.result = result._version, result._version.number

    def check_versions(self) -> None:
        """Raise if something that this op read or saved was changed after it ran."""
        arrays = self.seen or {}
        for position, (x, number) in enumerate(zip(self.inputs, self.versions, strict=True)):
            if x is None:
                continue
            version = x._version
            same = version.number == number
            if same and version.outside:
                same = arrays.get(position, version).untouched()
            if not same:
                raise self._changed(f"its input {position} of shape {x.shape}")
        if self.result is not None:
            version, number = self.result
            if version.number != number or not version.untouched():
                raise self._changed("its result")

    def _changed(self, what: str) -> InPlaceError:
        return InPlaceError(
            f"backward of {self.name!r}: {what} was changed in place after the forward pass, so "
            "the gradient would be wrong. Run the forward pass again after the change, or change "
            "a copy."
        )


def _holds(saved: Any, array: Any) -> bool:
    """Whether `array` or a view of its memory is among what an op saved."""
    owner = array if array.base is None else array.base
    kept = saved if isinstance(saved, (tuple, list)) else (saved,)
    return any([x is array or x is owner or getattr(x, "base", None) is owner for x in kept])


FREED = object()


def apply(name: str, *inputs: Tensor | None, **statics: Any) -> Tensor:
    """Run the op `name` on `inputs` and record it if an input wants a gradient.

    Args:
        name: a key of `minigrad.ops.TEXTBOOK`.
        inputs: the tensors; None stands for an optional input that is not given.
        statics: what the op needs besides arrays (axes, shapes, flags).

    Raises:
        ShapeError: the shapes do not fit the op.
        IndexError: an index is out of range.
        DeviceError: the inputs live on different devices.
        NonFiniteError: under `detect_nan`, when the result has a NaN or Inf.
    """
    arrays = [None if x is None else x.array for x in inputs]
    low = LOW in [a if a is None else a.dtype.char for a in arrays] and name not in EXACT
    rounded = low and all([a is None or a.dtype.kind != "f" or a.dtype.char == LOW for a in arrays])
    if low:
        arrays = [widened(a) for a in arrays]
    device = _common_device(name, arrays)
    rule = None if STATE.textbook else KERNELS[device.kind].get(name)
    needs = tuple([STATE.grad_enabled and x is not None and x.requires_grad for x in inputs])
    recorded, xp, saved = True in needs, None, None
    try:
        if rule is not None and device is not CPU and not _supported(name, rule, arrays, statics):
            rule = None
        if rule is None:
            rule, xp = TEXTBOOK[name], device.xp
            out, saved = rule.forward(xp, *arrays, **statics)
        elif not recorded and hasattr(rule, "infer"):
            out = rule.infer(*arrays, **statics)
        else:
            out, saved = rule.forward(*arrays, **statics)
    except ShapeError:
        raise
    except ValueError as error:
        raise ShapeError(f"{describe(name, inputs, statics)}: {error}") from error
    except IndexError as error:
        raise IndexError(f"{describe(name, inputs, statics)}: {error}") from error
    if not hasattr(out, "ndim") or isinstance(out, np.generic):
        out = device.xp.asarray(out)
    if rounded and out.dtype.kind == "f":
        out = out.astype(LOW)

    result = Tensor.wrap(out)
    if name in VIEWS and device.xp.may_share_memory(out, arrays[0]):
        result._version = inputs[0]._version  # type: ignore[union-attr]
    if STATE.detect_nan:
        _check_finite(name, "forward", out, inputs, statics, STATE.modules)
    if recorded and out.dtype.kind == "f":
        read: tuple[Any, ...] = inputs
        if not STATE.keep_inputs:
            read = tuple([x if x is None or x._node is None else Forgotten(x) for x in inputs])
        result.requires_grad = True
        result._node = Node(name, rule, xp, read, statics, saved, needs, low)
        result._node.watch(inputs, result)
    return result


def _supported(name: str, rule: Any, arrays: list[Any], statics: dict[str, Any]) -> bool:
    """Whether a CUDA kernel takes these arrays. If it does not, that is announced."""
    reason = rule.supports(*arrays, **statics)
    if reason is not None:
        announce(f"{name}: the textbook runs in place of the CUDA kernel, because {reason}")
    return reason is None


def _common_device(name: str, arrays: list[Any]) -> Device:
    """The one device of all arrays. Every op comes by here, so the common case is quick."""
    if all([type(array) is np.ndarray or array is None for array in arrays]):
        return CPU
    device = None
    for array in arrays:
        if array is None:
            continue
        found = device_of(array)
        if device is None:
            device = found
        elif found != device:
            raise DeviceError(
                f"{name}: the inputs live on different devices ({device} and {found}). "
                "Move them to one with .to(device)."
            )
    assert device is not None
    return device


def describe(name: str, inputs: tuple[Tensor | None, ...], statics: Mapping[str, Any]) -> str:
    """The op with its shapes, for messages: `matmul of shapes (2, 3) and (4, 5)`."""
    shapes = " and ".join(str(x.shape) for x in inputs if x is not None)
    simple = {k: v for k, v in statics.items() if isinstance(v, (int, float, str, tuple))}
    options = ", ".join(f"{key}={value!r}" for key, value in simple.items())
    return f"{name} of shapes {shapes}" + (f" ({options})" if options else "")


def module_path(modules: tuple[Any, ...]) -> str:
    """Dotted attribute path of the innermost running module, e.g. `decoder_layers.0.ffn`."""
    if not modules:
        return ""
    names = {id(module): path for path, module in modules[0].named_modules()}
    path = names.get(id(modules[-1]), type(modules[-1]).__name__)
    return path or type(modules[0]).__name__


def _check_finite(
    name: str,
    phase: str,
    array: Any,
    inputs: tuple[Tensor | None, ...],
    statics: Mapping[str, Any],
    modules: tuple[Any, ...],
) -> None:
    """Raise `NonFiniteError` if a float `array` holds a NaN or Inf."""
    if array.dtype.kind != "f":
        return
    xp = device_of(array).xp
    bad = ~xp.isfinite(array)
    count = int(bad.sum())
    if not count:
        return
    index = tuple(int(i[0]) for i in xp.nonzero(bad)) if array.ndim else ()
    path = module_path(modules)
    where = f" in module {path!r}" if path else ""
    raise NonFiniteError(
        f"{phase} of {describe(name, inputs, statics)}{where} gave {count} non-finite value(s) of "
        f"{array.size}, the first is {float(array[index])} at index {index}.",
        op=name,
        phase=phase,
        module=path,
    )
