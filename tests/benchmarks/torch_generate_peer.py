"""Generation in PyTorch with preallocated keys and values, one position per step.

There are two modes, because it depends on the machine which one is faster. "eager" attends to the
positions so far. "compiled" (`torch.compile`) needs constant shapes, so it attends to all positions
of the context with a mask. Both are written for speed: few module calls, one matmul for queries,
keys and values, fused attention, `inference_mode`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from tests.benchmarks.generation_model import CONTEXT, PROMPT, make_model


class Peer:
    """PyTorch's contender, with the same methods `one` and `many` as ours.

    Args:
        mode: "eager" or "compiled".
        threads: the number of PyTorch's threads.
        batch: the number of sequences in `many`.
        tokens: the number of tokens in each.
    """

    def __init__(self, mode: str, threads: int, batch: int, tokens: int) -> None:
        torch.set_num_threads(threads)
        model = make_model()
        self.mode, self.batch, self.tokens = mode, batch, tokens
        self.heads, self.eps = model.config.num_heads, 1e-5
        self.state = {k: torch.from_numpy(v) for k, v in model.state_dict().items()}
        names = ("qkv_proj", "out_proj", "fc1", "fc2", "layer_norm1", "layer_norm2")
        self.layers = []
        for number in range(model.config.num_layers):
            own = {k: v for k, v in self.state.items() if k.startswith(f"decoder_layers.{number}.")}
            parts = {k.rsplit(".", 2)[1]: [] for k in own}
            for key, value in own.items():  # weight before bias
                parts[key.rsplit(".", 2)[1]].append(value)
            self.layers.append([tensor for name in names for tensor in parts[name]])
        self.positions = torch.arange(CONTEXT)
        self.generator = torch.Generator().manual_seed(0)
        self._step = self._all_positions if mode == "compiled" else self._positions_so_far
        if mode == "compiled":
            self._step = torch.compile(self._step, fullgraph=True, dynamic=False)
        self.write(1, 0.0)
        self.write(batch, 0.0)

    def _embed(self, ids: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return (
            self.state["embedding.token_embed"][ids] + (self.state["embedding.pos_embed"][places])
        )

    def _run(self, x: torch.Tensor, cache: torch.Tensor, attend: Any) -> torch.Tensor:
        """Logits (B, T, V) of embeddings x (B, T, C)."""
        batch, time, c = x.shape
        for number, layer in enumerate(self.layers):
            w_qkv, b_qkv, w_out, b_out, w_1, b_1, w_2, b_2, g_1, s_1, g_2, s_2 = layer
            qkv = F.linear(x, w_qkv, b_qkv).view(batch, time, 3, self.heads, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, T, D)
            y = attend(cache[number], q, k, v).transpose(1, 2).reshape(batch, time, c)
            x = F.layer_norm(x + F.linear(y, w_out, b_out), (c,), g_1, s_1, self.eps)
            y = F.linear(F.relu(F.linear(x, w_1, b_1)), w_2, b_2)
            x = F.layer_norm(x + y, (c,), g_2, s_2, self.eps)
        return F.linear(x, self.state["final_linear.weight"], self.state["final_linear.bias"])

    def _prefill(self, ids: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        length = ids.shape[1]

        def attend(kept: Any, q: Any, k: Any, v: Any) -> torch.Tensor:
            kept[0, :, :, :length], kept[1, :, :, :length] = k, v
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        return self._run(self._embed(ids, self.positions[:length]), cache, attend)[:, -1]

    def _positions_so_far(
        self, ids: torch.Tensor, place: torch.Tensor, cache: torch.Tensor, end: int
    ) -> torch.Tensor:
        def attend(kept: Any, q: Any, k: Any, v: Any) -> torch.Tensor:
            kept[0, :, :, end - 1 : end], kept[1, :, :, end - 1 : end] = k, v
            return F.scaled_dot_product_attention(q, kept[0, :, :, :end], kept[1, :, :, :end])

        return self._run(self._embed(ids, place), cache, attend)[:, -1]

    def _all_positions(
        self, ids: torch.Tensor, place: torch.Tensor, cache: torch.Tensor, end: int
    ) -> torch.Tensor:
        mask = (self.positions <= place)[None, None, None]

        def attend(kept: Any, q: Any, k: Any, v: Any) -> torch.Tensor:
            kept.index_copy_(3, place, torch.stack([k, v]))
            return F.scaled_dot_product_attention(q, kept[0], kept[1], attn_mask=mask)

        return self._run(self._embed(ids, place), cache, attend)[:, -1]

    def _choose(self, logits: torch.Tensor, temperature: float) -> torch.Tensor:
        if temperature == 0:
            return logits.argmax(-1, keepdim=True)
        weights = torch.softmax(logits / temperature, -1)
        return torch.multinomial(weights, 1, generator=self.generator)

    @torch.inference_mode()
    def write(self, batch: int, temperature: float) -> list[list[int]]:
        """The tokens of each continuation."""
        c = self.state["embedding.token_embed"].shape[1]
        cache = torch.zeros(len(self.layers), 2, batch, self.heads, CONTEXT, c // self.heads)
        ids = torch.tensor([PROMPT] * batch)
        chosen = [self._choose(self._prefill(ids, cache), temperature)]
        for place in range(len(PROMPT), len(PROMPT) + self.tokens - 1):
            at = torch.tensor([place])  # a view of `positions` would be compiled for each place
            end = CONTEXT if self.mode == "compiled" else place + 1
            chosen.append(self._choose(self._step(chosen[-1], at, cache, end), temperature))
        return torch.cat(chosen, 1).tolist()

    def greedy(self) -> list[int]:
        """The greedy continuation, for comparison."""
        return self.write(1, 0.0)[0]

    def one(self) -> None:
        """Write a single text."""
        self.write(1, 0.7)

    def many(self) -> None:
        """Write a batch of texts."""
        self.write(self.batch, 0.7)

    def facts(self) -> dict[str, Any]:
        """Facts for the record."""
        return {"version": torch.__version__, "threads": torch.get_num_threads(), "mode": self.mode}
