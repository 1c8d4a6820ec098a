"""State dicts written by PyTorch, or by hand in its format, are read as the same arrays."""

import collections
import io
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from minigrad.storage import (
    FileFormatError,
    load_torch,
    load_torch_checkpoint,
    save_safetensors,
)
from minigrad.storage.stored_dtypes import DTYPE_NAMES
from tests.minigrad.storage.torch_files import (
    ORDERED_DICT,
    SIX_FLOATS,
    call,
    group,
    integer,
    mapping,
    name,
    storage,
    tensor,
    text,
    write_archive,
)

# Without PyTorch: files made by hand.


def test_state_dict_made_by_hand(tmp_path):
    program = mapping(weight=tensor((2, 3), (3, 1)), row=tensor((3,), (1,), 3), one=tensor((), ()))
    tensors = load_torch(write_archive(tmp_path / "a.pth", program))
    assert list(tensors) == ["weight", "row", "one"]
    np.testing.assert_array_equal(tensors["weight"], np.float32([[0.5, 1.5, 2.5], [3.5, 4.5, 5.5]]))
    np.testing.assert_array_equal(tensors["row"], np.float32([3.5, 4.5, 5.5]))
    assert tensors["one"].shape == ()
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float32)}


def test_strided_and_shared_views(tmp_path):
    program = mapping(
        transposed=tensor((3, 2), (1, 3)),
        column=tensor((2,), (3,), 1),
        windows=tensor((5, 2), (1, 1)),
        repeated=tensor((4, 3), (0, 1), 3),
        empty=tensor((0, 7), (7, 1), 6),
        odd_stride=tensor((1, 6), (1 << 50, 1)),
    )
    tensors = load_torch(write_archive(tmp_path / "a.pth", program))
    base = np.frombuffer(SIX_FLOATS, np.float32)
    np.testing.assert_array_equal(tensors["transposed"], base.reshape(2, 3).T)
    np.testing.assert_array_equal(tensors["column"], base[1::3])
    np.testing.assert_array_equal(tensors["windows"], [base[i : i + 2] for i in range(5)])
    np.testing.assert_array_equal(tensors["repeated"], np.tile(base[3:], (4, 1)))
    assert tensors["empty"].shape == (0, 7)
    np.testing.assert_array_equal(tensors["odd_stride"], base[None])
    tensors["column"][0] = 42  # as in PyTorch, views of one storage share memory
    assert tensors["transposed"][1, 0] == 42
    tensors["repeated"][0, 0] = 43  # but a view that repeats elements is copied
    assert tensors["transposed"][0, 1] == 3.5
    assert tensors["repeated"][1, 0] == 3.5


def test_tied_tensors_are_one_array(tmp_path):
    tensors = load_torch(
        write_archive(tmp_path / "a.pth", mapping(embedding=tensor(), head=tensor()))
    )
    assert np.shares_memory(tensors["embedding"], tensors["head"])


@pytest.mark.parametrize("byteorder", ["little", "big", None])
def test_byte_order_of_the_file(tmp_path, byteorder):
    values = np.array([0.5, -1.5, 2.5, 3.5, 4.5, 5.5])
    kind = ">f4" if byteorder == "big" else "<f4"
    records = {"data/0": values.astype(kind).tobytes()}
    if byteorder:
        records["byteorder"] = byteorder.encode()
    tensors = load_torch(write_archive(tmp_path / "a.pth", mapping(w=tensor()), records))
    np.testing.assert_array_equal(tensors["w"].reshape(-1), values)
    assert tensors["w"].dtype.isnative


def test_bfloat16_made_by_hand(tmp_path):
    records = {"data/0": bytes.fromhex("803f 80bf 0040")}
    program = mapping(w=tensor((3,), (1,), of=storage(count=3, kind="BFloat16Storage")))
    tensors = load_torch(write_archive(tmp_path / "a.pth", program, records))
    assert tensors["w"].dtype == np.float32
    np.testing.assert_array_equal(tensors["w"], [1, -1, 2])


