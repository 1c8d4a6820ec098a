"""Malicious PyTorch files: nothing in them runs, none exhausts memory, each gives a clear error."""

import pickle
import pickletools
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from minigrad.storage import FileFormatError, load_torch, load_torch_checkpoint, torch_pickle
from tests.minigrad.storage.torch_files import (
    ORDERED_DICT,
    call,
    group,
    integer,
    mapping,
    name,
    refused,
    storage,
    tensor,
    text,
    write_archive,
)

REBUILD = name("torch._utils", "_rebuild_tensor_v2")


# Files that would run code.

RUNNING = {
    "os.system": call(name("os", "system"), text("touch canary")),
    "posix.system": call(name("posix", "system"), text("touch canary")),
    "subprocess.Popen": call(name("subprocess", "Popen"), text("touch canary")),
    "builtins.eval": call(name("builtins", "eval"), text("open('canary', 'w')")),
    "builtins.exec": call(name("builtins", "exec"), text("open('canary', 'w')")),
    "builtins.getattr": call(name("builtins", "getattr"), ORDERED_DICT, text("fromkeys")),
    "__builtin__.eval": call(name("__builtin__", "eval"), text("open('canary', 'w')")),
    "builtins.__import__": call(name("builtins", "__import__"), text("antigravity")),
    "webbrowser.open": call(name("webbrowser", "open"), text("canary")),
    "torch.load": call(name("torch", "load"), text("canary")),
    "torch.hub.load": call(name("torch.hub", "load"), text("canary")),
    "torch._utils._rebuild_qtensor": call(name("torch._utils", "_rebuild_qtensor")),
    "torch._utils._rebuild_tensor_v2.__globals__": name(
        "torch._utils", "_rebuild_tensor_v2.__globals__"
    ),
    "collections.OrderedDict.fromkeys": name("collections", "OrderedDict.fromkeys"),
    "collections.OrderedDict ": name("collections", "OrderedDict "),
    r"colle\x63tions.OrderedDict": name(r"colle\x63tions", "OrderedDict"),
    "__main__.Network": name("__main__", "Network") + b")\x81",
    "numpy.core.multiarray._reconstruct": name("numpy.core.multiarray", "_reconstruct"),
    "minigrad.storage.torch_pickle.Marker": name("minigrad.storage.torch_pickle", "Marker"),
}


@pytest.mark.parametrize("named", RUNNING)
@pytest.mark.parametrize("place", ["value", "root", "argument", "stack", "attribute"])
def test_names_that_could_run_code_are_refused_by_name(tmp_path, named, place):
    call_of_it = RUNNING[named]
    program = {
        "value": mapping(w=call_of_it),
        "root": call_of_it,
        "argument": mapping(w=tensor(of=call_of_it)),
        "stack": call_of_it + b"q\x00" + mapping(w=tensor()),
        "attribute": mapping(w=tensor()) + mapping(x=call_of_it) + b"b",
    }[place]
    path = write_archive(tmp_path / "a.pth", program)
    refused(path, re.escape(f"refused: it asks for {named!r}, which is not part of a state dict"))


def test_names_by_stack_are_refused_too(tmp_path):
    for module, attribute in [("os", "system"), ("builtins", "eval"), ("torch", "load")]:
        program = mapping(w=text(module) + text(attribute) + b"\x93" + group(text("x")) + b"R")
        refused(write_archive(tmp_path / "a.pth", program), f"asks for '{module}.{attribute}'")
    program = text("os") + ORDERED_DICT + b"\x93"
    refused(write_archive(tmp_path / "a.pth", program), "as if that were the name of a module")


def test_nothing_is_run_opened_or_imported(tmp_path):
    """Files are read in a separate process, in which Python's audit hook reports all actions."""
    paths = [
        str(write_archive(tmp_path / f"{index}.pth", mapping(w=tensor(), bad=program)))
        for index, program in enumerate(RUNNING.values())
    ]
    program = (
        "import sys\n"
        "from minigrad.storage import FileFormatError, load_torch\n"
        "def load(path):\n"
        "    try:\n"
        "        load_torch(path)\n"
        "    except FileFormatError:\n"
        "        return 'refused'\n"
        "load(sys.argv[1])\n"  # so zipfile has imported everything it needs
        "events, watching = [], True\n"
        "sys.addaudithook(lambda *event: watching and events.append(event))\n"
        "outcomes = [load(path) for path in sys.argv[1:]]\n"
        "watching = False\n"
        "assert set(outcomes) == {'refused'}, outcomes\n"
        "opened = [arguments[0] for event, arguments in events if event == 'open']\n"
        "assert set(opened) <= set(sys.argv[1:]), opened\n"
        "print(sorted({event for event, _ in events}))\n"
    )
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", program, *paths], capture_output=True, text=True, cwd=root
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "['open']"
    assert not (root / "canary").exists()


