"""Devices. The tests of the CUDA kernels cover what needs a GPU."""

import importlib
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Device, DeviceError, Tensor, nn
from minigrad import device as device_module


@pytest.fixture
def without_cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """As on a machine where CuPy is not installed."""
    original = importlib.import_module

    def import_module(name: str, package: str | None = None) -> Any:
        if name == "cupy":
            raise ModuleNotFoundError("No module named 'cupy'")
        return original(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    device_module.cupy.cache_clear()
    yield
    device_module.cupy.cache_clear()


def test_names() -> None:
    assert Device("cpu") == Device(Device("cpu")) and Device("cpu") != Device("gpu")
    assert Device("cuda") == Device("gpu") == Device("gpu:0")
    assert Device("cuda:1") == Device("gpu:1") == Device("gpu", 1)
    assert str(Device("cuda:2")) == "gpu:2" and str(Device("gpu")) == "gpu"
    assert len({Device("cpu"), Device("cpu"), Device("gpu")}) == 2


@pytest.mark.parametrize("name", ["tpu", "", "gpu:", "gpu:x", "gpu:-1", "cpu:1", "GPU 0", "mps"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(DeviceError, match=rf"unknown device '{name}'"):
        Device(name)


@pytest.mark.parametrize(
    "use",
    [
        lambda: Tensor([1.0], device="gpu"),
        lambda: mg.ones(3).to("cuda"),
        lambda: mg.zeros(3, device="gpu:1"),
        lambda: nn.Linear(2, 2, rng=mg.Generator(0)).to("gpu"),
        lambda: mg.Generator(0, device="gpu").normal(3),
        lambda: Device("gpu").xp,
    ],
)
def test_without_cupy_the_error_says_what_to_install(use: Any, without_cupy: None) -> None:
    with pytest.raises(DeviceError) as error:
        use()
    message = str(error.value)
    assert 'pip install -e ".[cuda13]"' in message and 'pip install -e ".[cuda12]"' in message
    assert "\n" not in message
    assert 'use the device "cpu"' in message
    assert not mg.gpu_available()


def test_cupy_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Runtime:
        @staticmethod
        def getDeviceCount() -> int:
            raise RuntimeError("cudaErrorNoDevice:\n  no device")

    class Fake:
        __version__ = "13.0"
        cuda = type("cuda", (), {"runtime": Runtime})

    monkeypatch.setattr(importlib, "import_module", lambda name: Fake)
    device_module.cupy.cache_clear()
    try:
        with pytest.raises(DeviceError, match=r"no usable GPU \(cudaErrorNoDevice: no d") as error:
            Device("gpu").xp  # noqa: B018
        assert "\n" not in str(error.value)
        monkeypatch.setattr(Runtime, "getDeviceCount", staticmethod(lambda: 0))
        with pytest.raises(DeviceError, match="there is no GPU"):
            Device("gpu").xp  # noqa: B018
    finally:
        device_module.cupy.cache_clear()


def test_a_gpu_of_another_maker_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        __version__ = "14.2"
        cuda = type("cuda", (), {"runtime": type("runtime", (), {"is_hip": True})})

    monkeypatch.setattr(importlib, "import_module", lambda name: Fake)
    device_module.cupy.cache_clear()
    try:
        with pytest.raises(DeviceError, match=r"^CuPy 14\.2 is built for AMD's ROCm, .*\"cpu\"$"):
            mg.zeros(3, device="gpu")
        assert not mg.gpu_available()
    finally:
        device_module.cupy.cache_clear()


def test_the_cpu() -> None:
    x = mg.ones(3, requires_grad=True)
    assert x.to("cpu") is x and Device("cpu").xp is np
    assert Device("cpu").asarray(x.data) is x.data
    assert device_module.namespace_of(x.data) is np


def test_to_device_is_differentiable() -> None:
    x = mg.ones(3, requires_grad=True)
    y = mg.to_device(x, Device("cpu")) * 2
    assert mg.grad(y.sum(), x).tolist() == [2, 2, 2]


def test_default_device_is_reset() -> None:
    with pytest.raises(KeyError), mg.default_device("cpu"):
        assert str(mg.zeros(1).device) == "cpu"
        raise KeyError
    with pytest.raises(DeviceError, match="unknown device"), mg.default_device("abacus"):
        pass