def test_empty_state_dict(tmp_path):
    assert load_torch(write_archive(tmp_path / "a.pth", ORDERED_DICT)) == {}


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "anything"])
def test_nested_state_dict(tmp_path, key):
    program = mapping(
        epoch=integer(3), **{key: mapping(w=tensor())}, loss=b"N", tags=b"](" + text("a") + b"e"
    )
    assert list(load_torch(write_archive(tmp_path / "a.pth", program))) == ["w"]


def test_state_dict_is_chosen_by_key_and_usual_keys_come_first(tmp_path):
    inner = {"ema": mapping(e=tensor()), "model": mapping(m=tensor()), "state_dict": b"}"}
    path = write_archive(tmp_path / "a.pth", mapping(**inner))
    assert list(load_torch(path)) == ["m"]
    assert list(load_torch(path, key="ema")) == ["e"]
    with pytest.raises(FileFormatError, match="no state dict under 'x'; it has 'ema', 'model'"):
        load_torch(path, key="x")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (tensor(), "holds a single tensor, not a state dict"),
        (b"](" + tensor() + b"e", "holds a list, not a state dict"),
        (mapping(epoch=integer(3)), "holds no tensors; its entries are 'epoch'"),
        (mapping(a=mapping(w=tensor()), b=mapping(w=tensor())), "several.*'a', 'b'; give key="),
        (mapping(w=tensor(), layers=mapping(w=tensor())), "entry 'layers' is a dict"),
        (b"}(" + integer(0) + tensor() + b"u", "name is 0, not a plain string"),
        (mapping(**{"a\nb": tensor()}), r"name is 'a\\nb', not a plain string"),
    ],
)
def test_other_contents_say_what_they_are(tmp_path, program, message):
    with pytest.raises(FileFormatError, match=rf"a\.pth: .*{message}"):
        load_torch(write_archive(tmp_path / "a.pth", program))


def test_plain_values_between_tensors_are_left_out(tmp_path):
    program = mapping(w=tensor(), step=integer(-3), rate=b"G" + bytes(8), note=text("x"), n=b"N")
    assert list(load_torch(write_archive(tmp_path / "a.pth", program))) == ["w"]


def test_files_of_other_kinds(tmp_path):
    path = tmp_path / "a.pth"
    legacy = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e80024de9032e")
    for content, message in [
        (legacy, r"old format.*torch\.save\(torch\.load"),
        (b"", "not a zip archive"),
        (b"\x80\x02}.", "not a zip archive"),
    ]:
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=message):
            load_torch(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/readme.txt", "")
    with pytest.raises(FileFormatError, match=r"without data\.pkl"):
        load_torch(path)
    with pytest.raises(FileFormatError, match=r"TorchScript.*model\.state_dict\(\)"):
        load_torch(write_archive(path, mapping(w=tensor()), {"constants.pkl": b""}))
    with pytest.raises(FileNotFoundError, match="missing"):
        load_torch(tmp_path / "missing.pth")


def test_parameter_with_attributes_made_by_hand(tmp_path):
    parameter = call(
        name("torch._utils", "_rebuild_parameter_with_state"),
        tensor(),
        b"\x88",
        ORDERED_DICT,
        mapping(note=text("x")),
    )
    assert list(load_torch(write_archive(tmp_path / "a.pth", mapping(w=parameter)))) == ["w"]


# With PyTorch.


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="writes files with PyTorch")


def saved(torch, path, thing, **options):
    torch.save(thing, path, **options)
    return load_torch(path)


def assert_equal_to_torch(torch, ours, theirs):
    """Bitwise identical, after dtypes that NumPy lacks have been widened."""
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        value = value.detach()
        if value.is_floating_point() and str(value.dtype).startswith(("torch.bf", "torch.float8")):
            value = value.to(torch.float32)
        value = value.numpy()
        assert ours[key].dtype == value.dtype, key
        assert ours[key].shape == value.shape, key
        assert ours[key].tobytes() == value.tobytes(), key


