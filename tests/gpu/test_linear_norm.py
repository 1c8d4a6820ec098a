"""A linear layer, a residual sum and layer norm in one launch, through the CPU shim."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.kernels.cuda import KERNELS, gemm
from minigrad.ops import TEXTBOOK
from minigrad.precision import PRECISIONS as FACTORS
from tests.gpu.twins import PRECISIONS, ROUNDED_TOLERANCE, SCHEDULES, check_twin
from tinyalpaca.config import ModelConfig
from tinyalpaca.model import TinyAlpaca

# Rows, inputs, channels: around tiles of 64 rows and of 64 channels, and larger ones.
SIZES = [(1, 1, 1), (63, 16, 33), (64, 64, 64), (65, 70, 64), (130, 33, 31), (9, 5, 65), (0, 4, 8)]


def arrays_of(rng: np.random.Generator, rows: int, inputs: int, channels: int) -> list[Any]:
    shapes = ((rows, inputs), (channels, inputs), (channels,), (rows, channels), *[(channels,)] * 2)
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_it_is_the_textbooks(gpu: Any, rng: np.random.Generator, sizes: Any, dtype: Any) -> None:
    check_twin(gpu, "linear_norm", arrays_of(rng, *sizes), dtype, eps=1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("factors", FACTORS)
def test_it_has_the_bits_of_two_launches(
    gpu: Any, rng: np.random.Generator, factors: str, schedule: int
) -> None:
    gpu.engine.schedule = schedule
    x, w, b, r, g, s = (gpu.asarray(a.astype("f4")) for a in arrays_of(rng, 130, 70, 48))
    with gemm.precision(factors):
        y, saved = KERNELS[TEXTBOOK["linear_norm"]].forward(x, w, b, r, g, s, eps=1e-5)
        assert gpu.counts["launches"] == 1
        inner, _ = KERNELS[TEXTBOOK["linear"]].forward(x, w, b)
        wanted, wanted_saved = KERNELS[TEXTBOOK["add_layer_norm"]].forward(inner, r, g, s, eps=1e-5)
    np.testing.assert_array_equal(y.get(), wanted.get())
    for ours, theirs in zip(saved[1][:2], wanted_saved[:2], strict=True):
        np.testing.assert_array_equal(ours.get(), theirs.get())


@pytest.mark.parametrize("factors", ["tf32", "bf16"])
def test_in_fewer_bits_and_with_either_library(
    gpu: Any, rng: np.random.Generator, factors: str, each_library: str
) -> None:
    with gemm.precision(factors):
        tolerance = 4 * ROUNDED_TOLERANCE[factors]  # the norm divides by a small sum's size
        check_twin(
            gpu, "linear_norm", arrays_of(rng, 70, 33, 20), np.float32, tolerance=tolerance, eps=0.1
        )


@pytest.mark.parametrize("missing", [(2,), (4, 5), (2, 4, 5)])
def test_without_biases_and_in_part(gpu: Any, rng: np.random.Generator, missing: Any) -> None:
    arrays = arrays_of(rng, 9, 5, 7)
    for position in missing:
        arrays[position] = None
    given = [a is not None for a in arrays]
    for wanted in ([True] * 6, [True, False] * 3, [False, True] * 3, [False] * 3 + [True] * 3):
        needs = tuple(a and b for a, b in zip(given, wanted, strict=True))
        check_twin(gpu, "linear_norm", arrays, np.float64, needs=needs, eps=1e-5)


def test_shapes_that_do_not_fit(gpu: Any) -> None:
    x, w, r = (
        mg.zeros((2, 3), device="gpu"),
        mg.zeros((4, 3), device="gpu"),
        mg.zeros((2, 4), device="gpu"),
    )
    for arguments in ((x, w, None, x), (r, w, None, r), (x, w, mg.zeros(3, device="gpu"), r)):
        with pytest.raises(mg.ShapeError, match="linear_norm"):
            nn.functional.linear_norm(*arguments, None, None)


def test_a_layer_that_was_changed_is_left_as_it_is(gpu: Any) -> None:
    """One op replaces several modules, but not modules that a user has put in their place."""
    config = ModelConfig(
        vocab_size=11, d_model=8, num_heads=2, d_ff=16, num_layers=1, max_seq_len=9
    )
    ids = np.arange(8).reshape(2, 4)

    def build(device: str) -> TinyAlpaca:
        model = TinyAlpaca(config, mg.Generator(0)).eval()
        model.to(device)
        return model

    class Doubled(nn.Linear):
        def forward(self, x: Any, activation: str | None = None) -> Any:
            return super().forward(x, activation) * 2.0

    def other_type(layer: Any) -> None:
        layer.ffn.fc2.__class__ = Doubled

    def other_method(layer: Any) -> None:
        original = layer.multi_head_attention.forward
        layer.multi_head_attention.forward = lambda x: original(x) * 3.0

    def nothing(layer: Any) -> None:
        pass

    logits = []
    for change, launches in ((nothing, 2), (other_type, 0), (other_method, 0)):
        found = []
        for device in ("cpu", "gpu"):
            model = build(device)
            change(model.decoder_layers[0])
            gpu.counts.clear()
            found.append(model(mg.Tensor(ids, device=device)).numpy())
        assert gpu.counts["linear_norm_fma"] == launches
        np.testing.assert_allclose(found[1], found[0], atol=1e-4)
        logits.append(found[0])
    assert not np.allclose(logits[0], logits[1]) and not np.allclose(logits[0], logits[2])
