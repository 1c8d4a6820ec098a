"""The page of `tinyalpaca play`: requests to its server, and the page in a real browser."""

import http.client
import json
import re
import shutil
import socket
import threading

import numpy as np
import pytest

from tests.tinyalpaca.tiny_models import tiny_model, tiny_tokenizer
from tinyalpaca.cli import main
from tinyalpaca.generation import Generator
from tinyalpaca.play import PlayServer
from tinyalpaca.play.session import Session, checked_settings
from tinyalpaca.runs import save_model
from tinyalpaca.training.metrics_file import METRICS, line_of

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def saved(folder, seed=0):
    tokenizer = tiny_tokenizer()
    save_model(folder, tiny_model(tokenizer.vocab_size, seed=seed), tokenizer)


@pytest.fixture
def folder(tmp_path):
    saved(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def server(folder):
    with PlayServer(Session(folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def request(server, path, body=None, method=None, host=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    headers = {} if host is None else {"Host": host}
    connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
    answer = connection.getresponse()
    found = answer.status, dict(answer.headers), answer.read().decode()
    connection.close()
    return found


def written(server, **asked):
    status, _, text = request(server, f"/{server.token}/write", json.dumps(asked))
    assert status == 200
    return [json.loads(line) for line in text.splitlines()]


def test_it_listens_on_loopback_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.socket.family is socket.AF_INET


def test_no_answer_says_which_python_runs_here(server):
    for path in ("/", f"/{server.token}/"):
        assert request(server, path)[1]["Server"].strip() == "tinyalpaca"


def test_a_prompt_that_others_would_wait_for_is_refused(server):
    (line,) = written(server, prompt="the cat " * 5000)
    assert re.match(
        "the prompt has .* tokens, and this page takes 4,096: shorten it", line["error"]
    )
    assert "attention" in written(server, prompt="the cat", max_new_tokens=2)[-1]


def test_a_request_that_does_not_come_to_its_end_is_given_up(server, monkeypatch):
    monkeypatch.setattr("tinyalpaca.play.server.Handler.timeout", 0.2)
    with socket.create_connection(server.server_address, timeout=60) as connection:
        head = f"POST /{server.token}/write HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n".encode())
        assert connection.recv(100) == b""


def test_a_fault_of_the_server_is_not_silent(server, monkeypatch, capsys):
    monkeypatch.setattr(server.session, "curves", lambda: 1 / 0)
    with pytest.raises(http.client.RemoteDisconnected):
        request(server, f"/{server.token}/curves")
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_who_does_not_know_the_token_is_refused(server):
    body = json.dumps({"prompt": "the cat"})
    for path in (
        "/",
        "/curves",
        "/write",
        "/wrong/",
        "/wrong/write",
        f"/{server.token[:-1]}/",
        "//",
    ):
        assert request(server, path)[0] == 403
        assert request(server, path, body)[0] == 403
    assert request(server, f"/{server.token}/", host="evil.example")[0] == 403
    assert request(server, f"/{server.token}/", host="")[0] == 403
    assert request(server, f"/{server.token}/")[0] == 200
    assert request(server, f"/{server.token}/../etc")[0] == 404
    assert request(server, f"/{server.token}/write", method="PUT")[0] == 501


def test_a_token_is_made_anew_for_each_server(server, folder):
    with PlayServer(Session(folder)) as other:
        assert other.token != server.token and len(other.token) >= 32


def test_the_page_needs_nothing_else_and_may_load_nothing(server):
    _, headers, page = request(server, f"/{server.token}/")
    for outside in ("http:", "https:", "src=", "href=", "@import", "url("):
        assert outside not in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"


def test_a_text_is_what_the_generator_writes(server, folder):
    parts = written(server, prompt="the cat", max_new_tokens=6, seed=3, temperature=0.9, top_k=5)
    generator = Generator.from_checkpoint(folder)
    expected = generator.generate("the cat", 6, temperature=0.9, top_k=5, seed=3)
    assert len(parts) == 8
    new = [part["token"] for part in parts[1:-1]]
    assert "".join(token["text"] for token in new if not token["part"]) == expected
    assert "".join(token["text"] for token in parts[0]["prompt"]) == "the cat"
    first, *others = parts[0]["prompt"]
    assert first["bits"] is None
    for token in others + new:
        [best] = [p for _, p, same in token["best"] if same] or [None]
        if best is not None:
            assert token["bits"] == pytest.approx(-np.log2(best), abs=1e-3)
    attention = parts[-1]["attention"]
    assert (attention["layers"], attention["heads"]) == (2, 3)
    assert len(attention["starts"]) == len(parts[0]["prompt"]) + 6


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": 3}, "the prompt must be a text"),
        ({"prompt": "a", "temperature": "hot"}, "temperature must be a number from 0 to 2"),
        ({"prompt": "a", "top_k": -1}, "top_k must be a number from 0 to 1000"),
        ({"prompt": "a", "max_new_tokens": 10**9}, "max_new_tokens must be"),
        ({"prompt": "a", "min_p": True}, "min_p must be"),
    ],
)
def test_what_makes_no_sense_is_said_on_the_page(server, asked, problem):
    assert problem in written(server, **asked)[-1]["error"]


def test_bodies_that_are_no_request(server):
    path = f"/{server.token}/write"
    assert "error" in request(server, path, "[1]")[2] and "error" in request(server, path, "{")[2]
    assert request(server, path, method="POST")[0] in (200, 413)


def test_filters_are_left_out_at_the_end_of_their_sliders():
    asked = {"top_k": 0, "top_p": 0, "min_p": 0.0, "temperature": 0, "max_new_tokens": 3.0}
    assert checked_settings(asked) == {"temperature": 0.0, "max_new_tokens": 3}


def test_better_weights_are_taken_as_they_come(server, folder):
    before = written(server, prompt="the cat", max_new_tokens=8, temperature=0)
    assert written(server, prompt="the cat", max_new_tokens=8, temperature=0) == before
    saved(folder, seed=1)
    assert written(server, prompt="the cat", max_new_tokens=8, temperature=0) != before


def test_the_curves_of_a_run_grow(server, folder):
    def curves():
        return json.loads(request(server, f"/{server.token}/curves")[2])

    assert curves() == {"step": 0, "chart": ""}
    for step in (10, 20):
        with open(folder / METRICS, "a", encoding="utf-8") as file:
            file.write(line_of({"kind": "step", "step": step, "epoch": 1, "loss": 5.0 - step / 10}))
        found = curves()
        assert found["step"] == step and found["chart"].startswith("<svg")
    with open(folder / METRICS, "a", encoding="utf-8") as file:
        file.write(line_of({"kind": "epoch", "step": 20, "epoch": 1, "val_loss": 2.5}))
    assert curves()["validation"] == 2.5


def test_the_command_says_where_the_page_is(folder, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(PlayServer, "serve_forever", lambda self: None)
    assert main(["play", "--checkpoint", str(folder)]) == 0
    [address] = opened
    assert address.startswith("http://127.0.0.1:") and address in capsys.readouterr().out
    assert main(["play", "--checkpoint", str(folder), "--no-browser"]) == 0 and len(opened) == 1


def test_the_command_refuses_what_is_no_model(tmp_path, capsys):
    assert main(["play", "--checkpoint", str(tmp_path / "none"), "--no-browser"]) == 1
    assert str(tmp_path / "none") in capsys.readouterr().err
    assert main(["play", "--port", "70000"]) == 1
    assert "--port must be" in capsys.readouterr().err


# In a real browser


@pytest.fixture
def page(server):
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine to open the page in")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed"
    ).sync_playwright()
    with playwright as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.problems = []
        page.asked = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda m: page.problems.append(m.text) if m.type == "error" else None)
        page.on("request", lambda request: page.asked.append(request.url))
        yield page
        browser.close()


