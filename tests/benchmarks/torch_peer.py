"""The same model and step in PyTorch, in the mode that is fastest on a CPU: eager, with fused
attention (`scaled_dot_product_attention`) and fused AdamW. It has as many threads as minigrad has
workers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tests.benchmarks.workloads import LEARNING_RATE, Workload, make_batch, make_model


class Layer(nn.Module):
    def __init__(self, w: Workload) -> None:
        super().__init__()
        c = w.d_model
        self.multi_head_attention = nn.ModuleDict(
            {"qkv_proj": nn.Linear(c, 3 * c), "out_proj": nn.Linear(c, c)}
        )
        self.ffn = nn.ModuleDict({"fc1": nn.Linear(c, w.d_ff), "fc2": nn.Linear(w.d_ff, c)})
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(c), nn.LayerNorm(c)
        self.heads = w.heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, c = x.shape
        qkv = self.multi_head_attention["qkv_proj"](x).view(b, t, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = self.multi_head_attention["out_proj"](y.transpose(1, 2).reshape(b, t, c))
        x = self.layer_norm1(x + y)
        return self.layer_norm2(x + self.ffn["fc2"](F.relu(self.ffn["fc1"](x))))


class Model(nn.Module):
    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.embedding = nn.ParameterDict(
            {
                "token_embed": torch.zeros(w.vocabulary, w.d_model),
                "pos_embed": torch.zeros(w.time + 1, w.d_model),
            }
        )
        self.decoder_layers = nn.ModuleList(Layer(w) for _ in range(w.layers))
        self.final_linear = nn.Linear(w.d_model, w.vocabulary)
        self.register_buffer("positions", torch.arange(w.time), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        tokens, places = self.embedding["token_embed"], self.embedding["pos_embed"]
        x = F.embedding(ids, tokens) + F.embedding(self.positions, places)
        for layer in self.decoder_layers:
            x = layer(x)
        return self.final_linear(x)


class Peer:
    """PyTorch's contender."""

    def __init__(self, workload: tuple[int, ...], threads: int) -> None:
        torch.set_num_threads(threads)
        w = Workload(*workload)
        self.model = Model(w)
        state = make_model(w).state_dict()
        self.model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, fused=True)
        x, y = make_batch(w)
        self.x, self.y = torch.from_numpy(x.copy()), torch.from_numpy(y.copy())

    def loss(self) -> torch.Tensor:
        logits = self.model(self.x)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), self.y.view(-1))

    def step(self) -> float:
        """Forward, cross-entropy, backward, clipping, AdamW. Returns the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()

    def forward(self) -> float:
        """The mean loss, without gradients."""
        with torch.inference_mode():
            return self.loss().item()

    def facts(self) -> dict[str, Any]:
        """Facts for the record."""
        mode = "eager, fused attention, fused AdamW"
        return {"version": torch.__version__, "threads": torch.get_num_threads(), "mode": mode}
