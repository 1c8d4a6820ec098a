"""The peer of `end_to_end`: does what the original's training script does, in new code.

It has the original's tokenizer, one epoch of its model (masked attention, unfused AdamW), and a
validation.
"""

from __future__ import annotations

import argparse

import torch
from torch.nn import functional as F

from tests.benchmarks.tokenizer import encode_like_the_original, train_like_the_original
from tests.tinyalpaca.torch_model import TorchAlpaca
from tinyalpaca.config import ModelConfig
from tinyalpaca.data import load_corpus

MERGES, SEQ_LEN, BATCH = 150, 128, 32


def main() -> None:
    """Train for `--epochs` epochs and print the losses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    text = load_corpus("tinyshakespeare").text
    vocabulary = train_like_the_original(text, MERGES)
    ids = torch.tensor(encode_like_the_original(text, vocabulary))
    windows = ids[: len(ids) // SEQ_LEN * SEQ_LEN].view(-1, SEQ_LEN)
    cut = int(0.9 * len(windows))
    training, validation = windows[:cut], windows[cut:]

    model = TorchAlpaca(ModelConfig(vocab_size=len(vocabulary)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        logits = model(batch[:, :-1])
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), batch[:, 1:].reshape(-1))

    for epoch in range(args.epochs):
        total = 0.0
        for batch in training[torch.randperm(len(training))].split(BATCH):
            optimizer.zero_grad()
            loss = loss_of(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.item() * len(batch)
        with torch.no_grad():
            seen = sum(loss_of(batch).item() * len(batch) for batch in validation.split(BATCH))
        print(f"epoch {epoch + 1}: train {total / cut:.4f}, val {seen / len(validation):.4f}")


if __name__ == "__main__":
    main()