def test_state_dict_of_a_model(torch, tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Embedding(11, 8),
        torch.nn.TransformerEncoderLayer(8, 2, 16),
        torch.nn.BatchNorm1d(8),
        torch.nn.Linear(8, 11),
    )
    model[3].weight = model[0].weight
    ours = saved(torch, tmp_path / "a.pth", model.state_dict())
    assert_equal_to_torch(torch, ours, model.state_dict())
    assert np.shares_memory(ours["0.weight"], ours["3.weight"])


@pytest.mark.parametrize(
    "dtype",
    sorted(DTYPE_NAMES),
)
def test_every_dtype(torch, tmp_path, dtype):
    values = torch.arange(-7, 17).clamp(min=0 if dtype.startswith("u") else -7).reshape(4, 6)
    values = (values / 2 if "float" in dtype else values).to(getattr(torch, dtype))
    state = {"w": values, "row": values[2], "column": values[:, 1], "scalar": values[1, 1]}
    assert_equal_to_torch(torch, saved(torch, tmp_path / "a.pth", state), state)


def test_views_of_one_storage(torch, tmp_path):
    base = torch.arange(60.0)
    state = {
        "offset": base[7:19],
        "transposed": base.reshape(3, 4, 5).permute(2, 0, 1),
        "stepped": base[3::7],
        "expanded": base[:5].expand(1000, 5),
        "windows": base.unfold(0, 10, 3),
        "empty": base[60:],
        "scalar": base[59],
    }
    ours = saved(torch, tmp_path / "a.pth", state)
    assert_equal_to_torch(torch, ours, state)
    assert np.shares_memory(ours["offset"], ours["transposed"])


def test_kinds_of_tensors_and_dictionaries(torch, tmp_path):
    marked = torch.ones(2)
    marked.note = "x"
    parameter = torch.nn.Parameter(torch.ones(3), requires_grad=False)
    parameter.note = "y"
    state = OrderedDict(
        parameter=torch.nn.Parameter(torch.arange(4.0)),
        parameter_with_attribute=parameter,
        buffer=torch.nn.Buffer(torch.arange(3.0)),
        tensor_with_attribute=marked,
    )
    for thing in (state, dict(state), {"model": state, "epoch": 3, "args": {"lr": 1e-3}}):
        ours = saved(torch, tmp_path / "a.pth", thing)
        assert_equal_to_torch(torch, ours, state)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_protocols(torch, tmp_path, protocol):
    state = {f"layer.{index}": torch.full((index,), float(index)) for index in range(300)}
    ours = saved(torch, tmp_path / "a.pth", state, pickle_protocol=protocol)
    assert_equal_to_torch(torch, ours, state)


def test_checkpoint_of_a_training_script(torch, tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 7,
        "best": 1.25,
        "optimizer": optimizer.state_dict(),
        "model": model.state_dict(),
        "rng": torch.get_rng_state(),
        "sizes": (1, 2),
    }
    torch.save(checkpoint, tmp_path / "a.pth")
    assert_equal_to_torch(torch, load_torch(tmp_path / "a.pth"), model.state_dict())
    checkpoint["my net"] = checkpoint.pop("model")
    torch.save(checkpoint, tmp_path / "a.pth")
    with pytest.raises(FileFormatError, match=r"entry 'optimizer' is a dict.*key="):
        load_torch(tmp_path / "a.pth")  # the file is a tensor, not a dict
    assert_equal_to_torch(torch, load_torch(tmp_path / "a.pth", key="my net"), model.state_dict())


