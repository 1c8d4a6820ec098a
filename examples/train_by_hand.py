"""A transformer learns Shakespeare in a loop written by hand, without the trainer.

python examples/train_by_hand.py [--steps 600] [--quick]
"""

import argparse

import numpy as np

import minigrad as mg
from minigrad import optim
from tinyalpaca import CharTokenizer, Generator, ModelConfig, TinyAlpaca
from tinyalpaca.data import load_split


def main(steps: int, data: str = "tinyshakespeare", batch_size: int = 12, time: int = 64) -> float:
    """Train for some steps; returns the last validation loss, in nats per character."""
    texts = [part.text for part in load_split(data, 0.1)]
    tokenizer = CharTokenizer.train(texts)
    training, validation = (np.array(tokenizer.encode(text)) for text in texts)

    sizes = {"d_model": 64, "d_ff": 256, "num_heads": 4, "num_layers": 4, "max_seq_len": time}
    model = TinyAlpaca(ModelConfig(vocab_size=tokenizer.vocab_size, **sizes), mg.Generator(0))
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    schedule = optim.WarmupCosineLR(optimizer, warmup_steps=steps // 10, total_steps=steps)
    rng = np.random.default_rng(0)

    def batch(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        starts = rng.integers(0, len(tokens) - time, batch_size)
        windows = tokens[starts[:, None] + np.arange(time + 1)]  # (B, T + 1)
        return windows[:, :-1], windows[:, 1:]  # the target is the next character

    for step in range(1, steps + 1):
        x, y = batch(training)
        loss = model.loss(x, y)  # forward: logits (B, T, V), then cross-entropy
        optimizer.zero_grad()
        loss.backward()  # backward: a gradient for every parameter
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            with mg.no_grad():
                score = np.mean([model.loss(*batch(validation)).item() for _ in range(20)])
            print(f"step {step:4d}  training {loss.item():.3f}  validation {score:.3f}")

    print(Generator(model, tokenizer).generate(texts[1][:20], 200, seed=1))
    return float(score)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--quick", action="store_true", help="twenty steps")
    args = parser.parse_args()
    main(20 if args.quick else args.steps)
