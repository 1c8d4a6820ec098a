"""A stand-in for libcublasLt: the same C functions, on the memory of the stand-in for CuPy.

It is called through ctypes and gets only numbers, addresses and bytes, like the real library:
attributes of descriptors are bytes, matrices are column-major with leading dimensions. Calls that
the real library would refuse, or would silently compute wrongly, return an error status here, and
`reasons` says why.
"""

from __future__ import annotations

import ctypes
import itertools
import struct
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_int, c_int64, c_size_t, c_uint64, c_void_p
from typing import Any, NamedTuple

import numpy as np

from tests.gpu.stand_in.array import GUARD, GUARD_BYTE

OK, NOT_INITIALIZED, INVALID, NOT_SUPPORTED = 0, 1, 7, 15
P = c_void_p
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "Create": (P,),
    "MatmulDescCreate": (P, c_int, c_int),
    "MatmulDescSetAttribute": (P, c_int, P, c_size_t),
    "MatrixLayoutCreate": (P, c_int, c_uint64, c_uint64, c_int64),
    "MatmulPreferenceCreate": (P,),
    "MatmulPreferenceSetAttribute": (P, c_int, P, c_size_t),
    "MatmulPreferenceDestroy": (P,),
    "MatmulAlgoGetHeuristic": (P, P, P, P, P, P, P, c_int, P, P),
    "Matmul": (P, P, P, P, P, P, P, P, P, P, P, P, P, P, c_size_t, P),
}
# The types of attributes for `struct`, from the header's comments.
DESC = {3: "i", 4: "i", 7: "I", 8: "Q"}  # op(A), op(B), epilogue, bias pointer
PREF = {1: "Q", 5: "I", 6: "I", 7: "I", 8: "I"}  # workspace, alignments of A, B, C, D
ITEM = {0: np.float32, 1: np.float64, 14: np.uint16}
COMPUTE = {68: (0, (0, 14)), 77: (0, (0,)), 70: (1, (1,))}  # scale type, types of A and B
NEEDED = 1 << 16  # bytes of workspace that every algorithm uses
RELU, BIAS = 2, 4


