"""What a pickle of PyTorch may contain: storages, tensors over them, and plain data.

Plain data are dictionaries, lists, tuples, sets, numbers, strings, bytes, sizes, devices and
dtypes, as for `torch.load(weights_only=True)`.

A global name of the file becomes a `Marker`, never the function or class of that name, and a call
on a marker becomes a description of a tensor. Names and calls that are not listed here are refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minigrad.storage.stored_dtypes import DTYPE_NAMES

MAX_AXES = 32  # the least that any supported NumPy can hold


class UnpicklingRefused(ValueError):
    """The program does something that no state dict needs, or is damaged."""


@dataclass(frozen=True, slots=True)
class Marker:
    """Stands for a global name of the file; never the function or class of that name."""

    name: str
    role: str  # what `rebuild` and `storage_of` know it by
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A run of numbers in the file. Untyped storages have no `dtype` and count bytes."""

    key: str
    dtype: str | None
    count: int


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor of the file: a strided view, in elements, of a storage that may be too small."""

    storage: StorageRef
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Size(tuple):
    """A `torch.Size`: a tuple of integers."""


_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_BUILTINS = ("builtins", "__builtin__")  # the name of Python 2, which its protocols use
_BUILTIN_TYPES = ("set", "complex", "bytes", "bytearray")
_MARKERS = {
    marker.name: marker
    for marker in (
        Marker("collections OrderedDict", "dict"),
        Marker("collections Counter", "counter"),
        Marker("torch Size", "size"),
        Marker("torch device", "device"),
        Marker("_codecs encode", "encode"),
        *(Marker(f"{module} {kind}", kind) for module in _BUILTINS for kind in _BUILTIN_TYPES),
        Marker("torch._utils _rebuild_tensor_v2", "tensor"),
        Marker("torch._utils _rebuild_tensor_v3", "typed tensor"),
        Marker("torch._utils _rebuild_parameter", "parameter"),
        Marker("torch._utils _rebuild_parameter_with_state", "parameter"),
        Marker("torch._tensor _rebuild_from_type_v2", "subclass"),
        Marker("torch Tensor", "class"),
        Marker("torch.nn.parameter Parameter", "class"),
        Marker("torch.nn.parameter Buffer", "class"),
        Marker("torch.storage UntypedStorage", "storage"),
        *(Marker(f"torch {name}", "storage", dtype) for name, dtype in _STORAGES.items()),
        *(Marker(f"torch {dtype}", "dtype", dtype) for dtype in sorted(DTYPE_NAMES)),
    )
}


def require(condition: bool, otherwise: str) -> None:
    """Refuse the file, for the reason given, unless the condition holds."""
    if not condition:
        raise UnpicklingRefused(otherwise)


def type_name(value: Any) -> str:
    """What to call a value in a message: its type, or the name that it stands for."""
    return value.name.replace(" ", ".") if isinstance(value, Marker) else type(value).__name__


def marker_of(module: str, attribute: str) -> Marker:
    """The marker for a global of a module, if it is one that a state dict needs."""
    name = f"{module} {attribute}"
    if name not in _MARKERS:
        shown = f"{module}.{attribute}"[:100]
        raise UnpicklingRefused(
            f"it asks for {shown!r}, which is not part of a state dict. If you trust the file, load"
            " it with PyTorch and save only model.state_dict()"
        )
    return _MARKERS[name]


def storage_of(identity: Any) -> StorageRef:
    """("storage", class, key, device, number of elements) -> StorageRef."""
    require(
        type(identity) is tuple and len(identity) == 5 and identity[0] == "storage",
        "it refers to something that is not a storage",
    )
    _, kind, key, _, count = identity
    require(
        isinstance(kind, Marker) and kind.role == "storage",
        f"it has a storage of type {type_name(kind)}",
    )
    require(
        type(key) is str and key.isascii() and key.isdigit() and len(key) < 20,
        "it has a storage whose key is not a number",
    )
    require(_is_count(count), f"storage {key} has an impossible size")
    return StorageRef(key, kind.dtype, count)


_HASHABLE = (str, bytes, int, float, complex, bool, type(None), Size)


def _is_latin1(text: str) -> bool:
    return all(ord(letter) < 256 for letter in text)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _are_counts(value: Any) -> bool:
    return type(value) is tuple and len(value) <= MAX_AXES and all(map(_is_count, value))


def rebuild(function: Any, arguments: Any) -> Any:
    """What a call on a marker stands for: a tensor or plain data."""
    require(isinstance(function, Marker), f"it calls a {type_name(function)}")
    require(
        type(arguments) is tuple, f"it calls {type_name(function)} without a tuple of arguments"
    )
    match function.role, arguments:
        case "dict", ():
            return {}
        case "counter", (dict() as counts,):
            return counts
        case "size", (tuple() as sizes,) if _are_counts(sizes):
            return Size(sizes)
        case "device", (str() as kind, *index) if len(index) <= 1 and all(map(_is_count, index)):
            return ":".join([kind, *map(str, index)])
        case "set", (list() as items,) if all(type(item) in _HASHABLE for item in items):
            return set(items)
        case "set", ():
            return set()
        case "complex", (float() as real, float() as imaginary):
            return complex(real, imaginary)
        case "encode", (str() as text, "latin1" | "latin-1") if _is_latin1(text):
            return text.encode("latin1")
        case "bytes", ():
            return b""
        case "bytearray", ():
            return bytearray()
        case "bytearray", (bytes() as content,):
            return bytearray(content)
        case "bytearray", (str() as text, "latin1" | "latin-1") if _is_latin1(text):
            return bytearray(text, "latin1")
        case "tensor", (storage, offset, shape, strides, _, _, *rest) if len(rest) <= 1:
            dtype = storage.dtype if isinstance(storage, StorageRef) else None
            return _tensor(storage, dtype, offset, shape, strides, *rest)
        case "typed tensor", (storage, offset, shape, strides, _, _, kind, *rest) if len(rest) <= 1:
            dtype = kind.dtype if isinstance(kind, Marker) and kind.role == "dtype" else None
            return _tensor(storage, dtype, offset, shape, strides, *rest)
        case "parameter", (TensorRef() as tensor, _, _, *rest) if len(rest) <= 1:
            return tensor
        case "subclass", (Marker(role="tensor" | "typed tensor") as maker, kind, inner, _):
            require(
                isinstance(kind, Marker) and kind.role == "class",
                f"it has a tensor of type {type_name(kind)}",
            )
            return rebuild(maker, inner)
    raise UnpicklingRefused(
        f"it calls {type_name(function)} with arguments that torch.save never writes"
    )


def _tensor(
    storage: Any, dtype: str | None, offset: Any, shape: Any, strides: Any, metadata: Any = None
) -> TensorRef:
    require(isinstance(storage, StorageRef), f"it has a tensor over a {type_name(storage)}")
    if dtype is None:
        raise UnpicklingRefused("it has a tensor without a dtype")
    require(_is_count(offset), "it has a tensor with an impossible offset")
    require(_are_counts(shape), "it has a tensor with an impossible shape")
    require(_are_counts(strides), "it has a tensor with impossible strides")
    require(len(shape) == len(strides), "it has a tensor whose shape and strides do not match")
    require(
        not metadata,
        "it has a tensor with a pending conjugation or sign;"
        " call resolve_conj().resolve_neg() and save again",
    )
    return TensorRef(storage, dtype, offset, shape, strides)


def replaced(root: Any, leaf: Callable[[Any], Any]) -> Any:
    """`root` with every value in its dicts, lists and tuples replaced by `leaf` of it.

    Dicts and lists are changed in place. There is no recursion, and each container is visited once,
    even if it is shared or contains itself.
    """
    done: dict[int, Any] = {}
    kept: list[Any] = []  # so that no id is used again
    stack = [root]
    changed: list[Any] = []

    def new(value: Any) -> Any:
        return done[id(value)] if type(value) in (dict, list, tuple) else leaf(value)

    while stack:
        value = stack.pop()
        if type(value) not in (dict, list, tuple) or id(value) in done:
            continue
        kept.append(value)
        inside = list(value.values()) if type(value) is dict else list(value)
        inside = [v for v in inside if type(v) in (dict, list, tuple) and id(v) not in done]
        if type(value) is tuple:
            if inside:  # again when these are done
                stack += [value, *inside]
            else:
                done[id(value)] = tuple([new(v) for v in value])
        else:
            done[id(value)] = value
            changed.append(value)
            stack += inside
    for container in changed:
        kept.append(list(container.values()) if type(container) is dict else list(container))
        items = container.items() if type(container) is dict else enumerate(container)
        for key, value in list(items):
            container[key] = new(value)
    return new(root)
