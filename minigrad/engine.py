"""`apply` runs an op on tensors and records it if a gradient is wanted."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.announce import announce
from minigrad.describe import check_finite, describe, why_not
from minigrad.device import CPU, Device, device_of
from minigrad.dtypes import LOW, widened
from minigrad.errors import DeviceError, ShapeError
from minigrad.graph import Forgotten, Node, Variable, require_floats
from minigrad.op import Op, run_with
from minigrad.state import STATE


def apply(op: type[Op], *inputs: Variable | None, **statics: Any) -> Any:
    """Run `op` on `inputs` and record it if an input wants a gradient.

    Args:
        op: a subclass of `Op`.
        inputs: the tensors; None stands for an optional input that is not given.
        statics: what the op needs besides arrays (axes, shapes, flags).

    Raises:
        ShapeError: the shapes do not fit the op.
        IndexError: an index is out of range.
        DeviceError: the inputs live on different devices.
        NonFiniteError: under `detect_nan`, when the result has a NaN or Inf.
    """
    arrays: list[Any] = []
    wanted: list[bool] = []
    low, on_host, grad_enabled = False, True, STATE.grad_enabled
    for x in inputs:  # one loop for everything, since this runs for every op
        if x is None:
            arrays.append(None)
            wanted.append(False)
            continue
        array = x.array
        arrays.append(array)
        wanted.append(grad_enabled and x.requires_grad)
        if array.dtype.char == LOW:
            low = True
        if type(array) is not np.ndarray:
            on_host = False
    low = low and not op.exact
    rounded = low and all([a is None or a.dtype.kind != "f" or a.dtype.char == LOW for a in arrays])
    if low:
        arrays = [widened(a) for a in arrays]
    device = CPU if on_host else _common_device(op, arrays)
    if device is not CPU and not device.is_in_use:
        with device.in_use():
            return apply(op, *inputs, **statics)
    rule = None if STATE.textbook else op.kernels.get(device.kind)
    needs = tuple(wanted)
    recorded, xp, saved = True in needs, None, None
    try:
        if rule is not None and device is not CPU and not _supported(op, rule, arrays, statics):
            rule = None
        if rule is None:
            rule, xp = op, device.xp
            made = rule.forward(xp, *arrays, **statics)
            if type(made) is not tuple or len(made) != 2:
                raise TypeError(f"forward of the op {op.name!r} must return (out, saved)")
            out, saved = made
        elif not recorded and hasattr(rule, "infer"):
            out = rule.infer(*arrays, **statics)
        else:
            out, saved = rule.forward(*arrays, **statics)
    except (ShapeError, np.linalg.LinAlgError):  # a singular matrix has the right shape
        raise
    except ValueError as error:
        raise ShapeError(why_not(op, inputs, statics, error)) from error
    except IndexError as error:
        raise IndexError(f"{describe(op, inputs, statics)}: {error}") from error
    if not hasattr(out, "ndim") or isinstance(out, np.generic):
        out = device.xp.asarray(out)
    if rounded and out.dtype.kind == "f":
        out = out.astype(LOW)

    result = Variable.tensor.wrap(out)
    if op.view and device.xp.may_share_memory(out, arrays[0]):
        result.version = inputs[0].version  # type: ignore[union-attr]
    if STATE.detect_nan:
        check_finite(op, "forward", out, inputs, statics, STATE.modules)
    if recorded and out.dtype.kind == "f":
        read: tuple[Any, ...] = inputs
        if not STATE.keep_inputs:
            read = tuple([x if x is None or x.node is None else Forgotten(x) for x in inputs])
        result.requires_grad = True
        result.node = Node(op, rule, xp, read, statics, saved, needs, low)
        result.node.watch(inputs, result)
    elif recorded:
        require_floats(*inputs)  # else integers with requires_grad would silently get no gradient
    return result


def _supported(op: type[Op], rule: Any, arrays: list[Any], statics: dict[str, Any]) -> bool:
    """Whether a CUDA kernel supports these arrays. If not, a warning says why."""
    reason = rule.supports(*arrays, **statics) if hasattr(rule, "supports") else None
    if reason is not None:
        announce(f"{op.name}: the textbook runs in place of the CUDA kernel, because {reason}")
    return reason is None


def _common_device(op: type[Op], arrays: list[Any]) -> Device:
    """The device that all arrays are on. Raises `DeviceError` if they are on several."""
    device = None
    for array in arrays:
        if array is None:
            continue
        found = device_of(array)
        if device is None:
            device = found
        elif found != device:
            raise DeviceError(
                f"{op.name}: the inputs live on different devices ({device} and {found}). "
                "Move them to one with .to(device)."
            )
    assert device is not None
    return device


def _called(op: type[Op], *inputs: Any, **statics: Any) -> Any:
    """Run an op that was called: arrays and numbers become tensors first."""
    tensors = [x if x is None or isinstance(x, Variable) else Variable.tensor(x) for x in inputs]
    return apply(op, *tensors, **statics)


run_with(_called)