class Refused(Exception):
    """A status other than success, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class Layout(NamedTuple):
    dtype: int
    rows: int
    columns: int
    leading: int


class Algorithm(NamedTuple):
    """The computation for which the heuristic has returned an algorithm."""

    description: tuple[Any, ...]
    aligned: dict[int, int]
    bias_aligned: int


class FakeCublasLt:
    """Replaces `ctypes.CDLL("libcublasLt.so.13")`.

    Args:
        stand_in: the stand-in for CuPy.

    Attributes:
        reasons: why calls were refused.
        without: epilogues for which the heuristic has no algorithm.
        workspaces: the addresses of the workspaces that were given.
    """

    def __init__(self, stand_in: Any, version: int = 130_000) -> None:
        self.engine = stand_in.engine
        self.stream = lambda: stand_in.cuda.get_current_stream().ptr
        self.reasons: list[str] = []
        self.without: set[int] = set()
        self.workspaces: set[int] = set()
        self.objects: dict[int, Any] = {}
        self.numbers = itertools.count(0x1000)
        for name, types in SIGNATURES.items():
            function = CFUNCTYPE(c_int, *types)(self._guarded(name))
            setattr(self, f"cublasLt{name}", function)
        self.cublasLtGetVersion = CFUNCTYPE(c_size_t)(lambda: version)
        self.cublasLtGetStatusString = CFUNCTYPE(c_void_p, c_int)(self._string)

    def _string(self, status: int) -> int:
        """The address of the last reason, which stays alive with this object."""
        self._last = ctypes.create_string_buffer((self.reasons or ["?"])[-1].encode())
        return ctypes.addressof(self._last)

    def _guarded(self, name: str) -> Callable[..., int]:
        method = getattr(self, f"_{name}")

        def call(*arguments: Any) -> int:
            try:
                method(*[0 if a is None else a for a in arguments])
            except Refused as refused:
                self.reasons.append(f"{name}: {refused.why}")
                return refused.status
            return OK

        return call

    def _new(self, out: int, value: Any) -> None:
        number = next(self.numbers)
        self.objects[number] = value
        _write(out, "Q", number)

    def _Create(self, out: int) -> None:
        self._new(out, "handle")

    def _MatmulDescCreate(self, out: int, compute: int, scale: int) -> None:
        _require(compute in COMPUTE and COMPUTE[compute][0] == scale, "no such compute type")
        self._new(out, {"compute": compute, 3: 0, 4: 0, 7: 1, 8: 0})

    def _MatmulDescSetAttribute(self, desc: int, attribute: int, buffer: int, size: int) -> None:
        self._set(desc, attribute, buffer, size, DESC)

    def _MatrixLayoutCreate(self, out: int, dtype: int, rows: int, columns: int, ld: int) -> None:
        _require(dtype in ITEM, "no such type")
        _require(min(rows, columns) > 0, "an empty matrix")
        _require(ld >= rows, f"a leading dimension of {ld} for {rows} rows")
        self._new(out, Layout(dtype, rows, columns, ld))

    def _MatmulPreferenceCreate(self, out: int) -> None:
        self._new(out, {1: 0, 5: 256, 6: 256, 7: 256, 8: 256})

    def _MatmulPreferenceSetAttribute(self, pref: int, attribute: int, at: int, size: int) -> None:
        self._set(pref, attribute, at, size, PREF)

    def _MatmulPreferenceDestroy(self, pref: int) -> None:
        _require(self.objects.pop(pref, None) is not None, "no such preference")

    def _set(self, number: int, attribute: int, buffer: int, size: int, kinds: Any) -> None:
        _require(attribute in kinds, f"attribute {attribute}")
        _require(size == struct.calcsize(kinds[attribute]), f"{size} bytes for {attribute}")
        self.objects[number][attribute] = _read(buffer, kinds[attribute])

    def _MatmulAlgoGetHeuristic(
        self, handle: int, desc: int, a: int, b: int, c: int, d: int, pref: int, *rest: int
    ) -> None:
        wanted, results, found = rest
        _require(self.objects.get(handle) == "handle", "no handle", NOT_INITIALIZED)
        _require(self.engine.graph is None, "the heuristic is asked while a stream captures")
        _require(wanted == 1, "more algorithms than the caller has room for")
        operation, preference = self.objects[desc], self.objects[pref]
        _require(preference[1] >= NEEDED, "too little workspace", NOT_SUPPORTED)
        _require(operation[7] not in self.without, "no algorithm for it", NOT_SUPPORTED)
        described = self._described(operation, a, b, c, d)
        if operation[7] & BIAS:
            _require(operation[8] != 0, "a bias whose address is not known yet")
        number = next(self.numbers)
        aligned = {key: preference[key] for key in (5, 6, 7, 8)}
        bias_aligned = min(operation[8] & -operation[8], 256)
        self.objects[number] = Algorithm(described, aligned, bias_aligned)
        self.engine.counts["heuristic"] += 1
        # cublasLtMatmulHeuristicResult_t: 8 words, size_t, status, float, 4 ints
        data = struct.pack("8QQif4i", number, *[0] * 7, NEEDED, OK, 1.0, *[0] * 4)
        ctypes.memmove(results, data, len(data))
        _write(found, "i", 1)

    def _described(self, operation: Any, *layouts: int) -> tuple[Any, ...]:
        """Everything that an algorithm depends on; checks that it fits together."""
        a, b, c, d = (self.objects[layout] for layout in layouts)
        (m, k), (k_of_b, n) = _turned(a, operation[3]), _turned(b, operation[4])
        _require(k == k_of_b and (d.rows, d.columns) == (m, n) and c == d, "sizes do not fit")
        scale, types = COMPUTE[operation["compute"]]
        _require(a.dtype == b.dtype and a.dtype in types, "types of A and B")
        _require(d.dtype == scale, "the type of D")
        fixed = {key: value for key, value in operation.items() if key != 8}
        return a, b, c, d, tuple(sorted(fixed.items(), key=str))

    def _Matmul(
        self, handle: int, desc: int, alpha: int, a: int, a_layout: int, b: int, b_layout: int,
        beta: int, c: int, c_layout: int, d: int, d_layout: int, algo: int, space: int,
        size: int, stream: int,
    ) -> None:  # fmt: skip
        _require(self.objects.get(handle) == "handle", "no handle", NOT_INITIALIZED)
        _require(algo != 0, "no algorithm")
        algorithm = self.objects.get(_read(algo, "Q"))
        operation = dict(self.objects[desc])
        described = self._described(operation, a_layout, b_layout, c_layout, d_layout)
        promised = isinstance(algorithm, Algorithm) and algorithm.description == described
        _require(promised, "an algorithm for something else")
        for key, pointer in zip((5, 6, 7, 8), (a, b, c, d), strict=True):
            _require(pointer % algorithm.aligned[key] == 0, "an operand less aligned than promised")
        _require(space % 256 == 0 and space != 0, "a workspace that is not aligned")
        _require(size >= NEEDED, "too little workspace")
        _require(stream == self.stream(), "another stream than the current one")
        number = "d" if operation["compute"] == 70 else "f"
        _require(_read(alpha, number) == 1 and _read(beta, number) in (0, 1), "alpha and beta")
        adds = bool(_read(beta, number))
        _require((c != d) == adds, "C is another array than D where it is added, and else D")
        bias = operation[8] if operation[7] & BIAS else 0
        if bias:
            _require(bias % algorithm.bias_aligned == 0, "a bias less aligned than promised")
        self.workspaces.add(space)
        rounding = min(algorithm.aligned.values()) < 16
        at = (a, b, bias, d, c if adds else 0)
        work = self._work(operation, described, at, space, rounding)
        self.engine.begin_work()
        self.engine.counts["launches"] += 1
        self.engine.counts["cublasLtMatmul"] += 1
        if self.engine.graph is None:
            work()
        else:
            self.engine.graph.append(work)

    def _work(
        self, operation: Any, described: Any, at: Any, space: int, other: bool
    ) -> Callable[[], None]:
        """The function that computes the matmul; all memory that it uses is looked up now.

        Less aligned arrays have `other` algorithms, which sum in another order.
        """
        layouts, (a, b, bias, d, c) = described[:4], at
        left, right = self._matrix(a, layouts[0]), self._matrix(b, layouts[1])
        result = self._matrix(d, layouts[3])
        before = self._matrix(c, layouts[2]) if c else None
        vector = self._memory(bias, layouts[3].rows, layouts[3].dtype) if bias else None
        scratch = self._memory(space, NEEDED // 4, 0)
        summed = ITEM[layouts[3].dtype]

        def work() -> None:
            scratch[...] = np.nan
            factors = [_number(x, operation["compute"]) for x in (left, right)]
            factors = [x.T if operation[key] else x for x, key in zip(factors, (3, 4), strict=True)]
            with np.errstate(all="ignore"):
                if other:
                    half = (factors[0][:, ::2] @ factors[1][::2]).astype(summed)
                    total = half + (factors[0][:, 1::2] @ factors[1][1::2]).astype(summed)
                else:
                    total = factors[0] @ factors[1]
            if before is not None:
                total = total + before
            if vector is not None:
                total = total + vector[:, None]
            if operation[7] & RELU:
                total = np.where(total < 0, 0, total)
            result[...] = total
            self._check_guards(d)

        return work

    def _owner(self, address: int, size: int) -> np.ndarray:
        for start, memory in self.engine.exposed.items():
            if start <= address and address + size <= start + memory.nbytes:
                return memory
        raise Refused(INVALID, "an address that is no array's")

    def _memory(self, address: int, count: int, dtype: int) -> np.ndarray:
        """`count` numbers at an address; all must lie in one array."""
        item = np.dtype(ITEM[dtype])
        owner = self._owner(address, count * item.itemsize)
        bytes_of = owner.reshape(-1).view(np.uint8)
        first = address - owner.ctypes.data
        return bytes_of[first : first + count * item.itemsize].view(item)

    def _matrix(self, address: int, layout: Layout) -> np.ndarray:
        """A column-major matrix, as a view (rows, columns)."""
        count = (layout.columns - 1) * layout.leading + layout.rows
        flat = self._memory(address, count, layout.dtype)
        strides = (flat.itemsize, flat.itemsize * layout.leading)
        shape = (layout.rows, layout.columns)
        return np.lib.stride_tricks.as_strided(flat, shape, strides)

    def _check_guards(self, address: int) -> None:
        memory = self._owner(address, 1).reshape(-1).view(np.uint8)
        if (memory[:GUARD] != GUARD_BYTE).any() or (memory[-GUARD:] != GUARD_BYTE).any():
            raise MemoryError("cublasLtMatmul wrote outside of an array")


def _require(condition: Any, why: str, status: int = INVALID) -> None:
    if not condition:
        raise Refused(status, why)


def _read(address: int, kind: str) -> Any:
    return struct.unpack(kind, ctypes.string_at(address, struct.calcsize(kind)))[0]


def _write(address: int, kind: str, value: Any) -> None:
    data = struct.pack(kind, value)
    ctypes.memmove(address, data, len(data))


def _turned(layout: Layout, transposed: int) -> tuple[int, int]:
    shape = layout.rows, layout.columns
    return shape[::-1] if transposed else shape


def _number(matrix: np.ndarray, compute: int) -> np.ndarray:
    """Operands in double precision, rounded as the compute type rounds them."""
    if matrix.dtype == np.uint16:
        return (matrix.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if compute == 77:  # TF32
        bits = matrix.astype(np.float32).view(np.uint32).astype(np.uint64)
        matrix = ((bits + 0x1000) & 0xFFFFE000).astype(np.uint32).view(np.float32)
    return matrix.astype(np.float64)
