"""Malicious and damaged archives: none exhausts memory, and each gives one clear error."""

import struct
import zipfile
import zlib

import numpy as np
import pytest

from minigrad.storage import FileFormatError, load_torch
from tests.minigrad.storage.torch_files import (
    SIX_FLOATS,
    integer,
    mapping,
    refused,
    storage,
    tensor,
    write_archive,
)

# Archives.


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("../evil", "unsafe path"),
        ("archive/../../evil", "unsafe path"),
        ("/etc/passwd", "unsafe path"),
        ("archive//data/1", "unsafe path"),
        ("archive/./data/1", "unsafe path"),
        ("archive/..\\evil", "unsafe path"),
        ("other/data/1", "not in one common folder"),
        ("top", "not in one common folder"),
        ("archive", "not in one common folder"),
    ],
)
def test_names_of_records(tmp_path, record, message):
    path = write_archive(tmp_path / "a.pth", mapping(w=tensor()))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(record, b"x")
    refused(path, message)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_records_of_one_name(tmp_path):
    path = write_archive(tmp_path / "a.pth", mapping(w=tensor()))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    refused(path, "is there twice")


def test_compressed_and_encrypted_records(tmp_path):
    path = tmp_path / "a.pth"
    big = {"data/0": bytes(50 << 20)}  # 50 MiB in 50 KiB
    write_archive(path, mapping(w=tensor()), big, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    refused(path, r"is compressed or encrypted, which torch\.save never does")
    write_archive(path, mapping(w=tensor()))
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    refused(path, "encrypted")


@pytest.mark.parametrize("field", ["compressed", "uncompressed", "both"])
@pytest.mark.parametrize("size", [25, 1 << 20, 0xFFFFFFF0])
def test_sizes_that_are_not_those_of_the_record(tmp_path, field, size):
    path = write_archive(tmp_path / "a.pth", mapping(w=tensor()))
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    if field != "uncompressed":
        data[entry + 20 : entry + 24] = struct.pack("<I", size)
    if field != "compressed":
        data[entry + 24 : entry + 28] = struct.pack("<I", size)
    path.write_bytes(data)
    refused(path, "two sizes|claim|damaged")


def test_records_that_overlap(tmp_path):
    """Records inside each other: a zip bomb without compression."""
    path = tmp_path / "a.pth"
    levels, payload = 20, bytes(20_000)
    inner, entries = payload, []
    for level in range(levels):
        entry = zipfile.ZipInfo(f"archive/data/{level}")
        entry.file_size = entry.compress_size = len(inner)
        entry.CRC = zlib.crc32(inner)
        inner = entry.FileHeader() + inner
        entries.append((entry, len(inner)))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        begin = archive.fp.tell()
        archive.fp.write(inner)
        archive.start_dir = archive.fp.tell()
        for entry, length in entries:
            entry.header_offset = begin + len(inner) - length
            archive.filelist.append(entry)
    refused(path, "its records claim 4..,... bytes, and the file has 2.,...|damaged")


def test_long_list_of_records(tmp_path):
    path = tmp_path / "a.pth"
    size = 18 << 20
    record = b"PK\x01\x02" + bytes(42)
    listing = (record * (size // len(record) + 1))[:size]
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, size, 4, 0)
    path.write_bytes(b"PK\x03\x04" + listing + end)
    refused(path, "a list of records of 18,874,368 bytes", growth=0)


def test_damaged_numbers_are_noticed(tmp_path):
    path = write_archive(tmp_path / "a.pth", mapping(w=tensor()))
    data = path.read_bytes()
    assert data.count(SIX_FLOATS) == 1
    path.write_bytes(data.replace(SIX_FLOATS, SIX_FLOATS[::-1]))
    refused(path, "damaged archive.*CRC")


def test_byte_order_that_does_not_exist(tmp_path):
    for order in (b"middle", b"", b"x" * 1000):
        path = write_archive(
            tmp_path / "a.pth", mapping(w=tensor()), {"data/0": SIX_FLOATS, "byteorder": order}
        )
        refused(path, "byte order|byteorder has")


# Damage.


def large_file(path):
    rng = np.random.default_rng(0)
    weights = {f"layer.{index}.weight": rng.bytes(6000) for index in range(20)}
    program = mapping(
        **{
            key: tensor((30, 50), (50, 1), of=storage(str(index), 1500))
            for index, key in enumerate(weights)
        }
    )
    records = {f"data/{index}": content for index, content in enumerate(weights.values())}
    return write_archive(path, program, {"byteorder": b"little", **records})


def test_truncated_at_every_kibibyte(tmp_path):
    path = large_file(tmp_path / "a.pth")
    data = path.read_bytes()
    assert len(load_torch(path)) == 20
    for length in [*range(0, len(data), 1024), *range(len(data) - 100, len(data))]:
        path.write_bytes(data[:length])
        refused(path, "truncated|not a zip archive")


def flip(data, rng, low, high):
    damaged = data.copy()
    places = rng.integers(low, high, rng.integers(1, 5))
    damaged[places] ^= rng.integers(1, 256, len(places)).astype(np.uint8)
    return damaged.tobytes()


def test_random_damage_of_the_archive(tmp_path):
    """Flipped bytes give one class of error, or a file whose names or strings have changed."""
    path = write_archive(tmp_path / "a.pth", mapping(w=tensor(), b=tensor((3,), (1,))))
    data = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    loaded = 0
    for _ in range(1000):
        path.write_bytes(flip(data, rng, 0, len(data)))
        try:
            load_torch(path)
            loaded += 1
        except FileFormatError as error:
            assert str(error).startswith(f"{path}: ")
    assert loaded < 500


def test_random_damage_of_the_program(tmp_path):
    """The same with a correct checksum, so that the damage reaches the pickle reader."""
    path = tmp_path / "a.pth"
    inner = mapping(w=tensor(), b=tensor((3,), (1,)), scalar=tensor((), ()), step=integer(300))
    program = np.frombuffer(mapping(model=inner, epoch=integer(7)) + b".", np.uint8)
    rng = np.random.default_rng(1)
    refusals = set()
    for _ in range(1500):
        write_archive(path, flip(program, rng, 0, len(program)))
        try:
            for array in load_torch(path).values():
                array.sum()
        except FileFormatError as error:
            refusals.add(error.cause[:30])
    assert len(refusals) > 20
