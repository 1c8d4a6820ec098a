"""Makes `losses.json`, by a training written in PyTorch and double precision.

    python -m tests.tinyalpaca.reference.make            writes the file
    python -m tests.tinyalpaca.reference.make --check    says whether the file is up to date

It shares no code with `minigrad` or `tinyalpaca`: model, loss, clipping, AdamW and the restarts
are PyTorch's; Muon, the other schedules, the average of the weights, the order of the windows and
the random masks follow their descriptions in the documentation.
"""

import argparse
import json
import math
import sys

import numpy as np
import torch
from torch.nn import functional as F

from tests.tinyalpaca.reference.setting import CASES, LOSSES, MODEL, TRAINING, tokens, weights

MASK64 = 2**64 - 1


def shapes(m):
    """Parameter names of the original, and their shapes."""
    c, f, v = m["d_model"], m["d_ff"], m["vocab_size"]
    found = {
        "embedding.token_embed": (v, c),
        "embedding.pos_embed": (m["max_seq_len"], c),
        "final_linear.weight": (v, c),
        "final_linear.bias": (v,),
    }
    for layer in range(m["num_layers"]):
        p = f"decoder_layers.{layer}"
        for name, outputs, inputs in (
            ("multi_head_attention.qkv_proj", 3 * c, c),
            ("multi_head_attention.out_proj", c, c),
            ("ffn.fc1", f, c),
            ("ffn.fc2", c, f),
        ):
            found |= {f"{p}.{name}.weight": (outputs, inputs), f"{p}.{name}.bias": (outputs,)}
        for name in ("layer_norm1", "layer_norm2"):
            found |= {f"{p}.{name}.weight": (c,), f"{p}.{name}.bias": (c,)}
    return found


