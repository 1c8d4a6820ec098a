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
def surroundings(tmp_path_factory):
    """Set what all tests need; in one fixture, because each fixture costs time in every test."""
    with pytest.MonkeyPatch.context() as patch:
        # A temporary cache, so that nothing that a test measures gets into the user's.
        patch.setenv("TINYALPACA_CACHE", str(tmp_path_factory.mktemp("cache")))
        # A common folder for bytecode for the processes that tests start, if Python writes none
        # beside the sources. Otherwise each of them would compile both packages again.
        if sys.dont_write_bytecode:
            patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
            patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("bytecode")))
        # No waiting for the disk: it would only help in a power failure. Tests that are about
        # `fsync` replace it themselves. `fstat` raises the same error for what is not a file.
        patch.setattr(os, "fsync", os.fstat)
        # No pictures of losses, which take longer than a run, unless a test asks for them.
        patch.setattr("tinyalpaca.training.hooks.curve.plots_available", lambda: False)
        yield
