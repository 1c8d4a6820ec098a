"""Compares our numbers for cuBLASLt with NVIDIA's header, and reads our descriptors back.

Through ctypes a wrong number would not raise an error but compute something else. Neither test
needs a GPU or a driver; each is skipped where the header or the library is missing.
"""

import ctypes
import os
import shutil
import subprocess
from ctypes import byref, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

import pytest

from minigrad.kernels.cuda import cublaslt
from minigrad.kernels.cuda import cublaslt_api as lt

CONSTANTS = {
    name: value
    for name, value in vars(lt).items()
    if name.startswith(("CUDA_", "CUBLAS_", "CUBLASLT_")) and isinstance(value, int)
}
LAYOUT = {"TYPE": 0, "ROWS": 2, "COLS": 3, "LD": 4}  # attributes that this test reads back
CONSTANTS |= {f"CUBLASLT_MATRIX_LAYOUT_{name}": value for name, value in LAYOUT.items()}
FIELDS = {"algo": "algo", "workspace_size": "workspaceSize", "state": "state"}
FIELDS |= {"waves_count": "wavesCount", "reserved": "reserved"}

PROGRAM = """
#include <cstddef>
#include <cstdio>
#include <type_traits>
#include <cublasLt.h>

template <class T> const char* kind() {
  if (std::is_pointer_v<T>) return "pointer";
  static_assert(std::is_pointer_v<T> || sizeof(T) == 4 || sizeof(T) == 8);
  if (sizeof(T) == 4) return "4";
  return std::is_signed_v<T> ? "signed 8" : "unsigned 8";
}
template <class... Arguments> void show(const char* name, cublasStatus_t (*)(Arguments...)) {
  printf("%s", name);
  ((printf(";%s", kind<Arguments>())), ...);
  printf("\\n");
}
int main() {
  printf("size;%zu;%zu\\n", sizeof(cublasLtMatmulHeuristicResult_t), sizeof(cublasStatus_t));
"""


def include_folders() -> list[str]:
    """Folders that may have NVIDIA's headers: in a toolkit, and in Python packages."""
    roots = [os.environ.get("CUDA_PATH", "/usr/local/cuda"), "/usr/local/cuda"]
    folders = [Path(root) / "include" for root in roots]
    folders += [Path(path).parent for path in lt.installed("include/*.h")]
    return [str(folder) for folder in dict.fromkeys(folders) if folder.is_dir()]


def kind(ctype: object) -> str:
    """The name of a ctypes type in the C program."""
    names = {c_uint64: "unsigned 8", c_int64: "signed 8", c_size_t: "unsigned 8"}
    return names.get(ctype, "4" if ctype is ctypes.c_int else "pointer")  # type: ignore[call-overload]


