"""The original in PyTorch: the same classes, names and layouts."""

import torch
from torch import nn


class Embedding(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.token_embed = nn.Parameter(0.02 * torch.randn(c.vocab_size, c.d_model))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(c.max_seq_len, c.d_model))

    def forward(self, ids):
        return self.token_embed[ids] + self.pos_embed[: ids.shape[1]]


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.qkv_proj = nn.Linear(c.d_model, 3 * c.d_model)
        self.out_proj = nn.Linear(c.d_model, c.d_model)
        self.num_heads = c.num_heads

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (
            part.view(b, t, self.num_heads, -1).transpose(1, 2)
            for part in self.qkv_proj(x).chunk(3, dim=-1)
        )
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(torch.ones(t, t).triu(1).bool(), float("-inf"))
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, c)
        return self.out_proj(y)


class FeedForward(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc1 = nn.Linear(c.d_model, c.d_ff)
        self.fc2 = nn.Linear(c.d_ff, c.d_model)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


class DecoderLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.multi_head_attention = Attention(c)
        self.ffn = FeedForward(c)
        self.layer_norm1 = nn.LayerNorm(c.d_model)
        self.layer_norm2 = nn.LayerNorm(c.d_model)

    def forward(self, x):
        x = self.layer_norm1(x + self.multi_head_attention(x))
        return self.layer_norm2(x + self.ffn(x))


class TorchAlpaca(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embedding = Embedding(config)
        self.decoder_layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.final_linear = nn.Linear(config.d_model, config.vocab_size)

    def forward(self, ids):
        x = self.embedding(ids)
        for layer in self.decoder_layers:
            x = layer(x)
        return self.final_linear(x)


def twin_of(model, dtype):
    """A `TorchAlpaca` with the weights of a `TinyAlpaca`, loaded by name."""
    twin = TorchAlpaca(model.config).to(dtype)
    twin.load_state_dict({k: torch.from_numpy(v).to(dtype) for k, v in model.state_dict().items()})
    return twin