def test_pickle_is_not_used_at_all(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("pickle was used")

    path = write_archive(tmp_path / "a.pth", mapping(w=tensor()))
    for used in ("Unpickler", "_Unpickler", "loads", "load", "_loads", "_load"):
        monkeypatch.setattr(pickle, used, fail)
    assert list(load_torch(path)) == ["w"]


ACCEPTED = """
    PROTO FRAME STOP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE
    SHORT_BINUNICODE EMPTY_DICT EMPTY_LIST EMPTY_TUPLE MARK TUPLE TUPLE1 TUPLE2 TUPLE3 BINPUT
    LONG_BINPUT MEMOIZE BINGET LONG_BINGET SETITEM SETITEMS APPEND APPENDS GLOBAL STACK_GLOBAL
    BINPERSID REDUCE BUILD
"""
REFUSED = [op for op in pickletools.opcodes if op.name not in ACCEPTED.split()]


@pytest.mark.parametrize("opcode", REFUSED, ids=lambda opcode: opcode.name)
def test_every_other_instruction_is_refused_by_name(tmp_path, opcode):
    program = mapping(w=tensor()) + opcode.code.encode("latin1") + b"os\nsystem\n" + bytes(12)
    path = write_archive(tmp_path / "a.pth", program)
    refused(path, f"its pickle uses {opcode.name}, which no state dict needs")


def test_calls_are_of_known_functions_with_the_right_arguments(tmp_path):
    subclass = name("torch._tensor", "_rebuild_from_type_v2")
    of_tensor = name("torch", "Tensor")
    ok = group(storage(), integer(0), group(integer(6)), group(integer(1)), b"\x89", ORDERED_DICT)
    for program, message in [
        (call(tensor(), integer(1)), "calls a TensorRef"),
        (call(text("eval"), text("1")), "calls a str"),
        (call(ORDERED_DICT, text("1")), "calls a dict"),
        (call(storage(), text("1")), "calls a StorageRef"),
        (call(name("torch", "FloatStorage"), integer(1)), "torch.FloatStorage with arguments"),
        (call(of_tensor, integer(1)), "torch.Tensor with arguments"),
        (call(name("collections", "OrderedDict"), b"]"), "OrderedDict with arguments"),
        (call(REBUILD), "_rebuild_tensor_v2 with arguments"),
        (REBUILD + b"]R", "without a tuple of arguments"),
        (call(subclass, subclass, of_tensor, ok, b"}"), "_rebuild_from_type_v2 with arguments"),
        (call(subclass, REBUILD, REBUILD, ok, b"}"), "tensor of type torch._utils._rebuild"),
        (call(subclass, REBUILD, of_tensor, integer(1), b"}"), "without a tuple"),
        (call(name("torch._utils", "_rebuild_parameter"), ok, b"\x88", b"}"), "with arguments"),
        (call(name("torch", "Size"), integer(1)), "torch.Size with arguments"),
        (call(name("torch", "Size"), group(text("1"))), "torch.Size with arguments"),
        (call(name("torch", "device"), integer(1)), "torch.device with arguments"),
        (call(name("builtins", "set"), b"](" + group(group()) + b"e"), "set with arguments"),
        (call(name("builtins", "set"), text("abc")), "set with arguments"),
        (call(name("builtins", "bytes"), integer(1 << 40)), "bytes with arguments"),
        (call(name("builtins", "bytearray"), integer(1 << 40)), "bytearray with arguments"),
        (call(name("builtins", "complex"), text("1j")), "complex with arguments"),
        (call(name("_codecs", "encode"), text("a"), text("rot13")), "encode with arguments"),
        (call(name("_codecs", "encode"), text("\u0100"), text("latin1")), "encode with arguments"),
        (call(name("collections", "Counter"), text("aab")), "Counter with arguments"),
        (mapping(x=integer(1)) + b"Q", "not a storage"),
        (group(text("module"), *([integer(1)] * 4)) + b"Q", "not a storage"),
        (storage(kind="float32"), "storage of type torch.float32"),
        (storage(key="../../etc/passwd"), "key is not a number"),
        (storage(key="٣"), "key is not a number"),  # a digit, but not in ASCII
        (storage(key="1" * 1000), "key is not a number"),
        (tensor() + b"}b", "sets attributes of a TensorRef"),
        (REBUILD + b"}b", "sets attributes of a torch._utils._rebuild"),
        (b"}]b", "attributes of type list"),
        (tensor() + text("a") + text("b") + b"s", "sets items of a TensorRef"),
        (b"}]a", "appends to a dict"),
    ]:
        path = write_archive(tmp_path / "a.pth", mapping(w=program))
        refused(path, f"refused: .*{message}")


def test_a_name_alone_is_no_value(tmp_path):
    path = write_archive(tmp_path / "a.pth", mapping(x=tensor(), w=name("_codecs", "encode")))
    refused(path, "entry 'w' is a Marker")
    with pytest.raises(FileFormatError, match=r"holds a _codecs\.encode"):
        load_torch_checkpoint(path)


# Shapes of programs.


def test_deep_nesting(tmp_path):
    """Each of these would overflow the stack of a recursive reader."""
    depth = 20_000
    tuples = b")" + b"\x85" * depth
    for program, message in [
        (mapping(w=tensor(), x=tuples), "nested deeper"),
        (mapping(w=tensor(), x=b"]" * depth + b"a" * (depth - 1)), "nested deeper"),
        (mapping(w=tensor(), x=b"}" + (text("x") + b"}") * depth + b"s" * depth), "nested deeper"),
        (b"(" * depth, "nested deeper"),
        (b"}" + tuples + b"Ns", "key of type tuple"),
        (mapping(w=tensor(of=tuples)), "tensor over a tuple"),
        (tuples + b"Q", "not a storage"),
        (group(text("storage"), tuples, tuples, tuples, tuples) + b"Q", "storage of type tuple"),
        (call(REBUILD, storage(), tuples, tuples, tuples, b"\x89", b"}"), "impossible offset"),
        (tuples + text("x") + b"\x93", "name of a module"),
        (tuples + b"q\x00" + mapping(w=tensor()), "no single result"),
    ]:
        refused(write_archive(tmp_path / "a.pth", program), message, growth=None)


def test_sharing_that_doubles_at_each_level_is_not_unfolded(tmp_path):
    for levels, message in [(25, "entry 'x' is a tuple"), (200, "nested deeper")]:
        doubled = b"NN\x86q\x00"
        for level in range(levels):
            doubled += b"h%c\x86q%c" % (level, level + 1)
        refused(write_archive(tmp_path / "a.pth", mapping(w=tensor(), x=doubled)), message)


def test_containers_that_hold_themselves(tmp_path):
    itself = b"}q\x00" + text("model") + b"h\x00s" + text("w") + tensor() + b"s"
    path = write_archive(tmp_path / "a.pth", itself)
    refused(path, "entry 'model' is a dict")
    lists = mapping(w=tensor(), x=b"]q\x00h\x00a")
    refused(write_archive(tmp_path / "a.pth", lists), "entry 'x' is a list")


def test_programs_that_do_not_add_up(tmp_path):
    for program, message in [
        (b"h\x07", "item 7, which does not exist"),
        (b"j\xff\xff\xff\xff", "item 4294967295, which does not exist"),
        (b"q\x00", "more values than there are"),
        (b"\x94", "more values than there are"),
        (b"}(q\x00", "more values than there are"),
        (b"}(\x85", "more values than there are"),
        (b"R", "more values than there are"),
        (b"t", "ends a collection that it did not begin"),
        (b"u", "ends a collection that it did not begin"),
        (b"}(" + text("a") + b"u", "key without a value"),
        (b"}" + b"NNs", "key of type NoneType"),
        (b"}" + tensor() + b"Ns", "key of type TensorRef"),
        (b"", "no single result"),
        (b"}}", "no single result"),
        (b"}(", "no single result"),
        (b"}.}", "goes on after its end"),
        (b"}\x80\x02", "does not begin as"),
        (b"X\xff\xff\xff\xffabc", "cut short"),
        (b"X\xff", "cut short"),
        (b"\x95" + b"\xff" * 8, "no single result"),
        (b"\x8a\xff", "cut short"),
        (b"\x8c\x02\xff\xfe", "not UTF-8"),
        (b"\x8c\x03\xed\xa0\x80", "not UTF-8"),  # half a surrogate pair
        (b"cno newline", "cut short"),
        (b"cone\nnewline", "cut short"),
        (b"\xff", r"unknown instruction b'\\xff'"),
    ]:
        refused(write_archive(tmp_path / "a.pth", program), message)
    for beginning in (b"}.", b"\x80\x01}.", b"\x80\x09}.", b"", b"PK"):
        with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
            archive.writestr("a/data.pkl", beginning)
        refused(tmp_path / "b.pth", "refused: its pickle")


def test_memory_of_programs_is_bounded(tmp_path):
    path = write_archive(tmp_path / "a.pth", b"}" * 40_000)
    refused(path, "no single result", growth=80)
    path = write_archive(tmp_path / "a.pth", b"]" + b"}a" * 40_000)
    refused(path, "holds a list", growth=80)


def test_length_of_programs_is_limited(tmp_path, monkeypatch):
    path = write_archive(tmp_path / "a.pth", text("x" * (17 << 20)))
    refused(path, r"data\.pkl has 17,8.* bytes, more than 16,777,216", growth=1)
    monkeypatch.setattr(torch_pickle, "MAX_INSTRUCTIONS", 1000)
    refused(write_archive(tmp_path / "a.pth", b"N" * 1000), "more than 1,000 instructions")


# Tensors whose sizes do not fit their storage.


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (tensor((7,), (1,)), "'w' reaches past its storage of 6 elements"),
        (tensor((2, 3), (4, 1)), "reaches past"),
        (tensor((6,), (1,), 1), "reaches past"),
        (tensor((), (), 6), "reaches past"),
        (tensor((0,), (1,), 7), "reaches past"),
        (tensor((2,), (1 << 61,)), "reaches past"),
        (tensor((1 << 61,), (1,)), "reaches past"),
        (tensor((2,), (1,), 1 << 61), "reaches past"),
        (tensor((-1,), (1,)), "impossible shape"),
        (tensor((2, -3), (3, 1)), "impossible shape"),
        (tensor((1 << 63,), (0,)), "impossible shape"),
        (tensor((1 << 1000,), (0,)), "impossible shape"),
        (tensor((2,), (-1,), 1), "impossible strides"),
        (tensor((2,), (1,), -1), "impossible offset"),
        (tensor((2,), (1, 1)), "shape and strides do not match"),
        (tensor((1,) * 33, (1,) * 33), "impossible shape"),
        (tensor((100_000, 100_000), (0, 0)), "out of proportion"),
        (tensor((1 << 60, 1 << 60), (0, 0)), "out of proportion"),
        (tensor((1 << 30, 1 << 30, 0), (0, 0, 1)), ""),
        (tensor(of=storage(count=1 << 61)), "has 24 bytes, and should have 9,223"),
        (tensor(of=storage(count=-6)), "storage 0 has an impossible size"),
        (tensor(of=storage(count=1 << 900)), "storage 0 has an impossible size"),
        (tensor(of=storage(count=5)), "has 24 bytes, and should have 20"),
        (tensor(of=storage(count=6, kind="DoubleStorage")), "has 24 bytes, and should have 48"),
        (tensor(of=storage(key="1")), "the numbers of tensor 'w' are missing"),
        (tensor(of=integer(0)), "tensor over a int"),
        (
            call(REBUILD, storage(), integer(0), b"]", b"]", b"\x89", ORDERED_DICT),
            "impossible shape",
        ),
        (
            call(REBUILD, storage(), b"\x88", group(), group(), b"\x89", ORDERED_DICT),
            "impossible offset",
        ),
        (
            call(REBUILD, storage(), integer(0), group(b"\x88"), group(b"\x88"), b"\x89", b"}"),
            "impossible shape",
        ),
    ],
)
def test_wrong_sizes_strides_and_offsets(tmp_path, bad, message):
    path = write_archive(tmp_path / "a.pth", mapping(fine=tensor(), w=bad))
    if message:
        refused(path, message)
    else:
        assert load_torch(path)["w"].size == 0


def test_many_views_of_one_storage_are_in_proportion(tmp_path):
    big = bytes(4 << 20)
    of = storage(count=1 << 20)
    views = {f"w{offset}": tensor((1 << 19,), (1,), offset, of=of) for offset in range(60)}
    refused(write_archive(tmp_path / "a.pth", mapping(**views), {"data/0": big}), "proportion")
    same = {f"w{offset}": tensor((1 << 19,), (1,), 3, of=of) for offset in range(60)}
    path = write_archive(tmp_path / "a.pth", mapping(**same), {"data/0": big})
    assert len(load_torch(path)) == 60


def test_a_storage_has_one_dtype(tmp_path):
    views = {
        kind: tensor((3,), (1,), of=storage(count=6, kind=kind))
        for kind in ("FloatStorage", "IntStorage")
    }
    path = write_archive(tmp_path / "a.pth", mapping(**views))
    refused(path, "'IntStorage' reads as int32 what another tensor reads as float32")
