"""What all tests share."""

import gc
import os
import sys

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run, whatever other tests drew."""
    return np.random.default_rng(20240607)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Thousands of tests are collected, and stay: no garbage collection looks at them, then or
    later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Nothing that a test measures or downloads is kept in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYALPACA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Where Python may write no bytecode beside the sources, the processes that tests start share
    a folder for it: else each of them would compile both packages again."""
    with pytest.MonkeyPatch.context() as patch:
        if sys.dont_write_bytecode:
            patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
            patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("bytecode")))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """No test survives a failure of power: none waits until the disk has what was written. Whether
    the program asks for that, tests see by putting something in the place of `os.fsync`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses what is no file, too
        yield


@pytest.fixture(scope="session", autouse=True)
def no_pictures():
    """A picture of the losses takes longer than a run: tests about pictures ask for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tinyalpaca.training.hooks.curve.plots_available", lambda: False)
        yield
