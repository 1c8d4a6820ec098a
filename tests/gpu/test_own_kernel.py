"""Kernels for your own ops, from CUDA C++ in strings."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad.kernels.cuda.compile import Source

EXAMPLE = Path(__file__).parents[2] / "examples" / "your_own_op.py"


class scaled_gap(mg.Op):
    """z = scale·(a - b)^power, for power 1 or 2"""

    def forward(xp, a, b, *, scale, power=1):
        gap = a - b
        return scale * gap**power, gap

    def backward(xp, dz, gap, needs, *, scale, power=1):
        da = dz * scale * (1 if power == 1 else 2 * gap)
        return da, -da


mg.cuda_kernel(
    scaled_gap,
    forward="""
      const real gap = a - b;  // the smaller "power" first: 1·gap
      y = scale * (power == 1 ? gap : gap * gap);
    """,
    backward="""
      da = dy * scale * (power == 1 ? real(1) : 2 * (a - b));
      db = -da;
    """,
)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((2, 3), (3,)), ((4, 1), (1, 5)), ((), ())])
@pytest.mark.parametrize("options", [{"scale": 0.5}, {"scale": 2, "power": 2}])
def test_it_does_what_the_op_does(gpu: Any, rng: Any, shapes: Any, options: Any) -> None:
    arrays = [rng.standard_normal(shape) for shape in shapes]
    mg.check_kernel(scaled_gap, *arrays, backend="gpu", **options)


def test_it_is_one_launch_each_way(gpu: Any, rng: Any) -> None:
    a, b = (mg.Tensor(rng.standard_normal((300, 7)), device="gpu") for _ in range(2))
    a.requires_grad = True
    z = scaled_gap(a, b, scale=3.0)
    z.backward(mg.ones((300, 7), dtype="float64", device="gpu"))
    assert gpu.counts["forward"] == 1 and gpu.counts["backward"] == 1
    np.testing.assert_array_equal(a.grad.numpy(), np.full((300, 7), 3.0))


def test_the_textbook_and_higher_derivatives_remain(gpu: Any) -> None:
    a = mg.Tensor(np.array([3.0]), requires_grad=True, device="gpu")
    b = mg.Tensor(np.array([1.0]), device="gpu")
    first = mg.grad(scaled_gap(a, b, scale=1.0, power=2).sum(), a, create_graph=True)
    assert first.numpy() == [4] and mg.grad(first.sum(), a).numpy() == [2]


def test_what_it_does_not_take_runs_as_the_textbook(gpu: Any) -> None:
    a, b = (mg.Tensor(np.array([3, 1]), device="gpu") for _ in range(2))
    with pytest.warns(mg.KernelFallbackWarning, match="scaled_gap: the textbook runs"):
        assert scaled_gap(a, b, scale=1).numpy().tolist() == [0, 0]


def test_a_wrong_string_is_found(gpu: Any, rng: Any) -> None:
    class doubled(mg.Op):
        def forward(xp, x):
            return 2 * x, None

        def backward(xp, dy, saved, needs):
            return (2 * dy,)

    mg.cuda_kernel(doubled, forward="y = x + x;", backward="dx = dy;")
    with pytest.raises(mg.KernelError, match="gradient 0 is off"):
        mg.check_kernel(doubled, rng.standard_normal(5), backend="gpu")


@pytest.mark.stand_in
def test_the_example_runs_on_a_gpu(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE))
    assert gpu.counts["forward"] > 0 and gpu.counts["backward"] > 0
    assert "kernel are right" in capsys.readouterr().out


def test_whole_kernels_can_be_strings(gpu: Any) -> None:
    code = """
    __global__ void count_up(int* counts) { counts[threadIdx.x] += threadIdx.x; }
    """
    source = Source("counting", "count_up", code=code)
    counts = gpu.asarray(np.ones(32, np.int32))
    source.launch("count_up", (1,), (32,), counts)
    np.testing.assert_array_equal(counts.get(), 1 + np.arange(32))


def test_ops_that_have_no_names_for_their_arrays_are_refused() -> None:
    class every(mg.Op):
        def forward(xp, *arrays):
            return arrays[0], None

        def backward(xp, dy, saved, needs):
            return (dy,)

    class taken(mg.Op):
        def forward(xp, y):
            return y, None

        def backward(xp, dy, saved, needs):
            return (dy,)

    with pytest.raises(TypeError, match="must have names"):
        mg.cuda_kernel(every, forward="", backward="")
    with pytest.raises(TypeError, match='may not call an array "y"'):
        mg.cuda_kernel(taken, forward="", backward="")
    with pytest.raises(TypeError, match="no op"):
        mg.cuda_kernel(int, forward="", backward="")  # type: ignore[type-var]
