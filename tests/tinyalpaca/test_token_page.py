"""The page of a text, in a real browser if one is installed."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from tests.tinyalpaca.tiny_models import tiny_generator
from tinyalpaca.generation import token_page as module
from tinyalpaca.generation.reading import read_back
from tinyalpaca.generation.sampling import log_probabilities
from tinyalpaca.generation.token_page import packed_attention, token_page

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions"),
]
PROMPT = "the cat <b>&</b> "


@pytest.fixture(scope="module")
def written():
    generator = tiny_generator()
    tokens = generator.tokenizer.encode(PROMPT) + generator.tokenizer.encode("sat\n🦙</script>x")
    length = len(generator.tokenizer.encode(PROMPT))
    return generator, tokens, token_page(generator, tokens, length)


def data_of(page):
    [script] = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page)
    return json.loads(script)


def test_the_page_needs_nothing_else(written):
    """It has no address and no other file, and tags in the text do not become HTML."""
    _, tokens, page = written
    assert not re.search(r"https?:|src=|href=|@import|url\(", page)
    assert page.count("</script>") == 2
    assert "".join(token["text"] for token in data_of(page)["tokens"] if not token["part"]) == (
        PROMPT + "sat\n🦙</script>x"
    )
    assert len(data_of(page)["tokens"]) == len(tokens)


def test_surprise_and_alternatives_are_the_models(written):
    generator, tokens, page = written
    for place, token in enumerate(data_of(page)["tokens"][:8]):
        if place == 0:
            assert "bits" not in token
            continue
        ids = np.array([tokens[:place]])
        logprobs = log_probabilities(
            generator.model(ids).numpy()[0, -1, : generator.tokenizer.vocab_size]
        )
        assert token["bits"] == pytest.approx(-logprobs[tokens[place]] / np.log(2), abs=1e-3)
        probabilities = [probability for _, probability, _ in token["best"]]
        assert probabilities == pytest.approx(np.sort(np.exp(logprobs))[:-6:-1], abs=1e-4)


def test_attention_is_packed_and_averaged_when_there_is_too_much(written, monkeypatch):
    generator, tokens, _ = written
    readings = list(read_back(generator, tokens))
    packed, layers, heads = packed_attention(readings)
    assert (layers, heads) == (2, 3)
    assert len(packed) == sum(6 * (r.place - r.start) for r in readings)
    first = np.frombuffer(packed, np.uint8)[6 : 6 + 12].reshape(2, 3, 2)  # of the second reading
    np.testing.assert_allclose((first / 255.0) ** 2, readings[1].attention, atol=0.004)
    total = len(packed)
    monkeypatch.setattr(module, "MAX_ATTENTION", total - 1)
    assert [len(packed_attention(readings)[0]), *packed_attention(readings)[1:]] == [
        total // 3,
        2,
        1,
    ]
    monkeypatch.setattr(module, "MAX_ATTENTION", total // 6)
    assert [len(packed_attention(readings)[0]), *packed_attention(readings)[1:]] == [
        total // 6,
        1,
        1,
    ]


def test_a_text_of_one_token_has_a_page():
    page = token_page(tiny_generator(), [3], 1)
    assert len(data_of(page)["tokens"]) == 1


def in_browser(tmp_path, page, actions, fragment=""):
    """The page's content in Chromium, after a script has used the page."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine to open the page in")
    file = tmp_path / "page.html"
    report = """<pre id="report"></pre><script>
        const fail = e => document.getElementById("report").textContent = "ERROR " + e;
        try { document.getElementById("report").textContent = JSON.stringify((() => { %s })()); }
        catch (e) { fail(e); }
    </script></body>"""
    file.write_text(page.replace("</body>", report % actions), encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    result = subprocess.run(
        [*command, f"file://{file}{fragment}"], capture_output=True, timeout=120, check=True
    )
    [found] = re.findall(r'<pre id="report">(.*?)</pre>', result.stdout.decode(), re.S)
    assert not found.startswith("ERROR"), found
    return json.loads(html.unescape(found))


def test_in_a_browser(tmp_path, written):
    """Colours, pointing, clicking, menus and Escape, with the browser's events."""
    generator, tokens, page = written
    found = in_browser(
        tmp_path,
        page,
        """
        const seen = {}, token = i => document.querySelectorAll("#text span")[i];
        const event = (i, kind) => token(i).dispatchEvent(new MouseEvent(kind, {bubbles: true}));
        const colour = i => getComputedStyle(token(i)).backgroundColor;  // rgba(r, g, b, strength)
        const strength = i => parseFloat(colour(i).split(",")[3]);
        const all = () => [...document.querySelectorAll("#text span")].map((_, i) => strength(i));
        seen.text = document.getElementById("text").textContent;
        seen.prompts = document.querySelectorAll("#text span.prompt").length;
        seen.surprise = all();
        event(5, "mouseenter");
        seen.title = document.querySelector("aside h2").textContent;
        seen.names = [...document.querySelectorAll("aside td.name")].map(td => td.textContent);
        event(9, "click");
        seen.chosen = [...document.querySelectorAll("#text span")].findIndex(
            span => span.classList.contains("chosen"));
        event(5, "mouseenter");
        seen.titleStays = document.querySelector("aside h2").textContent;
        seen.look = all();
        seen.tip = token(3).title;
        document.getElementById("layer").value = "1";
        document.getElementById("head").value = "2";
        document.getElementById("head").dispatchEvent(new Event("change"));
        seen.oneHead = all();
        document.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"}));
        seen.after = all();
        return seen;
        """,
    )
    shown = data_of(page)["tokens"]
    readings = {reading.place: reading for reading in read_back(generator, tokens)}
    assert found["text"] == "".join(token["text"] for token in shown)
    assert found["prompts"] == len(generator.tokenizer.encode(PROMPT))
    expected = [0, *(min(1, token["bits"] / 8) * 0.8 for token in shown[1:])]
    assert found["surprise"] == pytest.approx(expected, abs=0.01)
    assert found["title"] == shown[5]["name"]
    assert found["names"] == [name for name, _, _ in shown[5]["best"]]
    assert found["chosen"] == 9
    assert found["titleStays"] == shown[9]["name"]
    for seen, weights in (
        (found["look"], readings[9].attention.mean(axis=(0, 1))),
        (found["oneHead"], readings[9].attention[1, 2]),
    ):
        assert seen[:9] == pytest.approx(0.85 * weights / weights.max(), abs=0.02)
        assert not any(seen[9:])
    assert found["tip"] == f"looked at: {100 * readings[9].attention.mean(axis=(0, 1))[3]:.1f}%"
    assert found["after"] == found["surprise"]


def test_an_address_with_a_number_opens_that_token(tmp_path, written):
    _, tokens, page = written
    last = len(tokens) - 1
    found = in_browser(
        tmp_path,
        page,
        """return [...document.querySelectorAll("#text span")].map(
            span => [span.classList.contains("chosen"), span.title]);""",
        f"#{last}",
    )
    assert [chosen for chosen, _ in found] == [False] * last + [True]
    assert found[0][1] == "beyond the context"
    assert found[last - 1][1].startswith("looked at")
