"""safetensors: we and PyTorch read what was written; damaged files are refused."""

import errno
import json
import os

import numpy as np
import pytest
import safetensors.numpy

from minigrad.storage import (
    FileFormatError,
    TensorInfo,
    inspect_safetensors,
    load_safetensors,
    save_safetensors,
)

DTYPES = ["f8", "f4", "f2", "c8", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]


def random_bytes_as(dtype, shape, seed=0):
    """An array of random bits, which include NaN payloads, subnormals and extremes."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.random.default_rng(seed).integers(0, 256, count, dtype=np.uint8)
    return (raw & 1 if dtype == "?" else raw).view(dtype).reshape(shape)


def assert_same_bits(actual, expected):
    assert actual.dtype == expected.dtype.newbyteorder("=")
    assert actual.shape == expected.shape
    little = expected.astype(expected.dtype.newbyteorder("<"))
    assert actual.astype(actual.dtype.newbyteorder("<")).tobytes() == little.tobytes()


@pytest.fixture
def every_dtype():
    shapes = [(3, 5), (), (0,), (1, 1, 1), (7,), (2, 0, 3), (2, 3, 4)]
    return {
        f"block.{dtype}.{index}": random_bytes_as(dtype, shape, index)
        for dtype in DTYPES
        for index, shape in enumerate(shapes)
    }


def test_round_trip_of_every_dtype_and_shape(tmp_path, every_dtype):
    path = tmp_path / "a.safetensors"
    save_safetensors(every_dtype, path, {"step": "100", "naïve": "π\n"})
    tensors, metadata = load_safetensors(path)
    assert metadata == {"step": "100", "naïve": "π\n"}
    assert list(tensors) == list(every_dtype)
    for name, expected in every_dtype.items():
        assert_same_bits(tensors[name], expected)
        assert tensors[name].flags.c_contiguous
        assert tensors[name].flags.writeable


def test_the_package_reads_what_we_write(tmp_path, every_dtype):
    path = tmp_path / "a.safetensors"
    save_safetensors(every_dtype, path)
    theirs = safetensors.numpy.load_file(path)
    assert theirs.keys() == every_dtype.keys()
    for name, expected in every_dtype.items():
        assert_same_bits(theirs[name], expected)


def test_we_read_what_the_package_writes(tmp_path, every_dtype):
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(every_dtype, path, {"a": "b"})
    tensors, metadata = load_safetensors(path)
    assert metadata == {"a": "b"}
    assert tensors.keys() == every_dtype.keys()
    for name, expected in every_dtype.items():
        assert_same_bits(tensors[name], expected)


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float16"])
def test_torch_reads_what_we_write(tmp_path, dtype):
    torch = pytest.importorskip("torch", reason="reads with PyTorch")
    from safetensors.torch import load_file

    path = tmp_path / "a.safetensors"
    rng = np.random.default_rng(0)
    tensors = {
        "transposed": rng.standard_normal((4, 3)).astype(np.float32).T,
        "scalar": np.array(1.25, np.float32),
        "ids": np.arange(5),
        "mask": np.array([True, False]),
    }
    save_safetensors(tensors, path, dtype=dtype)
    theirs = load_file(path)
    assert theirs.keys() == tensors.keys()
    for name, array in tensors.items():
        expected = torch.from_numpy(array.copy())
        if dtype is not None and expected.is_floating_point():
            expected = expected.to(getattr(torch, dtype))
        assert theirs[name].dtype == expected.dtype
        assert torch.equal(theirs[name], expected)


def test_we_read_what_torch_writes_and_tell_its_dtypes(tmp_path):
    torch = pytest.importorskip("torch", reason="writes with PyTorch")
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    kinds = ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "int32", "bool"]
    theirs = {kind: torch.tensor([[0.0, 1.0, -3.5]]).to(getattr(torch, kind)) for kind in kinds}
    save_file(theirs, path)
    tensors, metadata = load_safetensors(path)
    assert metadata == {}
    widened = {"bfloat16", "float8_e4m3fn", "float8_e5m2"}
    for kind in kinds:
        assert tensors[kind].dtype == (np.float32 if kind in widened else kind)
        np.testing.assert_array_equal(tensors[kind], theirs[kind].to(torch.float32).numpy())
    infos, _ = inspect_safetensors(path)
    assert infos == {kind: TensorInfo(kind, (1, 3)) for kind in kinds}


def test_bfloat16_round_trip_is_exact(tmp_path):
    path, again = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    values = np.random.default_rng(0).standard_normal((9, 7)).astype(np.float32)
    save_safetensors({"w": values, "n": np.arange(3)}, path, {"k": "v"}, dtype="bfloat16")
    infos, metadata = inspect_safetensors(path)
    assert infos == {"w": TensorInfo("bfloat16", (9, 7)), "n": TensorInfo("int64", (3,))}
    assert metadata == {"k": "v"}
    tensors, _ = load_safetensors(path)
    assert tensors["w"].dtype == np.float32
    assert np.abs(tensors["w"] - values).max() <= 2**-8 * np.abs(values).max()
    assert (tensors["w"] != values).any()
    save_safetensors(tensors, again, {"k": "v"}, dtype="bfloat16")
    assert again.read_bytes() == path.read_bytes()


def test_any_memory_layout_and_byte_order(tmp_path):
    path = tmp_path / "a.safetensors"
    base = np.random.default_rng(0).standard_normal((4, 6, 5))
    tensors = {
        "transposed": base.T,
        "sliced": base[::2, 1::3],
        "reversed": base[::-1, :, ::-1],
        "repeated": np.broadcast_to(base[0], (3, 6, 5)),
        "fortran": np.asfortranarray(base),
        "big endian": base.astype(">f4"),
        "scalar of big endian": np.array(1.5, ">f8"),
    }
    save_safetensors(tensors, path)
    loaded, _ = load_safetensors(path)
    for name, expected in tensors.items():
        assert_same_bits(loaded[name], np.ascontiguousarray(expected).reshape(expected.shape))


class Wrapped:
    """An object that is not an array but can return one, like tensors and GPU arrays."""

    def __init__(self, array, method):
        self.shape = array.shape
        setattr(self, method, lambda: array)


def test_tensors_gpu_arrays_and_plain_numbers(tmp_path):
    path = tmp_path / "a.safetensors"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    on_gpu = Wrapped(array, "get")
    given = {
        "tensor": Wrapped(array, "numpy"),
        "gpu array": on_gpu,
        "tensor on the gpu": Wrapped(on_gpu, "numpy"),
        "list": [1, 2],
        "number": 2.5,
        "flag": True,
    }
    save_safetensors(given, path)
    loaded, _ = load_safetensors(path)
    for name in ("tensor", "gpu array", "tensor on the gpu"):
        assert_same_bits(loaded[name], array)
    assert_same_bits(loaded["list"], np.array([1, 2]))
    assert_same_bits(loaded["number"], np.array(2.5))
    assert_same_bits(loaded["flag"], np.array(True))


def test_equal_input_gives_equal_bytes_and_aligned_tensors(tmp_path):
    tensors = {"a": np.zeros(3, np.int8), "b": np.ones(2), "c": np.ones(5, np.float16)}
    metadata = {str(number): "x" for number in range(20)}
    for name in "pq":
        save_safetensors(tensors, tmp_path / name, metadata)
    data = (tmp_path / "p").read_bytes()
    assert data == (tmp_path / "q").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert list(header.pop("__metadata__")) == list(metadata)
    for name, entry in header.items():
        assert (8 + length + entry["data_offsets"][0]) % tensors[name].itemsize == 0


def test_empty_file_of_tensors(tmp_path):
    save_safetensors({}, tmp_path / "a")
    assert load_safetensors(tmp_path / "a") == ({}, {})
    assert inspect_safetensors(tmp_path / "a") == ({}, {})


@pytest.mark.parametrize(
    ("tensors", "options", "error", "message"),
    [
        ({"x": np.array(["text"])}, {}, TypeError, "'x' has dtype <U4"),
        ({"x": np.array([None])}, {}, TypeError, "'x' has dtype object"),
        ({"x": np.zeros(2, np.complex128)}, {}, TypeError, "complex128"),
        ({"x": np.zeros(2, np.longdouble)}, {}, TypeError, "cannot hold"),
        ({1: np.zeros(2)}, {}, TypeError, "1 cannot be the name"),
        ({"__metadata__": np.zeros(2)}, {}, TypeError, "cannot be the name"),
        ({}, {"metadata": {"step": 1}}, TypeError, r"metadata\['step'\] is 1"),
        ({}, {"dtype": "float8"}, ValueError, "dtype is 'float8'"),
        ({"x": np.array([1.0, 7e4])}, {"dtype": "float16"}, ValueError, "'x' holds values too"),
        ({"x": np.array([3.4e38])}, {"dtype": "bfloat16"}, ValueError, "'x' holds values too"),
        ({"x": np.array([1e39])}, {"dtype": "float32"}, ValueError, "'x' holds values too"),
    ],
)
def test_what_cannot_be_saved_says_why_and_writes_nothing(
    tmp_path, tensors, options, error, message
):
    with pytest.raises(error, match=message):
        save_safetensors(tensors, tmp_path / "a", **options)
    assert os.listdir(tmp_path) == []


def test_infinity_and_nan_can_be_rounded(tmp_path):
    values = np.array([np.inf, -np.inf, np.nan, 1.0])
    for dtype in ("bfloat16", "float16", "float32"):
        save_safetensors({"x": values}, tmp_path / "a", dtype=dtype)
        np.testing.assert_array_equal(load_safetensors(tmp_path / "a")[0]["x"], values)


def test_full_disk_leaves_the_old_weights(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_safetensors({"x": np.arange(3)}, path)
    before = path.read_bytes()

    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"model\.safetensors: No space left.*unchanged.*Free"):
        save_safetensors({"x": np.arange(4)}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_safetensors({"w": np.arange(6.0), "b": np.zeros(1, np.int8)}, path, {"k": "v"})
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        for read in (load_safetensors, inspect_safetensors):
            with pytest.raises(FileFormatError, match=r"a\.safetensors: not a valid safetensors"):
                read(path)


def with_header(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04 a zip archive",
        b"plain text, longer than eight bytes",
        (1 << 63).to_bytes(8, "little") + b"{}",
        with_header(b"{" * 1000),
        with_header(b"[" * 100_000),
        with_header(b"\xff\xfe{}"),
        with_header({"x": entry()}, b"1234 and more"),
        with_header({"x": entry(shape=[2])}, b"1234"),
        with_header({"x": entry(shape=[-1])}, b"1234"),
        with_header({"x": entry(shape=[1 << 62, 4])}, b"1234"),
        with_header({"x": entry(offsets=[4, 0])}, b"1234"),
        with_header({"x": entry(), "y": entry()}, b"1234"),
        with_header({"x": entry(shape=[0, 1 << 60, 1 << 60], offsets=[0, 0])}),
        with_header({"x": entry(shape=[1] * 100)}, b"1234"),
        with_header({"x": entry(dtype="F9")}, b"1234"),
        with_header({"x": entry(dtype="F8_E8M0", shape=[4])}, b"1234"),
        with_header({"__metadata__": {"a": 1}, "x": entry()}, b"1234"),
        with_header(
            b'{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},'
            b'"x":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}',
            b"1234",
        ),
    ],
)
def test_foreign_and_malformed_files_are_refused(tmp_path, data):
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=r"a\.bin: "):
        load_safetensors(path)


def test_random_damage_raises_nothing_else(tmp_path):
    """Flipped bytes give an error of this class, or a file that still loads (names may change)."""
    path = tmp_path / "a.safetensors"
    tensors = {"w": np.arange(24.0).reshape(4, 6), "b": np.ones(3, np.float16), "n": np.arange(5)}
    save_safetensors(tensors, path, {"k": "v"})
    data = np.frombuffer(path.read_bytes(), np.uint8)
    header = 8 + int.from_bytes(data[:8].tobytes(), "little")
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(1500):
        damaged = data.copy()
        places = rng.integers(0, header, rng.integers(1, 4))
        damaged[places] ^= rng.integers(1, 256, len(places)).astype(np.uint8)
        path.write_bytes(damaged.tobytes())
        for read in (load_safetensors, inspect_safetensors):
            try:
                read(path)
            except FileFormatError as error:
                refused += 1
                assert "a.safetensors" in str(error)
    assert 1500 < refused < 3000


def test_missing_file_is_an_os_error(tmp_path):
    for read in (load_safetensors, inspect_safetensors):
        with pytest.raises(FileNotFoundError, match=r"missing\.safetensors"):
            read(tmp_path / "missing.safetensors")
        with pytest.raises(OSError):
            read(tmp_path)


def test_a_tied_model_of_save_model(tmp_path):
    """Safetensors' `save_model` writes a shared tensor once, its other names as metadata."""
    table = np.arange(6, dtype=np.float32).reshape(3, 2)
    path = tmp_path / "tied.safetensors"
    save_safetensors(
        {"embedding.weight": table, "other": table},
        path,
        {"head.weight": "embedding.weight", "other": "embedding.weight", "format": "pt"},
    )
    tensors, metadata = load_safetensors(path)
    assert list(tensors) == ["embedding.weight", "other", "head.weight"]
    assert tensors["head.weight"] is tensors["embedding.weight"] and metadata["format"] == "pt"


def test_a_tied_model_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_model

    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(3, 2)
            self.head = torch.nn.Linear(2, 3, bias=False)
            self.head.weight = self.embedding.weight

    model = Tied()
    save_model(model, str(tmp_path / "tied.safetensors"))
    tensors, _ = load_safetensors(tmp_path / "tied.safetensors")
    assert sorted(tensors) == sorted(model.state_dict())
    assert np.array_equal(tensors["head.weight"], model.head.weight.detach().numpy())
