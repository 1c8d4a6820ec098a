"""Libraries that use the Array API standard accept tensors: einops, SciPy and scikit-learn."""

import subprocess
import sys

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor
from tests.minigrad.compare import assert_close


def test_einops_rearranges_tensors_and_keeps_the_graph() -> None:
    einops = pytest.importorskip("einops.array_api")
    x = Tensor(np.arange(24.0).reshape(2, 3, 4), requires_grad=True)
    array = x.numpy()
    y = einops.rearrange(x, "b c (h w) -> b h (c w)", h=2)
    assert_close(y.numpy(), array.reshape(2, 3, 2, 2).swapaxes(1, 2).reshape(2, 2, 6), 0)
    assert mg.grad((y * y).sum(), x).tolist() == (2 * array).tolist()
    assert_close(einops.reduce(x, "b c w -> b c", "mean").numpy(), array.mean(-1), 1e-15)
    assert einops.repeat(x, "b c w -> b c w k", k=2).shape == (2, 3, 4, 2)
    packed, _ = einops.pack([x, x], "b * w")
    assert packed.shape == (2, 6, 4) and packed.requires_grad


# Both enable the standard when they are imported, so each runs in its own Python process.
SCIPY = """
import numpy as np, minigrad as mg
from scipy import special, stats
x = np.linspace(0.1, 2, 12).reshape(3, 4)
for function in (special.logsumexp, special.softmax, stats.zscore, stats.skew, stats.gmean):
    y = function(mg.Tensor(x), axis=1)
    assert isinstance(y, mg.Tensor), function
    np.testing.assert_allclose(y.numpy(), function(x, axis=1), 1e-12)
"""
SCIKIT_LEARN = """
import numpy as np, minigrad as mg
from sklearn import config_context, metrics, preprocessing
x = np.random.default_rng(0).standard_normal((20, 3))
with config_context(array_api_dispatch=True):
    for scaler in (preprocessing.StandardScaler, preprocessing.MinMaxScaler):
        y = scaler().fit_transform(mg.Tensor(x))
        assert isinstance(y, mg.Tensor)
        np.testing.assert_allclose(y.numpy(), scaler().fit_transform(x), 1e-12)
    a, b = mg.Tensor(x[:, 0]), mg.Tensor(x[:, 1])
    error = metrics.mean_squared_error(a, b)
    np.testing.assert_allclose(error, np.mean((x[:, 0] - x[:, 1]) ** 2))
"""


@pytest.mark.parametrize(("library", "program"), [("scipy", SCIPY), ("sklearn", SCIKIT_LEARN)])
def test_libraries_compute_with_tensors(
    library: str, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(library)
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