def test_other_byte_order(torch, tmp_path):
    state = {"w": torch.arange(6, dtype=torch.bfloat16), "n": torch.arange(5)}
    torch.save(state, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        records = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
        for entry, content in records.items():
            if entry.endswith("byteorder"):
                content = b"big"
            if entry.endswith("data/0"):
                content = np.frombuffer(content, np.uint16).byteswap().tobytes()
            if entry.endswith("data/1"):
                content = np.frombuffer(content, np.int64).byteswap().tobytes()
            archive.writestr(entry, content)
    assert_equal_to_torch(torch, load_torch(tmp_path / "b.pth"), state)


def test_what_is_not_a_state_dict_is_named(torch, tmp_path):
    path = tmp_path / "a.pth"
    lazy = torch.ones(2, dtype=torch.complex64).conj()
    for thing, message in [
        (torch.nn.Linear(2, 2), r"'torch\.nn\.modules\.linear\.Linear'.*save only model\.state"),
        ({"w": torch.eye(2).to_sparse()}, "_rebuild_sparse_tensor"),
        ({"w": torch.ones(2, device="meta")}, "_rebuild_meta_tensor_no_storage"),
        ({"w": lazy}, r"resolve_conj\(\)"),
        ({"w": np.ones(2)}, "numpy.*_reconstruct"),
        ({"device": torch.device("cpu")}, r"no tensors; its entries are 'device'"),
        (torch.ones(2), "single tensor"),
    ]:
        torch.save(thing, path)
        with pytest.raises(FileFormatError, match=message):
            load_torch(path)


def test_old_format_of_torch(torch, tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(FileFormatError, match=r"old format.*torch\.save\(torch\.load"):
        load_torch(path)


def test_to_safetensors_and_back_to_torch(torch, tmp_path):
    from safetensors.torch import load_file

    model = torch.nn.LSTM(4, 3)
    ours = saved(torch, tmp_path / "a.pth", model.state_dict())
    save_safetensors(ours, tmp_path / "a.safetensors")
    again = torch.nn.LSTM(4, 3)
    again.load_state_dict(load_file(tmp_path / "a.safetensors"))
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_torch_itself_reads_the_files_made_by_hand(torch, tmp_path):
    program = mapping(w=tensor(), tied=tensor((3, 2), (1, 3)))
    path = write_archive(tmp_path / "a.pth", program)
    theirs = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
    assert_equal_to_torch(torch, load_torch(path), theirs)


def test_group_and_dict_instructions_of_the_helper(tmp_path):
    """The hand-written instructions are right, so that files are not refused because of a typo."""
    program = mapping(w=tensor(), extra=group(integer(-(1 << 40)), text("é")))
    with pytest.raises(FileFormatError, match="entry 'extra' is a tuple"):
        load_torch(write_archive(tmp_path / "a.pth", program))


def plain(torch, value):
    """The expected result of `load_torch_checkpoint`, from what PyTorch has read."""
    if isinstance(value, torch.Tensor):
        return value.detach().float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
    if isinstance(value, dict):
        return {key: plain(torch, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return (list if isinstance(value, list) else tuple)(plain(torch, item) for item in value)
    if isinstance(value, (torch.device, torch.dtype)):
        return str(value).removeprefix("torch.")
    return value


def assert_same_data(ours, theirs):
    assert type(ours) is type(theirs), f"{ours!r} for {theirs!r}"
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
    if isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    elif isinstance(theirs, (dict, list, tuple)):
        items = theirs.values() if isinstance(theirs, dict) else theirs
        own = ours.values() if isinstance(ours, dict) else ours
        for a, b in zip(own, items, strict=True):
            assert_same_data(a, b)
    else:
        assert ours == theirs or ours != ours


def test_plain_data_is_what_torch_reads(torch, tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    lr = torch.optim.lr_scheduler
    schedulers = [
        lr.StepLR(optimizer, 2),
        lr.MultiStepLR(optimizer, [2, 4, 4]),
        lr.CosineAnnealingLR(optimizer, 10),
        lr.OneCycleLR(optimizer, 0.1, total_steps=10),
        lr.ReduceLROnPlateau(optimizer),
        lr.LambdaLR(optimizer, lambda step: 1.0),
        lr.ExponentialLR(optimizer, 0.9),
        lr.LinearLR(optimizer),
        lr.PolynomialLR(optimizer),
        lr.CosineAnnealingWarmRestarts(optimizer, 5),
    ]
    checkpoint = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedulers": [scheduler.state_dict() for scheduler in schedulers],
        "size": torch.Size([2, 3]),
        "no size": torch.Size([]),
        "set": {1, 2.5, "x", None},
        "empty set": set(),
        "bytes": bytes(range(256)),
        "bytearray": bytearray(b"ab\xff"),
        "complex": 1 - 2.5j,
        "device": [torch.device("cpu"), torch.device("cuda:1"), torch.device("cuda")],
        "dtype": (torch.float32, torch.bfloat16, torch.int64),
        "counter": collections.Counter("abca"),
        "ordered": collections.OrderedDict([("b", 1), ("a", (torch.ones(2), [torch.zeros(3)]))]),
        "keys": {1: "a", 2.5: "b", b"c": "d", False: "e"},
        "big": [2**100, -(2**70), float("inf"), float("nan"), "\u00e9\U0001f999"],
        "parameter": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)),
    }
    path = tmp_path / "a.pth"
    torch.save(checkpoint, path)
    theirs = torch.load(path, weights_only=True)
    assert_same_data(load_torch_checkpoint(path), plain(torch, theirs))
    assert_equal_to_torch(torch, load_torch(path), model.state_dict())
    assert_equal_to_torch(torch, load_torch(path, key="model"), model.state_dict())
    for kind in ("size", "set", "bytes", "bytearray", "complex", "device", "dtype", "counter"):
        torch.save(checkpoint[kind], path)
        assert_same_data(load_torch_checkpoint(path), plain(torch, checkpoint[kind]))


def test_plain_data_between_tensors(tmp_path):
    size = call(name("torch", "Size"), group(integer(2), integer(3)))
    made = mapping(
        w=tensor(),
        size=size,
        seen=call(name("__builtin__", "set"), b"](" + integer(1) + text("x") + size + b"e"),
        raw=call(name("_codecs", "encode"), text("\u00ffa"), text("latin1")),
        device=call(name("torch", "device"), text("cuda"), integer(1)),
        dtype=name("torch", "float32"),
        c=call(name("builtins", "complex"), b"G" + bytes(8), b"G" + bytes(8)),
        empty=call(name("__builtin__", "bytes")),
        array=call(name("builtins", "bytearray"), text("ab"), text("latin-1")),
    )
    path = write_archive(tmp_path / "a.pth", made)
    assert list(load_torch(path)) == ["w"]
    everything = load_torch_checkpoint(path)
    assert everything.pop("w").shape == (2, 3)
    assert everything == {
        "size": (2, 3),
        "seen": {1, "x", (2, 3)},
        "raw": b"\xffa",
        "device": "cuda:1",
        "dtype": "float32",
        "c": 0j,
        "empty": b"",
        "array": bytearray(b"ab"),
    }


def test_shared_and_circular_data(tmp_path):
    lists = mapping(w=tensor(), x=b"]q\x00h\x00a")
    made = load_torch_checkpoint(write_archive(tmp_path / "a.pth", lists))
    assert made["x"][0] is made["x"]
    doubled = b"NN\x86q\x00"
    for level in range(25):
        doubled += b"h%c\x86q%c" % (level, level + 1)
    made = load_torch_checkpoint(write_archive(tmp_path / "a.pth", mapping(x=doubled)))
    assert isinstance(made["x"], tuple)
    depth = 20_000  # each tuple contains the previous one and is also in the list
    chain = b"](" + b")q\x00" + b"h\x00\x85q\x00" * depth + b"e"
    made = load_torch_checkpoint(write_archive(tmp_path / "a.pth", chain))
    assert len(made) == depth + 1
