"""A pickle reader that can build a state dict and nothing else.

A pickle is a program for a small stack machine, and Python's own reader lets that program call
anything. This one knows only the instructions and the names that a state dict needs. A name becomes
an inert marker, a call on a marker becomes a description of a tensor (`TensorRef`), and everything
else is refused. No code from the file, or named by it, ever runs, and neither does Python's
`pickle` module. (`pickletools`, its disassembler, only lends the names of refused instructions: it
would undo escapes in the names of globals, which Python's reader does not.)

Limits on the program's length and on nesting keep a hostile one from taking time or memory.
"""

import pickletools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from minigrad.stored_dtypes import DTYPE_NAMES

MAX_PROGRAM_BYTES = 16 << 20  # for the caller: this module is handed the bytes already read
MAX_INSTRUCTIONS = 2_000_000  # a state dict takes about 40 for each tensor
MAX_NESTING = 32
MAX_AXES = 32  # the least that any supported NumPy can hold


class UnpicklingRefused(ValueError):
    """The program does something that no state dict needs, or is damaged."""


@dataclass(frozen=True, slots=True)
class Marker:
    """A global name of the file: what it stands for here. Never a function or a class."""

    name: str
    role: str  # what `_rebuild` and `_storage` know it by
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
_MARKERS = {
    marker.name: marker
    for marker in (
        Marker("collections OrderedDict", "dict"),
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


def read_state_pickle(program: bytes) -> Any:
    """The object that the program builds, of dicts, lists, tuples, plain values and `TensorRef`s.

    Raises:
        UnpicklingRefused: the program is damaged, too long, or does what no state dict needs.
    """
    machine = _Machine()
    for count, (name, argument) in enumerate(_instructions(program)):
        if count == MAX_INSTRUCTIONS:
            raise UnpicklingRefused(f"its pickle has more than {MAX_INSTRUCTIONS:,} instructions")
        if (count == 0) != (name == "PROTO"):
            raise UnpicklingRefused("its pickle does not begin as torch.save begins one")
        machine.execute(name, argument)
    result = machine.result()
    _check_nesting(result)
    return result


# Instructions without an argument, with a number, with bytes after their count, and with two lines.
_PLAIN = {
    **{b"(": "MARK", b".": "STOP", b"N": "NONE", b"\x88": "NEWTRUE", b"\x89": "NEWFALSE"},
    **{b"}": "EMPTY_DICT", b"]": "EMPTY_LIST", b")": "EMPTY_TUPLE", b"t": "TUPLE"},
    **{b"\x85": "TUPLE1", b"\x86": "TUPLE2", b"\x87": "TUPLE3", b"\x94": "MEMOIZE"},
    **{b"s": "SETITEM", b"u": "SETITEMS", b"a": "APPEND", b"e": "APPENDS"},
    **{b"\x93": "STACK_GLOBAL", b"Q": "BINPERSID", b"R": "REDUCE", b"b": "BUILD"},
}
_NUMBERED = {
    b"\x80": ("PROTO", struct.Struct("<B")),
    b"\x95": ("FRAME", struct.Struct("<Q")),
    b"J": ("BININT", struct.Struct("<i")),
    b"K": ("BININT1", struct.Struct("<B")),
    b"M": ("BININT2", struct.Struct("<H")),
    b"G": ("BINFLOAT", struct.Struct(">d")),
    b"q": ("BINPUT", struct.Struct("<B")),
    b"r": ("LONG_BINPUT", struct.Struct("<I")),
    b"h": ("BINGET", struct.Struct("<B")),
    b"j": ("LONG_BINGET", struct.Struct("<I")),
}
_COUNTED = {
    b"X": ("BINUNICODE", struct.Struct("<I")),
    b"\x8c": ("SHORT_BINUNICODE", struct.Struct("<B")),
    b"\x8a": ("LONG1", struct.Struct("<B")),
}


def _instructions(program: bytes) -> Iterator[tuple[str, Any]]:
    """The name and the argument of each instruction, up to and with STOP, which must come last."""
    position = 0
    while position < len(program):
        code = program[position : position + 1]
        position += 1
        if code in _PLAIN:
            yield _PLAIN[code], None
            if code == b".":
                _require(position == len(program), "its pickle goes on after its end")
                return
        elif code in _NUMBERED or code in _COUNTED:
            name, number = _NUMBERED.get(code) or _COUNTED[code]
            _require(position + number.size <= len(program), "its pickle is cut short")
            (argument,) = number.unpack_from(program, position)
            position += number.size
            if code in _COUNTED:
                begin, position = position, position + argument
                _require(position <= len(program), "its pickle is cut short")
                argument = _counted(name, program[begin:position])
            yield name, argument
        elif code == b"c":
            middle = program.find(b"\n", position)
            end = program.find(b"\n", middle + 1)
            _require(middle >= 0 and end >= 0, "its pickle is cut short")
            lines = program[position:middle], program[middle + 1 : end]
            yield "GLOBAL", tuple(line.decode("ascii", "backslashreplace") for line in lines)
            position = end + 1
        else:
            known = next(
                (op for op in pickletools.opcodes if op.code == code.decode("latin-1")), None
            )
            shown = known.name if known else f"the unknown instruction {code!r}"
            raise UnpicklingRefused(f"its pickle uses {shown}, which no state dict needs")
    raise UnpicklingRefused("its pickle is cut short")


def _counted(name: str, content: bytes) -> int | str:
    """The integer or the string that the bytes of a counted argument stand for."""
    if name == "LONG1":
        return int.from_bytes(content, "little", signed=True)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnpicklingRefused("its pickle has a string that is not UTF-8") from error


class _Machine:
    """The stack machine. `marks` are the stack heights at which collections of items began."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def execute(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        match name:
            case "PROTO":
                _require(2 <= argument <= 5, f"its pickle protocol {argument} is unknown")
            case "FRAME" | "STOP":
                pass
            case "NONE":
                self.stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                self.stack.append(name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                self.stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE":
                self.stack.append(argument)
            case "EMPTY_DICT":
                self.stack.append({})
            case "EMPTY_LIST":
                self.stack.append([])
            case "EMPTY_TUPLE":
                self.stack.append(())
            case "MARK":
                _require(len(self.marks) < MAX_NESTING, f"it is nested deeper than {MAX_NESTING}")
                self.marks.append(len(self.stack))
            case "TUPLE":
                self.stack.append(tuple(self.pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(tuple(self.pop(int(name[-1]))))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.top()
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.top()
            case "BINGET" | "LONG_BINGET":
                _require(
                    argument in self.memo, f"it refers to item {argument}, which does not exist"
                )
                self.stack.append(self.memo[argument])
            case "SETITEM":
                self.set_items(self.pop(2))
            case "SETITEMS":
                self.set_items(self.pop_to_mark())
            case "APPEND":
                self.extend(self.pop(1))
            case "APPENDS":
                self.extend(self.pop_to_mark())
            case "GLOBAL":
                self.stack.append(_marker(*argument))
            case "STACK_GLOBAL":
                module, qualified_name = self.pop(2)
                _require(
                    type(module) is str and type(qualified_name) is str,
                    f"it asks for a {_type(module)} as if that were the name of a module",
                )
                self.stack.append(_marker(module, qualified_name))
            case "BINPERSID":
                self.stack.append(_storage(self.pop(1)[0]))
            case "REDUCE":
                self.stack.append(_rebuild(*self.pop(2)))
            case "BUILD":
                # torch's state dicts carry the versions of their modules as attributes: dropped.
                (state,) = self.pop(1)
                _require(type(state) is dict, f"it gives attributes of type {_type(state)}")
                _require(type(self.top()) is dict, f"it sets attributes of a {_type(self.top())}")

    def pop(self, count: int) -> list[Any]:
        """The last `count` values, but none from before the last mark."""
        floor = self.marks[-1] if self.marks else 0
        _require(len(self.stack) - floor >= count, "its pickle takes more values than there are")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def pop_to_mark(self) -> list[Any]:
        """All values since the last mark, and the mark."""
        _require(bool(self.marks), "its pickle ends a collection that it did not begin")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def top(self) -> Any:
        """The last value, left where it is."""
        (value,) = self.pop(1)
        self.stack.append(value)
        return value

    def set_items(self, items: list[Any]) -> None:
        """Put keys and values, which alternate, into the dict on top."""
        target = self.top()
        _require(type(target) is dict, f"it sets items of a {_type(target)}")
        _require(len(items) % 2 == 0, "it has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a deeply nested tuple would recurse.
            _require(type(key) in (str, int), f"it has a key of type {_type(key)}")
            target[key] = value

    def extend(self, items: list[Any]) -> None:
        """Append to the list on top."""
        target = self.top()
        _require(type(target) is list, f"it appends to a {_type(target)}")
        target.extend(items)

    def result(self) -> Any:
        """The one value that is left at the end."""
        _require(len(self.stack) == 1 and not self.marks, "its pickle leaves no single result")
        return self.stack[0]


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise UnpicklingRefused(otherwise)


def _type(value: Any) -> str:
    """What to call a value in a message: its type, or the name that it stands for."""
    return value.name.replace(" ", ".") if isinstance(value, Marker) else type(value).__name__


def _marker(module: str, attribute: str) -> Marker:
    """The marker for a global of a module, if it is one that a state dict needs."""
    name = f"{module} {attribute}"
    if name not in _MARKERS:
        shown = f"{module}.{attribute}"[:100]
        raise UnpicklingRefused(
            f"it asks for {shown!r}, which is not part of a state dict. If you trust the file, load"
            " it with PyTorch and save only model.state_dict()"
        )
    return _MARKERS[name]


def _storage(identity: Any) -> StorageRef:
    """("storage", class, key, device, number of elements) -> StorageRef."""
    _require(
        type(identity) is tuple and len(identity) == 5 and identity[0] == "storage",
        "it refers to something that is not a storage",
    )
    _, kind, key, _, count = identity
    _require(
        isinstance(kind, Marker) and kind.role == "storage",
        f"it has a storage of type {_type(kind)}",
    )
    _require(
        type(key) is str and key.isascii() and key.isdigit() and len(key) < 20,
        "it has a storage whose key is not a number",
    )
    _require(_is_count(count), f"storage {key} has an impossible size")
    return StorageRef(key, kind.dtype, count)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _are_counts(value: Any) -> bool:
    return type(value) is tuple and len(value) <= MAX_AXES and all(map(_is_count, value))


def _rebuild(function: Any, arguments: Any) -> Any:
    """What a call on a marker stands for: an empty dict or a tensor."""
    _require(isinstance(function, Marker), f"it calls a {_type(function)}")
    _require(type(arguments) is tuple, f"it calls {_type(function)} without a tuple of arguments")
    match function.role, arguments:
        case "dict", ():
            return {}
        case "tensor", (storage, offset, shape, strides, _, _, *rest) if len(rest) <= 1:
            dtype = storage.dtype if isinstance(storage, StorageRef) else None
            return _tensor(storage, dtype, offset, shape, strides, *rest)
        case "typed tensor", (storage, offset, shape, strides, _, _, kind, *rest) if len(rest) <= 1:
            dtype = kind.dtype if isinstance(kind, Marker) and kind.role == "dtype" else None
            return _tensor(storage, dtype, offset, shape, strides, *rest)
        case "parameter", (TensorRef() as tensor, _, _, *rest) if len(rest) <= 1:
            return tensor
        case "subclass", (Marker(role="tensor" | "typed tensor") as rebuild, kind, inner, _):
            _require(
                isinstance(kind, Marker) and kind.role == "class",
                f"it has a tensor of type {_type(kind)}",
            )
            return _rebuild(rebuild, inner)
    raise UnpicklingRefused(
        f"it calls {_type(function)} with arguments that torch.save never writes"
    )


def _tensor(
    storage: Any, dtype: str | None, offset: Any, shape: Any, strides: Any, metadata: Any = None
) -> TensorRef:
    _require(isinstance(storage, StorageRef), f"it has a tensor over a {_type(storage)}")
    if dtype is None:
        raise UnpicklingRefused("it has a tensor without a dtype")
    _require(_is_count(offset), "it has a tensor with an impossible offset")
    _require(_are_counts(shape), "it has a tensor with an impossible shape")
    _require(_are_counts(strides), "it has a tensor with impossible strides")
    _require(len(shape) == len(strides), "it has a tensor whose shape and strides do not match")
    _require(
        not metadata,
        "it has a tensor with a pending conjugation or sign;"
        " call resolve_conj().resolve_neg() and save again",
    )
    return TensorRef(storage, dtype, offset, shape, strides)


def _check_nesting(root: Any) -> None:
    """Refuse what is nested too deeply to be a state dict. Level by level, each container once."""
    level: list[Any] = [root]
    seen: set[int] = set()
    for _ in range(MAX_NESTING):
        level = [item for item in level if type(item) in (dict, list, tuple)]
        children: list[Any] = []
        for container in level:
            if id(container) not in seen:
                seen.add(id(container))
                children.extend(container.values() if type(container) is dict else container)
        level = children
        if not level:
            return
    raise UnpicklingRefused(f"it is nested deeper than {MAX_NESTING}")
