"""The same model and step in JAX, compiled by `jax.jit` with donated parameters and averages."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tests.benchmarks.workloads import LEARNING_RATE, Workload, make_batch, make_model


def layer_norm(x: Any, p: dict[str, Any], name: str) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred * lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
    return scaled * p[name + ".weight"] + p[name + ".bias"]


def linear(x: Any, p: dict[str, Any], name: str) -> Any:
    return x @ p[name + ".weight"].T + p[name + ".bias"]


def mean_loss(p: dict[str, Any], x: Any, y: Any, w: Workload) -> Any:
    h = p["embedding.token_embed"][x] + p["embedding.pos_embed"][: x.shape[1]]
    b, t, c = h.shape
    for i in range(w.layers):
        layer = f"decoder_layers.{i}."
        qkv = linear(h, p, layer + "multi_head_attention.qkv_proj")
        q, k, v = jnp.moveaxis(qkv.reshape(b, t, 3, w.heads, c // w.heads), 2, 0)
        attended = jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(b, t, c)
        attended = linear(attended, p, layer + "multi_head_attention.out_proj")
        h = layer_norm(h + attended, p, layer + "layer_norm1")
        inner = jax.nn.relu(linear(h, p, layer + "ffn.fc1"))
        h = layer_norm(h + linear(inner, p, layer + "ffn.fc2"), p, layer + "layer_norm2")
    log_p = jax.nn.log_softmax(linear(h, p, "final_linear"))
    return -jnp.take_along_axis(log_p, y[..., None], -1).mean()


class Peer:
    """JAX's contender. Its threads are XLA's own; `threads` is not used."""

    def __init__(self, workload: tuple[int, ...], threads: int) -> None:
        w = Workload(*workload)
        self.params = {k: jnp.asarray(v) for k, v in make_model(w).state_dict().items()}
        zeros = jax.tree.map(jnp.zeros_like, self.params)
        self.moments = (zeros, jax.tree.map(jnp.zeros_like, self.params))
        self.x, self.y = (jnp.asarray(a) for a in make_batch(w))
        self.count = 0

        def step(p: Any, moments: Any, count: Any, x: Any, y: Any) -> Any:
            loss, g = jax.value_and_grad(mean_loss)(p, x, y, w)
            norm = jnp.sqrt(sum((a * a).sum() for a in jax.tree.leaves(g)))
            g = jax.tree.map(lambda a: a * jnp.minimum(1.0, 1.0 / (norm + 1e-6)), g)
            m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, moments[0], g)
            v = jax.tree.map(lambda a, b: 0.999 * a + 0.001 * b * b, moments[1], g)
            p = jax.tree.map(
                lambda a, b, c: (
                    a * (1 - LEARNING_RATE * 0.01)
                    - LEARNING_RATE
                    * (b / (1 - 0.9**count))
                    / (jnp.sqrt(c / (1 - 0.999**count)) + 1e-8)
                ),
                p,
                m,
                v,
            )
            return p, (m, v), loss

        self._step = jax.jit(step, donate_argnums=(0, 1))
        self._forward = jax.jit(lambda p, x, y: mean_loss(p, x, y, w))

    def step(self) -> float:
        """Forward, cross-entropy, backward, clipping, AdamW. Returns the loss."""
        self.count += 1
        count = jnp.float32(self.count)
        self.params, self.moments, loss = self._step(
            self.params, self.moments, count, self.x, self.y
        )
        return float(loss)

    def forward(self) -> float:
        """The mean loss, without gradients."""
        return float(self._forward(self.params, self.x, self.y))

    def facts(self) -> dict[str, Any]:
        """Facts for the record."""
        return {"version": jax.__version__, "mode": "jit, donated buffers"}
