"""The guide: its sources agree with the README and the code, and its pages work in a browser."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minigrad as mg
import minigrad.storage
from examples.guide.__main__ import main
from minigrad import nn
from tests.test_reading_path import path

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "examples/guide"
PAGES = sorted(GUIDE.glob("*.md"))
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def text_of(name: str) -> str:
    return (GUIDE / name).read_text(encoding="utf-8")


def test_the_reading_path_is_the_readmes() -> None:
    """Both have the same files in the same order. Each file has a question, and an answer."""
    text, _, answers = text_of("reading_path.md").partition("## Answers")
    assert re.findall(r"^\*\*\d+\. `([\w/.]+)`", text, re.M) == path()
    numbers = [str(n) for n in range(1, len(path()) + 1)]
    assert re.findall(r"\*Question (\d+): ", text) == numbers
    assert re.findall(r"^(\d+)\. ", answers, re.M) == numbers


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for named in re.findall(r"(?:minigrad|tinyalpaca|examples|tests)/[\w./-]*\w", text):
        assert (ROOT / named).exists(), named
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (GUIDE / target).exists(), target


def test_code_that_a_page_quotes_is_in_the_source() -> None:
    """Line breaks may differ, because the formatter treats both differently."""
    source = (ROOT / "minigrad/ops/layer_norm.py").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text_of("one_op.md"), re.S)
    assert blocks
    for block in blocks:
        assert "".join(block.split()) in "".join(source.split()), block


def test_what_pytorch_calls_otherwise_is_called_as_the_table_says(tmp_path: Path) -> None:
    table = text_of("engine.md").partition("## Coming from PyTorch")[2].partition("\n## ")[0]
    cells = [line.strip("| ").split(" | ")[1] for line in table.splitlines() if "| `" in line]
    codes = [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]
    assert len(codes) >= 10
    model = nn.Linear(3, 2, rng=mg.Generator(0))
    known = {"mg": mg, "nn": nn, "x": mg.ones((2, 3)), "model": model, "path": tmp_path / "weights"}
    known |= {"minigrad": minigrad, "save_safetensors": minigrad.storage.save_safetensors}
    for code in codes:
        if code == "examples/digits.py" or ("gpu" in code and not mg.gpu_available()):
            continue
        exec(code, known)
    assert (tmp_path / "weights").exists() and isinstance(known["rng"], mg.Generator)


def test_calls_that_a_page_shows_can_be_made() -> None:
    """Those of layers; the results are only made."""
    known = {"nn": nn, "x": mg.ones((2, 64)), "rng": mg.Generator(0)}
    calls = re.findall(r"`(nn\.\w+\([^`]*\))`", text_of("one_op.md"))
    assert calls
    for call in calls:
        eval(call, known)


def test_a_tied_parameter_is_saved_as_the_answer_says() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            self.table = nn.Embedding(5, 4, rng=mg.Generator(0))
            self.head = nn.Linear(4, 5, bias=False, rng=mg.Generator(0))
            self.head.weight = self.table.weight

    assert "11. Both names," in text_of("reading_path.md")
    assert list(Tied().state_dict()) == ["table.weight", "head.weight"]
    assert len(Tied().parameters()) == 1


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for needed in ("sphinx", "myst_parser", "furo", "latex2mathml"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    out = tmp_path_factory.mktemp("guide")
    # As a user types it: Sphinx's use of deprecated Python functions is not an error there.
    command = [sys.executable, "-m", "examples.guide", "build", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # a warning, such as a link to nowhere, is an error
    return out


def formulas_in(text: str) -> int:
    """The number of formulas on a page: $$...$$ and $...$."""
    blocks = len(re.findall(r"\$\$.*?\$\$", text, re.S))
    return blocks + len(re.findall(r"\$[^$]+\$", re.sub(r"\$\$.*?\$\$", "", text, flags=re.S)))


@pytest.mark.slow
def test_links_and_formulas_in_a_browser(built: Path) -> None:
    """Every formula is drawn, every link has a target, and the network is not used."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine to open the pages in")
    tools = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with tools.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        links: set[str] = set()
        for source in PAGES:
            name = "index" if source.stem == "README" else source.stem
            page.goto((built / f"{name}.html").as_uri())
            shown = page.inner_text("article")
            assert "$" not in shown and "\\frac" not in shown
            sizes = page.eval_on_selector_all(
                "math", "found => found.map(m => m.getBoundingClientRect().width)"
            )
            assert len(sizes) == formulas_in(source.read_text(encoding="utf-8"))
            assert all(width > 2 for width in sizes)
            links |= set(page.eval_on_selector_all("a[href]", "found => found.map(a => a.href)"))
        ids: dict[str, set[str]] = {}
        for link in sorted(link for link in links if link.startswith(built.as_uri())):
            address, _, anchor = link.partition("#")
            if address not in ids:
                page.goto(address)
                everything = page.eval_on_selector_all("[id]", "found => found.map(e => e.id)")
                ids[address] = set(everything)
            assert not anchor or anchor in ids[address], link
        assert len(links) > 10
        assert all(url.startswith(built.as_uri()) for url in asked)
        browser.close()


def test_without_its_packages_the_build_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "furo", None)
    assert main(["build", "--out", str(tmp_path)]) == 1
    assert 'pip install -e ".[docs]"' in capsys.readouterr().out
