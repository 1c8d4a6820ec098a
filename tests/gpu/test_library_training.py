"""Training on a GPU, with each library for matmuls and in each precision, one graph per step."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigrad.kernels.cuda import gemm
from tests.tinyalpaca.runs import results, train, write_text

SETTINGS: dict[str, Any] = {"batch_size": 4, "max_steps": 20, "log_every": 5}
# Tolerances for operands rounded to 10 or 7 bits, over some 20 steps of AdamW.
TOLERANCE = {"fp32": 2e-5, "tf32": 2e-3, "bf16": 1.6e-2}


@pytest.mark.slow
@pytest.mark.parametrize("precision", TOLERANCE)
def test_the_same_losses(gpu: Any, each_library: str, tmp_path: Path, precision: str) -> None:
    text = write_text(tmp_path)
    reference = train(tmp_path / "cpu", text, **SETTINGS)
    with gemm.library(each_library):
        ours = train(tmp_path / "gpu", text, device="gpu", precision=precision, **SETTINGS)
    assert ours.steps.launched.graphs >= 1
    kernel = "fma" if precision == "fp32" else precision
    with_cublaslt = each_library == "cublaslt"
    assert bool(gpu.counts["cublasLtMatmul"]) is with_cublaslt
    assert bool(gpu.counts[f"gemm_{kernel}"]) is not with_cublaslt
    assert bool(gpu.counts["to_bf16"]) is (with_cublaslt and precision == "bf16")
    losses = [[loss for _, loss in t.metrics.losses] for t in (ours, reference)]
    np.testing.assert_allclose(*losses, rtol=TOLERANCE[precision])
    np.testing.assert_allclose(results(ours), results(reference), rtol=10 * TOLERANCE[precision])
    if precision != "fp32":
        assert not np.allclose(*losses, rtol=TOLERANCE["fp32"])
