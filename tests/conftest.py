"""Fixtures for all tests."""

import gc
import os
import sys

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """A random generator that gives the same numbers in every run, whatever other tests draw."""
    return np.random.default_rng(20240607)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Exclude the thousands of collected tests from garbage collection, to make it faster."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Use a temporary cache, so that nothing that a test measures gets into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYALPACA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Give the processes that tests start a common folder for bytecode, if Python writes none.

    Otherwise each of them would compile both packages again.
    """
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
    """Draw no pictures of losses, which take longer than a run, unless a test asks for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tinyalpaca.training.hooks.curve.plots_available", lambda: False)
        yield
