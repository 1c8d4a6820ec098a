"""`Module`: parameters and sub-modules in a tree, found by attribute."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from minigrad.device import CPU, Device
from minigrad.hints import explain_rng, missing_in_module
from minigrad.nn.hidden_parts import require_nothing_hidden, warn_of_untrained
from minigrad.nn.state_dicts import LoadedKeys, fitting, put
from minigrad.state import STATE
from minigrad.tensor import Tensor


class Parameter(Tensor):
    """A leaf tensor that a module owns and an optimizer updates.

    Args:
        data: the initial values. If it is a tensor in a graph, the graph is left out.
        requires_grad: False freezes it.
    """

    __slots__ = ()

    def __init__(self, data: Any, dtype: Any = None, *, requires_grad: bool = True) -> None:
        values = data.detach() if isinstance(data, Tensor) else data
        super().__init__(values, dtype, requires_grad=requires_grad)


class Module:
    """Base class of layers and models.

    Assign parameters and modules to attributes in `__init__`; they are found in that order. Write
    `forward`, but call the module. Put several modules into a `ModuleList` or `Sequential`: modules
    in a plain list are not found, which is an error.

    Other tensors in attributes are moved with the module, but neither trained nor saved. A tensor
    that must be saved as well, such as a running mean, is a *buffer*: see `register_buffer`.

    Attributes:
        training: True after `train()`, False after `eval()`. Dropout depends on it.
    """

    training: bool = True
    _buffers: Mapping[str, bool] = MappingProxyType({})  # name -> whether it is saved
    _forward_hooks: tuple[Callable[..., Any], ...] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        explain_rng(cls)

    if not TYPE_CHECKING:  # otherwise checkers would accept every name

        def __getattr__(self, name: str) -> Any:  # asked only for what there is not
            if hasattr(type(self), name):  # a property has failed: say why
                return object.__getattribute__(self, name)
            if hasattr(super(), "__getattr__"):  # of another class that it is made from
                return super().__getattr__(name)
            raise AttributeError(missing_in_module(type(self).__name__, name), name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute.

        Raises:
            TypeError: a parameter or a module would be replaced by something that is neither, and
                so be lost. None removes it; later a parameter or a module may be assigned again.
        """
        before = self.__dict__.get(name)
        taken_out = self.__dict__.get("_taken_out", {})  # name -> what was there before None
        place = taken_out.get(name) if before is None else type(before)
        belongs = place is not None and issubclass(place, (Parameter, Module))
        if belongs and not (value is None or isinstance(value, (Parameter, Module))):
            owner, kind = type(self).__name__, type(value).__name__
            if issubclass(place, Module):
                raise TypeError(
                    f"{owner}.{name} is a module, which a {kind} cannot replace: its parameters "
                    "would vanish. Assign another module, or None to take it out."
                )
            raise TypeError(
                f"{owner}.{name} is a parameter, which a {kind} cannot replace: it would vanish "
                f"from training and from the state dict. Change it in place, with {name}.assign("
                "values) or under minigrad.no_grad(), or assign nn.Parameter(values), or None."
            )
        if belongs and value is None:
            object.__setattr__(self, "_taken_out", {**taken_out, name: place})
        object.__setattr__(self, name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes. Each class defines its own."""
        raise TypeError(f"{type(self).__name__} has no forward method")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if STATE.detect_nan:
            result = self._named_in_errors(*args, **kwargs)
        else:
            result = self.forward(*args, **kwargs)
        for hook in self._forward_hooks:
            changed = hook(self, args, result)
            result = result if changed is None else changed
        return result

    def _named_in_errors(self, *args: Any, **kwargs: Any) -> Any:
        before = STATE.modules
        STATE.modules = (*before, self)
        try:
            return self.forward(*args, **kwargs)
        finally:
            STATE.modules = before

    def register_forward_hook(
        self, hook: Callable[[Module, tuple[Any, ...], Any], Any]
    ) -> Callable[[], None]:
        """Call `hook(module, args, result)` after each call of this module.

        If the hook returns something else than None, that replaces the result.

        Returns:
            A function that removes the hook.
        """
        self._forward_hooks = (*self._forward_hooks, hook)

        def remove() -> None:
            self._forward_hooks = tuple(h for h in self._forward_hooks if h is not hook)

        return remove

    def runs_as_defined(self) -> bool:
        """Whether a call runs exactly the class's code: there is no forward hook, and no method of
        this object has been replaced."""
        return not self._forward_hooks and _methods_of(type(self)).isdisjoint(vars(self))  # type: ignore[arg-type]

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Set attribute `name` to a tensor that is saved and moved with the module, not trained.

        A tensor that is assigned to the attribute later replaces it.

        Args:
            name: of the attribute.
            tensor: no parameter; None for a buffer that is not there yet.
            persistent: whether it is part of the state dict.

        Raises:
            TypeError: it is not a tensor, or a parameter.
            KeyError: there is an attribute of that name that is no buffer.
        """
        if tensor is not None and (not isinstance(tensor, Tensor) or isinstance(tensor, Parameter)):
            raise TypeError(
                f"register_buffer: {name!r} must be a Tensor that is no Parameter, not "
                f"{type(tensor).__name__}"
            )
        before = getattr(self, name, None)
        if before is not None and (not isinstance(before, Tensor) or isinstance(before, Parameter)):
            raise KeyError(f"{type(self).__name__} has an attribute {name!r} that is no buffer")
        setattr(self, name, tensor)
        self._buffers = {**self._buffers, name: persistent}

    # The tree

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules in the attributes of this one, in order of definition."""
        for name, value in list(vars(self).items()):  # to which other threads may add meanwhile
            if isinstance(value, Module):
                yield name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module (as `prefix`) and all below it, with dotted names.

        Raises:
            TypeError: a plain list, tuple, set or dict in an attribute holds a module or parameter
                that is in no attribute itself.
            ValueError: a module is below itself.
        """
        found: list[tuple[str, Module]] = []
        self._collect(prefix, (), found)
        if not prefix:
            require_nothing_hidden([module for _, module in found], (Module, Parameter))
        return iter(found)

    def _collect(
        self, path: str, above: tuple[Module, ...], found: list[tuple[str, Module]]
    ) -> None:
        if self in above:
            raise ValueError(
                f"{path} is the {type(self).__name__} above it, and a tree of modules has no way "
                "back up: hold a parent by a weakref"
            )
        found.append((path, self))
        above = (*above, self)
        for name, child in self.named_children():
            child._collect(f"{path}.{name}" if path else name, above, found)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        return (module for _, module in self.named_modules())

    def _all_named_tensors(self, saved: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers, shared ones under each name. `saved`: only what is saved."""
        for path, module in self.named_modules():
            for name, value in list(vars(module).items()):
                kept = name in module._buffers and (module._buffers[name] or not saved)
                if isinstance(value, Parameter) or (kept and isinstance(value, Tensor)):
                    yield f"{path}.{name}" if path else name, value
                elif (
                    isinstance(value, Tensor)
                    and name not in module._buffers
                    and value.requires_grad
                    and value.is_leaf
                ):
                    warn_of_untrained(module, name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Parameters with dotted names. A shared one is listed once, under its first name."""
        seen: set[int] = set()
        for name, tensor in self._all_named_tensors():
            if isinstance(tensor, Parameter) and id(tensor) not in seen:
                seen.add(id(tensor))
                yield name, tensor

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Buffers with dotted names. A shared one is listed once, under its first name."""
        seen: set[int] = set()
        for name, tensor in self._all_named_tensors():
            if not isinstance(tensor, Parameter) and id(tensor) not in seen:
                seen.add(id(tensor))
                yield name, tensor

    def buffers(self) -> list[Tensor]:
        """All buffers, each once, in order of definition."""
        return [buffer for _, buffer in self.named_buffers()]

    def parameters(self) -> list[Parameter]:
        """All parameters, each once, in order of definition."""
        return [parameter for _, parameter in self.named_parameters()]

    def num_parameters(self) -> int:
        """How many numbers the parameters hold."""
        return sum(parameter.size for parameter in self.parameters())

    # State

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of every parameter and buffer as a NumPy array, shared ones under each name."""
        named = self._all_named_tensors(saved=True)
        return {name: np.array(CPU.asarray(tensor.array)) for name, tensor in named}

    def load_state_dict(
        self, state: Mapping[str, Any], strict: bool = True, *, assign: bool = False
    ) -> LoadedKeys:
        """Copy arrays into the parameters and buffers, keeping their dtype and device.

        Nothing is changed unless everything fits.

        Args:
            state: name -> array or tensor.
            strict: if False, tensors that the state lacks stay as they are, and names that the
                module lacks are skipped. A wrong shape is always an error.
            assign: use the arrays themselves instead of copies, where dtype and device are right.
                They then belong to the module, and nothing else may write to them.

        Returns:
            `missing_keys` and `unexpected_keys`, which are empty if `strict`.

        Raises:
            TypeError: the state is not a dict.
            ValueError: names every missing, unexpected and mis-shaped key, and every value that
                holds no numbers, at once.
        """
        own = dict(self._all_named_tensors(saved=True))
        arrays, keys = fitting(type(self).__name__, own, state, strict)
        put(own, arrays, assign)
        return keys

    # Switches

    def train(self, mode: bool = True) -> Self:
        """Put this module and all below it in training mode."""
        # This one comes last: a thread that sees its new mode may rely on that of the parts.
        for module in reversed(list(self.modules())):
            module.training = mode
        return self

    def eval(self) -> Self:
        """Put this module and all below it in evaluation mode."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze all parameters (False), or let them be trained (True)."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Call `function` on every module below this one and then on this one."""
        for _, child in self.named_children():
            child.apply(function)
        function(self)
        return self

    def to(self, device: Device | str) -> Self:
        """Move all parameters and other tensors, and their gradients, in place."""
        target = Device(device)
        return self._convert(target.asarray)

    def astype(self, dtype: Any) -> Self:
        """Convert all parameters and other tensors of floats, and their gradients, in place."""
        return self._convert(
            lambda array: array.astype(dtype) if array.dtype.kind == "f" else array
        )

    def _convert(self, convert: Any) -> Self:
        for module in self.modules():
            for value in list(vars(module).values()):
                if isinstance(value, Tensor):
                    array = convert(value.array)
                    if array is not value.array:
                        value.move(array)
                    if value.grad is not None:
                        value.grad = Tensor.wrap(convert(value.grad.array))
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or with `set_to_none=False` fill them with 0."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.array[...] = 0
                parameter.grad.changed()

    # For people

    def extra_repr(self) -> str:
        """The text between the parentheses of the repr. Layers return their sizes."""
        return ""

    @reprlib.recursive_repr()
    def __repr__(self) -> str:
        lines = [
            f"  ({name}): " + repr(child).replace("\n", "\n  ")
            for name, child in self.named_children()
        ]
        head = f"{type(self).__name__}({self.extra_repr()}"
        return head + ("\n" + "\n".join(lines) + "\n" if lines else "") + ")"


@lru_cache(maxsize=256)
def _methods_of(kind: Any) -> frozenset[str]:
    return frozenset(name for name in dir(kind) if callable(getattr(kind, name)))
