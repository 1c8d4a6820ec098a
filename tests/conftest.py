"""What all tests share."""

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run, whatever other tests drew."""
    return np.random.default_rng(20240607)