def test_every_number_is_that_of_the_header(tmp_path: Path) -> None:
    folders = include_folders()
    if not any((Path(folder) / "cublasLt.h").exists() for folder in folders):
        pytest.skip("cublasLt.h is not here; it comes with the package nvidia-cublas")
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ to read the header")
    lines = [f'  printf("{name};%lld\\n", (long long)({name}));' for name in CONSTANTS]
    lines += [
        f'  printf("{ours};%zu\\n", offsetof(cublasLtMatmulHeuristicResult_t, {theirs}));'
        for ours, theirs in FIELDS.items()
    ]
    lines += [f'  show("{name}", &{name});' for name in lt.PROTOTYPES]
    code = PROGRAM + "\n".join(lines) + "\n}\n"
    (tmp_path / "numbers.cpp").write_text(code, encoding="utf-8")
    # The functions are only declared; the program is compiled without the library.
    command = ["g++", "-std=c++17", *[f"-I{folder}" for folder in folders], "numbers.cpp"]
    command += ["-o", "numbers", "-Wl,--unresolved-symbols=ignore-all"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if "No such file or directory" in result.stderr:
        pytest.skip("headers that cublasLt.h includes are not here")
    assert result.returncode == 0, result.stderr[:2000]
    output = subprocess.run(tmp_path / "numbers", capture_output=True, text=True, check=True).stdout
    found = {name: rest for name, *rest in (line.split(";") for line in output.splitlines())}
    wanted = {"size": [str(ctypes.sizeof(lt.HeuristicResult)), "4"]}
    wanted |= {name: [str(value)] for name, value in CONSTANTS.items()}
    wanted |= {name: [str(getattr(lt.HeuristicResult, name).offset)] for name in FIELDS}
    wanted |= {name: [kind(t) for t in types] for name, types in lt.PROTOTYPES.items()}
    assert found == wanted


@pytest.fixture(scope="module")
def api() -> lt.Api:
    """The real library, which can make descriptors without a driver."""
    for path in (*lt.NEWEST_FIRST, *lt.installed("lib/libcublasLt.so.1[23]")):
        try:
            return lt.Api(ctypes.CDLL(str(path)))
        except OSError:
            continue
    pytest.skip("libcublasLt is not here; it comes with the package nvidia-cublas")


def read(api: lt.Api, what: str, target: c_void_p, attribute: int, value: object) -> int:
    """Read an attribute, which must have exactly the type of `value`."""
    function = getattr(api.library, f"cublasLt{what}GetAttribute")
    function.argtypes = (c_void_p, ctypes.c_int, c_void_p, c_size_t, c_void_p)
    written = c_size_t()
    assert function(target, attribute, None, 0, byref(written)) == 0
    assert written.value == ctypes.sizeof(value)  # type: ignore[arg-type]
    assert function(target, attribute, byref(value), written.value, byref(written)) == 0  # type: ignore[arg-type]
    return value.value  # type: ignore[attr-defined]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("bias", [0, 0x1000])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(
    ("operands", "types"),
    [("u2", (14, 0, 68)), ("f4", (0, 0, 77)), ("f8", (1, 1, 70))],
)
def test_the_library_reads_what_we_mean(
    api: lt.Api,
    monkeypatch: pytest.MonkeyPatch,
    operands: str,
    types: tuple[int, int, int],
    transposed: tuple[bool, bool],
    bias: int,
    relu: bool,
) -> None:
    monkeypatch.setattr(cublaslt.Plan, "_chosen", lambda plan, product: None)
    m, n, k, (a_transposed, b_transposed) = 5, 7, 11, transposed
    aligned = (256, 256, 256 if bias else 0, 256)
    product = cublaslt.Product(
        *(m, n, k, *transposed, operands), tf32=operands == "f4", relu=relu, aligned=aligned
    )
    plan = cublaslt.Plan(api, c_void_p(), product, bias)
    operation = plan.operation
    assert read(api, "MatmulDesc", operation, 0, c_int32()) == types[2]
    assert read(api, "MatmulDesc", operation, 1, c_int32()) == types[1]
    assert read(api, "MatmulDesc", operation, 3, c_int32()) == b_transposed
    assert read(api, "MatmulDesc", operation, 4, c_int32()) == a_transposed
    epilogue = 1 if not (bias or relu) else 2 * relu + 4 * bool(bias)
    assert read(api, "MatmulDesc", operation, 7, c_uint32()) == epilogue
    assert (read(api, "MatmulDesc", operation, 8, c_void_p()) or 0) == bias
    # In column-major order the memory of a (M, K) is a matrix (K, M), unless a is transposed;
    # likewise for b and c.
    wanted = (
        (plan.first, types[0], (k, n) if b_transposed else (n, k)),
        (plan.second, types[0], (m, k) if a_transposed else (k, m)),
        (plan.result, types[1], (n, m)),
    )
    for layout, dtype, (rows, columns) in wanted:
        assert read(api, "MatrixLayout", layout, LAYOUT["TYPE"], c_uint32()) == dtype
        assert read(api, "MatrixLayout", layout, LAYOUT["ROWS"], c_uint64()) == rows
        assert read(api, "MatrixLayout", layout, LAYOUT["COLS"], c_uint64()) == columns
        assert read(api, "MatrixLayout", layout, LAYOUT["LD"], c_int64()) == rows


def test_preferences_have_the_widths_that_we_write(api: lt.Api) -> None:
    preference = api.create("MatmulPreference")
    for attribute, value in (
        (lt.CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, c_uint64(2**25)),
        (lt.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, c_uint32(4)),
        (lt.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c_uint32(16)),
    ):
        api.set("MatmulPreference", preference, attribute, value)
        assert read(api, "MatmulPreference", preference, attribute, type(value)()) == value.value
    with pytest.raises(lt.CublasError, match="SetAttribute failed with status 7: an unsupported"):
        api.set("MatmulPreference", preference, 1, c_uint32(4))
