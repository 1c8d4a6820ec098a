"""The report of a run: complete, correct, and displayed in a real browser."""

import re
import shutil
import struct
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from minigrad import Generator, no_grad
from tests.tinyalpaca.runs import MODEL, train, write_text
from tinyalpaca.config import ModelConfig
from tinyalpaca.generation.attention import attention_maps
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.training.hooks.charts import Line, heat_map, line_chart, png
from tinyalpaca.training.metrics_file import read_metrics

CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with a prompt that looks like HTML."""
    folder = tmp_path_factory.mktemp("run")
    settings = {"epoch_sample_tokens": 5, "sample_tokens": 20, "prompt": "<b>the & king</b>"}
    train(folder / "run", write_text(folder), epochs=3, eval_stride=4, **settings)
    return folder / "run"


class Reader(HTMLParser):
    """Collects text, and fails if elements are not closed in order."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, page):
        super().__init__()
        self.open, self.text, self.seen = [], "", []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_it_holds_what_happened_and_needs_nothing_else(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    reader = Reader(page)
    records = [r for r in read_metrics(run / "metrics.jsonl") if r["kind"] == "epoch"]
    assert f"{records[-1]['val_nats_per_char']:.4f}" in reader.text
    for record in records:
        assert record["sample"] in reader.text  # escaped: "<b>" is text, not an element
    assert not any(tag == "b" and "class" in attributes for tag, attributes in reader.seen)
    tags = [tag for tag, _ in reader.seen]
    assert tags.count("svg") == 6 and "script" not in tags
    images = [attributes["src"] for tag, attributes in reader.seen if tag == "img"]
    assert len(images) == MODEL["num_layers"] * MODEL["num_heads"]
    assert all(source.startswith("data:image/png;base64,") for source in images)
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|url\(|@import|<link", page)
    for name in ("learning_rate", "d_model", "numpy"):
        assert name in reader.text


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to look at the page with")
def test_a_browser_draws_it(run, tmp_path):
    picture = tmp_path / "report.png"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--hide-scrollbars"]
    command += ["--window-size=1000,2600", f"--screenshot={picture}"]
    page = (run / "report.html").as_uri()
    subprocess.run([*command, page], check=True, capture_output=True, timeout=120)
    rows = read_png(picture)
    assert rows.shape[:2] == (2600, 1000)
    colours = {tuple(colour) for colour in rows.reshape(-1, 3)[::7].tolist()}
    assert (0x2B, 0x6C, 0xB0) in colours and (0xC0, 0x56, 0x21) in colours  # the chart's lines
    assert (68, 1, 84) in colours  # attention maps: masked positions


def read_png(path: Path) -> np.ndarray:
    """The pixels (rows, columns, 3) of a PNG with 8 bits a channel, not interlaced."""
    data, at, body = path.read_bytes(), 8, b""
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", content)
            assert depth == 8 and colour in (2, 6) and not interlaced
            channels = 3 if colour == 2 else 4
        body += content if kind == b"IDAT" else b""
        at += 12 + size
    raw = np.frombuffer(zlib.decompress(body), np.uint8).reshape(height, 1 + width * channels)
    pixels = np.zeros((height + 1, (width + 1) * channels), np.int32)  # a border of zeros
    for y in range(height):
        kind, line = raw[y, 0], raw[y, 1:].astype(np.int32)
        above = pixels[y, channels:]
        if kind == 1:
            line = line.reshape(width, channels).cumsum(axis=0).reshape(-1)
        elif kind == 2:
            line = line + above
        elif kind > 2:
            line = unfiltered(kind, line, pixels[y], channels)
        pixels[y + 1, channels:] = line % 256
    return pixels[1:, channels:].reshape(height, width, channels)[..., :3]


def unfiltered(kind: int, line: np.ndarray, above: np.ndarray, channels: int) -> np.ndarray:
    """PNG's filters 3 (average) and 4 (Paeth), which use the byte to the left, so byte by byte."""
    line, above, left = line.tolist(), above.tolist(), [0] * channels
    for n, value in enumerate(line):
        a, b, c = left[n], above[n + channels], above[n]
        if kind == 3:
            guess = (a + b) // 2
        else:
            distances = [abs(b - c), abs(a - c), abs(a + b - 2 * c)]
            guess = (a, b, c)[distances.index(min(distances))]
        left.append((value + guess) % 256)
    return np.array(left[channels:])


def test_a_png_of_ours_is_one(rng, tmp_path):
    pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    (tmp_path / "small.png").write_bytes(png(pixels))
    assert np.array_equal(read_png(tmp_path / "small.png"), pixels)
    assert heat_map(np.eye(3)).startswith("data:image/png;base64,iVBOR")


@pytest.mark.parametrize("logarithmic", [False, True])
def test_charts_take_anything(logarithmic):
    assert "Nothing has been recorded" in line_chart([], "y")
    awkward = [
        [(1, 5.0)],
        [(1, 2.0), (2, 2.0)],
        [(1, float("nan")), (2, float("inf")), (3, 1e-9), (4, 1e9)],
        [(float(x), 1.0 + x) for x in range(5000)],
    ]
    for points in awkward:
        chart = line_chart([Line("a <line>", points, dots=True)], "y", logarithmic=logarithmic)
        Reader(chart)
        numbers = re.findall(
            r"-?\d+\.\d+", re.sub(r"<text.*?</text>|<title>.*?</title>", "", chart)
        )
        assert all(-1 <= float(number) <= 561 for number in numbers)
        assert "nan" not in chart and "&lt;line&gt;" in chart


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pre_norm": True, "norm": "rms", "positions": "rotary", "bias": False},
        {"positions": "rotary", "rope_base": 50.0, "num_kv_heads": 1, "head_size": 6},
    ],
)
def test_attention_maps_are_the_models_own(rng, options):
    """The values weighted by the map are the input of the output projection."""
    config = ModelConfig(**{**MODEL, "num_layers": 2, "vocab_size": 13, **options})
    model = TinyAlpaca(config, Generator(3)).astype(np.float64).eval()
    ids = rng.integers(0, 13, 9)
    maps = attention_maps(model, ids)
    assert maps.shape == (2, 2, 9, 9)
    np.testing.assert_allclose(maps.sum(axis=-1), 1, rtol=1e-12)
    assert (maps[..., np.triu_indices(9, 1)[0], np.triu_indices(9, 1)[1]] == 0).all()
    with no_grad():
        layer = model.decoder_layers[0]
        x = model.embedding(ids[None])
        x = layer.layer_norm1(x) if layer.pre_norm else x
        qkv = layer.multi_head_attention.qkv_proj(x).numpy()[0]  # (9, (2 + 2K)·D)
        size, kv_heads = config.size_of_head, config.kv_heads
        values = qkv[:, (2 + kv_heads) * size :].reshape(9, kv_heads, size)
        values = values.repeat(2 // kv_heads, axis=1)
        mixed = np.einsum("hts,shd->thd", maps[0], values).reshape(1, 9, 2 * size)
        out = layer.multi_head_attention(x).numpy()
        projection = layer.multi_head_attention.out_proj
        bias = 0 if projection.bias is None else projection.bias.numpy()
        np.testing.assert_allclose(mixed @ projection.weight.numpy().T + bias, out, rtol=1e-9)