def logits(w, m, x, drop):
    """The post-norm decoder; `drop` is called after the embedding and after each block."""
    time, c = x.shape[1], m["d_model"]
    h = drop(w["embedding.token_embed"][x] + w["embedding.pos_embed"][:time])
    for layer in range(m["num_layers"]):
        p = f"decoder_layers.{layer}"

        def linear(name, value, p=p):
            return F.linear(value, w[f"{p}.{name}.weight"], w[f"{p}.{name}.bias"])

        def norm(name, value, p=p):
            return F.layer_norm(value, (c,), w[f"{p}.{name}.weight"], w[f"{p}.{name}.bias"])

        q, k, v = (
            part.unflatten(-1, (m["num_heads"], -1)).transpose(1, 2)
            for part in linear("multi_head_attention.qkv_proj", h).chunk(3, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        h = norm("layer_norm1", h + drop(linear("multi_head_attention.out_proj", y)))
        h = norm("layer_norm2", h + drop(linear("ffn.fc2", linear("ffn.fc1", h).relu())))
    return F.linear(h, w["final_linear.weight"], w["final_linear.bias"])


# The order of windows: SplitMix64's finalizer, and a Feistel network of six rounds


def mix(value):
    """SplitMix64's finalizer on one number."""
    value = (value + 0x9E3779B97F4A7C15) & MASK64
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & MASK64
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & MASK64
    return value ^ value >> 31


def key_of(*numbers):
    key = 0
    for number in numbers:
        key = mix(key ^ number)
    return key


def shuffled(position, count, seed, epoch):
    """The new position of an element in the permutation of an epoch."""
    half = max(2, ((count - 1).bit_length() + 1) // 2)
    value = position
    while True:
        left, right = value >> half, value % 2**half
        for turn in range(6):
            left, right = right, left ^ mix(right ^ mix(key_of(seed, epoch) ^ turn)) % 2**half
        value = left << half | right
        if value < count:
            return value


def batches_of_an_epoch(ids, t, epoch):
    """The batches (B, seq_len) of an epoch, in order."""
    length = t["seq_len"]
    count = len(ids) // length
    if t["windows"] == "consecutive":
        starts = [length * shuffled(i, count, t["seed"], epoch) for i in range(count)]
    elif t["windows"] == "shifted":
        stride, places = length - 1, len(ids) - length + 1
        count = places // stride
        shift = key_of(t["seed"], epoch, 1) % (places - stride * (count - 1))
        starts = [shift + stride * shuffled(i, count, t["seed"], epoch) for i in range(count)]
    else:
        places, key = len(ids) - length + 1, key_of(t["seed"], epoch)
        starts = [mix(i ^ key) % places for i in range(count)]
    windows = np.stack([ids[start : start + length] for start in starts])
    return [windows[i : i + t["batch_size"]] for i in range(0, count, t["batch_size"])]


# Optimizers and schedules


def rate_factor(t, step, total, per_epoch):
    """Maps a base rate to the rate of a step (from 0)."""
    kind, low = t["schedule"], t["min_learning_rate"]
    if kind == "cosine-restarts":
        turn = (1 + math.cos(math.pi * (step % per_epoch) / per_epoch)) / 2
        return lambda high: low + (high - low) * turn
    if step < t["warmup_steps"]:
        return lambda high: high * (step + 1) / t["warmup_steps"]
    done = (step - t["warmup_steps"]) / (total - t["warmup_steps"])
    if kind == "cosine":
        return lambda high: low + (high - low) * (1 + math.cos(math.pi * done)) / 2
    if kind == "linear":
        left = min(1, (1 - done) / t["cooldown"])
        return lambda high: low + (high - low) * left
    return lambda high: high


def orthogonal(matrix):
    """Muon's five rounds of Newton-Schulz."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class Muon:
    """Nesterov's momentum of 0.95; packed queries, keys and values are treated separately."""

    def __init__(self, parameters, decay):
        self.parameters, self.decay = parameters, decay
        self.buffers = {name: torch.zeros_like(p) for name, p in parameters.items()}

    def step(self, rate):
        for name, p in self.parameters.items():
            self.buffers[name] = 0.95 * self.buffers[name] + 0.05 * p.grad
            ahead = 0.95 * self.buffers[name] + 0.05 * p.grad
            parts = 3 if "qkv_proj" in name else 1
            steps = [0.2 * max(part.shape) ** 0.5 * orthogonal(part) for part in ahead.chunk(parts)]
            p.data = p.data * (1 - rate * self.decay) - rate * torch.cat(steps)


def optimizers(w, t):
    """AdamW (with base rates) and Muon, each with its parameters."""

    def is_muons(name):
        matrix = w[name].ndim == 2 and name.startswith("decoder_layers.")
        return t["optimizer"] == "muon" and matrix

    groups = []
    for name, p in w.items():
        spared = t["decay"] == "matrices" and p.ndim < 2
        if not is_muons(name):
            groups.append({"params": [p], "weight_decay": 0.0 if spared else t["weight_decay"]})
    betas = (t["beta1"], t["beta2"])
    adamw = torch.optim.AdamW(groups, lr=t["learning_rate"], betas=betas, eps=1e-8)
    return adamw, Muon({n: p for n, p in w.items() if is_muons(n)}, t["weight_decay"])


# The training


def masks(seed, p, key):
    """Dropout with masks from (seed, key): an element is kept if a float32 draw is below 1 - p."""
    rng = np.random.default_rng((seed, key))

    def drop(x):
        if not p:
            return x
        kept = rng.random(tuple(x.shape), dtype=np.float32) < 1 - p
        return x * torch.from_numpy(kept) / (1 - p)

    return drop


def validation(w, m, ids, length):
    """Nats per token: every token but the first is predicted once, in adjacent windows."""
    total = 0.0
    for start in range(0, len(ids) - 1, length):
        window = torch.from_numpy(ids[start : start + length + 1])
        predicted = logits(w, m, window[None, :-1], lambda h: h)
        total += F.cross_entropy(predicted[0], window[1:], reduction="sum").item()
    return total / (len(ids) - 1)


def train(model_changes, training_changes):
    """The losses of all steps and of the validations after each epoch."""
    m, t = {**MODEL, **model_changes}, {**TRAINING, **training_changes}
    training, validating = tokens()
    w = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in weights(shapes(m)).items()
    }
    adamw, muon = optimizers(w, t)
    average = {name: p.detach().clone() for name, p in w.items()}
    losses, validations, step = [], [], 0
    for epoch in range(t["epochs"]):
        batches = batches_of_an_epoch(training, t, epoch)
        groups = [batches[i : i + t["accumulate"]] for i in range(0, len(batches), t["accumulate"])]
        total = len(groups) * t["epochs"]
        for group in groups:
            count, loss = sum(b[:, 1:].size for b in group), 0.0
            for number, batch in enumerate(group):
                key = (step * t["accumulate"] + number) * 2**20
                for part, first in enumerate(range(0, len(batch), t["micro_batch_size"])):
                    rows = torch.from_numpy(batch[first : first + t["micro_batch_size"]])
                    drop = masks(t["seed"], m["dropout"], key + part)
                    predicted = logits(w, m, rows[:, :-1], drop).flatten(0, 1)
                    loss = loss + F.cross_entropy(
                        predicted,
                        rows[:, 1:].flatten(),
                        label_smoothing=t["label_smoothing"],
                        reduction="sum",
                    )
            loss = loss / count
            for p in w.values():
                p.grad = None
            loss.backward()
            torch.nn.utils.clip_grad_norm_(w.values(), t["grad_clip"] or math.inf)
            rate = rate_factor(t, step, total, len(groups))
            for settings in adamw.param_groups:
                settings["lr"] = rate(t["learning_rate"])
            adamw.step()
            muon.step(rate(t["muon_learning_rate"]))
            step += 1
            keep = min(t["ema"], (1 + step) / (10 + step))
            for name, p in w.items():
                average[name] = keep * average[name] + (1 - keep) * p.detach()
            losses.append(loss.item())
        with torch.no_grad():
            shown = average if t["ema"] else w
            validations.append(validation(shown, m, validating, t["seq_len"] - 1))
    return {"losses": losses, "validations": validations}


def main(argv=None):
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    args = parser.parse_args(argv)
    made = {name: train(*changes) for name, changes in CASES.items()}
    if args.check:
        stored = json.loads(LOSSES.read_text(encoding="utf-8"))
        same = stored.keys() == made.keys() and all(
            np.allclose(stored[case][kind], made[case][kind], rtol=1e-10)
            for case in made
            for kind in made[case]
        )
        print("the same" if same else "different")
        return 0 if same else 1
    LOSSES.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {len(made)} cases to {LOSSES}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
