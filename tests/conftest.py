"""What all tests share."""

import gc
import os

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run, whatever other tests drew."""
    return np.random.default_rng(20240607)


def pytest_collection_finish():
    """Thousands of tests were collected, and stay: no garbage collection looks at them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Nothing that a test measures or downloads is kept in the user's cache."""
    before = os.environ.get("TINYALPACA_CACHE")
    os.environ["TINYALPACA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["TINYALPACA_CACHE"]
    else:
        os.environ["TINYALPACA_CACHE"] = before
