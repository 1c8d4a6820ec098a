"""Train a trained model on a text of your own, by adapters only (LoRA, Hu et al., 2021).

python examples/finetune.py --text my_letters.txt      (after the README's training command)
python examples/finetune.py --quick                    (a small model and a small text of its own)

The model's weights stay as they are; beside each matrix two thin ones are trained, and with them
the model writes in another manner. Both manners are shown at the end, for the same beginning.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from tinyalpaca import Generator, ModelConfig, TrainConfig, load, train

FABLE = (
    "The ant went to the hill. The ant saw a leaf on the hill. The leaf was green. "
    "The ant took the leaf home. It was a good day. The bee came to the ant."
)
RECIPE = (
    "Take two eggs. Take a cup of milk. Stir the eggs and the milk. Heat the pan. "
    "Put butter in the pan. Bake it until it is brown. Serve it hot. "
)


def scores(folder: str | Path, text: str) -> float:
    """Nats a character that the model of a folder needs for a text: less is better."""
    model, tokenizer, _ = load(folder)
    return Generator(model, tokenizer).score(text).nats_per_character


def sample(folder: str | Path, prompt: str) -> str:
    model, tokenizer, _ = load(folder)
    return prompt + Generator(model, tokenizer).generate(prompt, 60, temperature=0.6, seed=1)


def small_model(folder: Path) -> Path:
    """A small model of fables and recipes, with which `--quick` begins."""
    sentences = [f"{s}. " for s in (FABLE + RECIPE).split(". ")[:-1]]
    rng = np.random.default_rng(0)
    text = folder / "both.txt"
    text.write_text("".join(rng.choice(sentences, 800)), encoding="utf-8")
    sizes = {"d_model": 48, "d_ff": 96, "num_heads": 4, "num_layers": 2, "max_seq_len": 32}
    settings = {"num_merges": 40, "seq_len": 33, "learning_rate": 3e-3, "epochs": 8}
    settings |= {"sample_tokens": 0, "epoch_sample_tokens": 0, "quiet": True, "batch_size": 8}
    train(TrainConfig(data=str(text), out=str(folder / "base"), **settings), ModelConfig(**sizes))
    return folder / "base"


def main(
    base: str | Path, text: str | Path, out: str | Path, rank: int = 8, epochs: int = 5
) -> float:
    """Train adapters; returns by how many nats a character the model has become better."""
    content = Path(text).read_text(encoding="utf-8")
    length = min(128, load(base).model.config.max_seq_len) + 1  # a window and its last target
    settings = {"lora_rank": rank, "learning_rate": 1e-2, "epochs": epochs, "batch_size": 8}
    settings |= {"sample_tokens": 0, "epoch_sample_tokens": 0, "seq_len": length}
    train(TrainConfig(data=str(text), init_from=str(base), out=str(out), **settings))
    last = content[-len(content) // 10 :]  # validation's share
    before, after = scores(base, last), scores(out, last)
    prompt = content[:20].rpartition(" ")[0]
    print(f"\nBefore, {before:.3f} nats a character of your text:\n  {sample(base, prompt)!r}")
    print(f"After, {after:.3f} nats a character:\n  {sample(out, prompt)!r}")
    return before - after


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="runs/shakespeare", help="a trained model's folder")
    parser.add_argument("--text", help="a UTF-8 text file, some pages long or longer")
    parser.add_argument("--out", default="runs/finetuned")
    parser.add_argument("--rank", type=int, default=8, help="of the adapters")
    parser.add_argument("--quick", action="store_true", help="a small model, a small text")
    args = parser.parse_args()
    if args.quick:
        with tempfile.TemporaryDirectory() as folder:
            own = Path(folder, "recipe.txt")
            own.write_text(RECIPE * 40, encoding="utf-8")
            main(small_model(Path(folder)), own, Path(folder, "tuned"), epochs=5)
    elif args.text is None:
        parser.error("--text names the text to learn, or say --quick for one of our own")
    else:
        main(args.base, args.text, args.out, args.rank)
