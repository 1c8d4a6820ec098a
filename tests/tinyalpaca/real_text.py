"""The real Tiny Shakespeare, for tests that are skipped if it cannot be found."""

import pytest

from tinyalpaca.data import load_corpus


def tiny_shakespeare() -> str:
    """The text that `load_corpus` finds without the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYALPACA_OFFLINE", "1")
        try:
            return load_corpus("tinyshakespeare").text
        except FileNotFoundError as error:
            pytest.skip(f"no Tiny Shakespeare on this machine: {error}")