def said(page, pattern):
    """Wait until the page's status matches a pattern."""
    from playwright.sync_api import expect

    expect(page.locator("#note")).to_have_text(re.compile(pattern), timeout=60_000)


def test_in_a_browser(server, folder, page, tmp_path):
    """A click, a stream, pointing, attention, sliders, curves; only this server is contacted."""
    losses = (line_of({"kind": "step", "step": s, "loss": 5 - s / 50}) for s in range(10, 110, 10))
    (folder / METRICS).write_text("".join(losses), encoding="utf-8")
    page.goto(server.address)
    page.fill("#prompt", "the cat sat ")
    page.evaluate("""() => { temperature.value = 0.8; max_new_tokens.value = 40;
        for (const s of [temperature, max_new_tokens]) s.dispatchEvent(new Event("input")); }""")
    page.click("#write")
    # The first token, while others arrive. It may be a part of a letter, which shows nothing.
    page.wait_for_selector("#text span:not(.prompt)", state="attached")
    said(page, r"^40 tokens")
    assert page.inner_text("#text").startswith("the cat sat ")
    spans = page.locator("#text span")
    count = spans.count()
    colour = "(span) => getComputedStyle(span).backgroundColor"
    surprises = {spans.nth(i).evaluate(colour) for i in range(count)}
    assert len(surprises) > 5
    # A token may be a control character, which has no width to point at.
    *_, other, last = (i for i in range(count) if spans.nth(i).is_visible())
    spans.nth(other).hover()
    assert "% likely" in page.inner_text("#detail") and page.locator("#detail tr").count() == 8
    spans.nth(last).click()
    assert page.locator("#text span.chosen").count() == 1
    all_heads = [spans.nth(i).evaluate(colour) for i in range(count)]
    page.select_option("#layer", "1")
    page.select_option("#head", "2")
    assert "looked at" in spans.nth(last - 1).get_attribute("title")
    assert [spans.nth(i).evaluate(colour) for i in range(count)] != all_heads
    page.wait_for_selector("#curves svg")
    assert "step 100" in page.inner_text("#step")
    page.screenshot(path=tmp_path / "play.png")
    page.keyboard.press("Escape")
    assert page.locator("#text span.chosen").count() == 0
    assert page.asked and all(url.startswith(server.address) for url in page.asked)
    assert page.problems == []


def test_a_text_can_be_stopped_and_begun_again(server, page):
    page.goto(server.address)
    page.fill("#prompt", "")
    page.click("#write")
    said(page, "the prompt is empty")
    page.fill("#prompt", "the hat")
    page.evaluate("max_new_tokens.value = 500")
    page.click("#write")
    page.wait_for_selector("#text span:not(.prompt)", state="attached")
    page.evaluate("stopping.abort()")
    said(page, "stopped|tokens")
    page.evaluate("max_new_tokens.value = 5")
    page.click("#write")
    said(page, "^5 tokens")
    assert page.problems == []
