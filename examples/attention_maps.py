"""What attention learns: a tiny transformer reads palindromes and learns where their mirror is.

python examples/attention_maps.py [--quick]      (with matplotlib, also runs/attention.png)

Each text is a random word and then the word backwards, such as "phmbbmhp". The first half cannot be
predicted. The second half can, from the right position in the first, which the model has to learn.
The attention of its best head is drawn: a row for each letter, dark where the weights are large.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import minigrad as mg
from minigrad import optim
from tinyalpaca import ModelConfig, TinyAlpaca
from tinyalpaca.generation.attention import attention_maps

LETTERS = "abcdefghijklmnop"
SHADES = " .:-=+*#%@"


def texts(rng: np.random.Generator, count: int, length: int) -> np.ndarray:
    """(count, 2·length) ids of palindromes."""
    words = rng.integers(0, len(LETTERS), (count, length))
    return np.concatenate([words, words[:, ::-1]], axis=1)


def train(model: TinyAlpaca, steps: int, length: int) -> float:
    rng = np.random.default_rng(0)
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    schedule = optim.WarmupCosineLR(optimizer, warmup_steps=steps // 20, total_steps=steps)
    for step in range(1, steps + 1):
        ids = texts(rng, 32, length)
        optimizer.zero_grad()
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % (steps // 5) == 0:
            print(f"step {step:4d}  loss {loss.item():.3f}")
    return loss.item()


def as_text(name: str, word: str, weights: np.ndarray) -> str:
    """One head: a row for each letter, dark where the weights are large."""
    rows = [f"{name}\n    {' '.join(word)}"]
    for letter, row in zip(word, weights, strict=True):
        rows.append(f"  {letter} {' '.join(SHADES[min(9, int(10 * w))] for w in row)}")
    return "\n".join(rows)


def save(maps: np.ndarray, word: str, path: Path) -> None:
    """All heads as one picture."""
    from matplotlib.figure import Figure

    layers, heads = maps.shape[:2]
    figure = Figure(figsize=(3 * heads, 3 * layers), layout="constrained")
    for place, axes in enumerate(figure.subplots(layers, heads).flat):
        axes.imshow(maps[place // heads, place % heads], cmap="magma", vmin=0, vmax=1)
        axes.set_title(f"layer {place // heads + 1}, head {place % heads + 1}")
        axes.set_xticks(range(len(word)), list(word))
        axes.set_yticks(range(len(word)), list(word))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main(steps: int = 300, length: int = 8, picture: Path | None = None) -> float:
    """Train and draw; returns the share of the best head's attention at the mirror."""
    sizes = {"d_model": 48, "d_ff": 96, "num_heads": 2, "num_layers": 2}
    config = ModelConfig(vocab_size=len(LETTERS), max_seq_len=2 * length, pre_norm=True, **sizes)
    model = TinyAlpaca(config, mg.Generator(0))
    surprise = (length - 1) / (2 * length - 1) * np.log(len(LETTERS))
    print(f"The first half is chance, so the loss stays above {surprise:.3f}")
    train(model, steps, length)
    ids = texts(np.random.default_rng(1), 1, length)[0]
    maps = attention_maps(model.eval(), ids)  # (L, H, T, T)
    rows = np.arange(length, 2 * length - 1)  # a letter after these can be predicted
    mirror = maps[:, :, rows, 2 * length - 2 - rows].mean(axis=-1)  # (L, H)
    layer, head = np.unravel_index(mirror.argmax(), mirror.shape)
    word = "".join(LETTERS[i] for i in ids)
    print(as_text(f"Layer {layer + 1}, head {head + 1}", word, maps[layer, head]))
    print(f"{mirror.max():.0%} of its attention is at the mirror image of the letter to come.")
    if picture is not None:
        save(maps, word, picture)
        print(f"All heads: {picture}")
    return float(mirror.max())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="50 steps, which are too few")
    quick = parser.parse_args().quick
    drawn = find_spec("matplotlib") is not None
    main(50 if quick else 300, picture=Path("runs/attention.png") if drawn else None)
