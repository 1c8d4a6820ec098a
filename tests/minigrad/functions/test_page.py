"""The page that lists all functions is up to date."""

import pytest

from tests.minigrad.functions.page import PAGE, names_on_the_page, page, torchs_names


def test_the_page_is_up_to_date() -> None:
    again = page(names_on_the_page())
    assert PAGE.read_text("utf-8") == again, "run python -m tests.minigrad.functions.page"


def test_pytorch_has_what_the_page_says() -> None:
    pytest.importorskip("torch")
    assert names_on_the_page() == torchs_names()
