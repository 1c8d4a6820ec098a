"""A pickle reader that can build a state dict and plain data, and nothing else.

A pickle is a program for a small stack machine, and Python's own reader lets that program call
anything. This one knows only the instructions and the names that a state dict needs. A name becomes
an inert marker, a call on a marker becomes a description of a tensor (`TensorRef`) or plain data,
and everything else is refused. No code from the file, or named by it, ever runs, and neither does
Python's `pickle` module. (`pickletools`, its disassembler, only lends the names of refused
instructions: it would undo escapes in the names of globals, which Python's reader does not.)

Limits on the program's length and on nesting keep a hostile one from taking time or memory.
"""

import pickletools
import struct
from collections.abc import Iterator
from typing import Any

from minigrad.storage.torch_objects import (
    UnpicklingRefused,
    marker_of,
    rebuild,
    require,
    storage_of,
    type_name,
)

MAX_PROGRAM_BYTES = 16 << 20  # for the caller: this module is handed the bytes already read
MAX_INSTRUCTIONS = 2_000_000  # a state dict takes about 40 for each tensor
MAX_NESTING = 32


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


_KEYS = (str, int, float, bool, bytes)


def _instructions(program: bytes) -> Iterator[tuple[str, Any]]:
    """The name and the argument of each instruction, up to and with STOP, which must come last."""
    position = 0
    while position < len(program):
        code = program[position : position + 1]
        position += 1
        if code in _PLAIN:
            yield _PLAIN[code], None
            if code == b".":
                require(position == len(program), "its pickle goes on after its end")
                return
        elif code in _NUMBERED or code in _COUNTED:
            name, number = _NUMBERED.get(code) or _COUNTED[code]
            require(position + number.size <= len(program), "its pickle is cut short")
            (argument,) = number.unpack_from(program, position)
            position += number.size
            if code in _COUNTED:
                begin, position = position, position + argument
                require(position <= len(program), "its pickle is cut short")
                argument = _counted(name, program[begin:position])
            yield name, argument
        elif code == b"c":
            middle = program.find(b"\n", position)
            end = program.find(b"\n", middle + 1)
            require(middle >= 0 and end >= 0, "its pickle is cut short")
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
                require(2 <= argument <= 5, f"its pickle protocol {argument} is unknown")
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
                require(len(self.marks) < MAX_NESTING, f"it is nested deeper than {MAX_NESTING}")
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
                require(
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
                self.stack.append(marker_of(*argument))
            case "STACK_GLOBAL":
                module, qualified_name = self.pop(2)
                require(
                    type(module) is str and type(qualified_name) is str,
                    f"it asks for a {type_name(module)} as if that were the name of a module",
                )
                self.stack.append(marker_of(module, qualified_name))
            case "BINPERSID":
                self.stack.append(storage_of(self.pop(1)[0]))
            case "REDUCE":
                self.stack.append(rebuild(*self.pop(2)))
            case "BUILD":
                # torch's state dicts carry the versions of their modules as attributes: dropped.
                (state,) = self.pop(1)
                require(type(state) is dict, f"it gives attributes of type {type_name(state)}")
                require(
                    type(self.top()) is dict, f"it sets attributes of a {type_name(self.top())}"
                )

    def pop(self, count: int) -> list[Any]:
        """The last `count` values, but none from before the last mark."""
        floor = self.marks[-1] if self.marks else 0
        require(len(self.stack) - floor >= count, "its pickle takes more values than there are")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def pop_to_mark(self) -> list[Any]:
        """All values since the last mark, and the mark."""
        require(bool(self.marks), "its pickle ends a collection that it did not begin")
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
        require(type(target) is dict, f"it sets items of a {type_name(target)}")
        require(len(items) % 2 == 0, "it has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a deeply nested tuple would recurse.
            require(type(key) in _KEYS, f"it has a key of type {type_name(key)}")
            target[key] = value

    def extend(self, items: list[Any]) -> None:
        """Append to the list on top."""
        target = self.top()
        require(type(target) is list, f"it appends to a {type_name(target)}")
        target.extend(items)

    def result(self) -> Any:
        """The one value that is left at the end."""
        require(len(self.stack) == 1 and not self.marks, "its pickle leaves no single result")
        return self.stack[0]


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
