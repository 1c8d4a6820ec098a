"""Settings under a name (`--preset`). Flags given beside it take precedence.

How `best` came about, in nats per character on Tiny Shakespeare: with windows that do not overlap
("apart"), and with windows that overlap, 32 tokens apart ("sliding"). All models have 213,000 to
244,000 parameters, rotary positions and a tied head.

The first search scored single runs on the last tenth of the text, with 256 merges and windows of
128 tokens at random places. Rows of one epoch and of two are comparable among themselves only.

    one epoch, batch 16, cosine, weight decay 0.1, ReLU, post-norm unless said      apart  sliding
    AdamW 3e-3                                                                     1.932    1.926
    Muon 1e-2 for the layers' matrices, AdamW 3e-3 for the rest                    1.825    1.818
    Muon 1e-2, pre-norm, RMSNorm, no biases                                        1.871    1.868
    Muon 2e-2, AdamW 5e-3, pre-norm, RMSNorm, no biases                            1.804    1.797
    Muon 2e-2, AdamW 3e-3                                                          1.795    1.786
    Muon 1.5e-2, AdamW 5e-3, GELU, RMSNorm, no biases                              1.782    1.774
    Muon 1.5e-2, AdamW 5e-3, five layers of d_ff 192                               1.766    1.757
    Muon 2e-2, AdamW 1e-2, embeddings decay too                                    1.727    1.717
    Muon 1.5e-2, AdamW 5e-3, batch 8                                               1.697    1.686

    two epochs, batch 8, AdamW 1e-2 for embeddings and vectors                      apart  sliding
    Muon 3e-2                                                                      1.636    1.623
    Muon 2e-2, batch 4                                                             1.618    1.608
    Muon 2e-2                                                                      1.613    1.602
    Muon 2e-2, GELU, five layers of d_ff 192                                       1.611    1.600
    Muon 2e-2, linear schedule, weight decay 0.05                                  1.605    1.592
    Muon 2e-2, GELU                                                                1.596    1.585
    Muon 1.5e-2, GELU, average of the weights over 100 steps                       1.578    1.567
    Muon 1.5e-2, GELU                                                              1.576    1.564
    Muon 1e-2, GELU, linear schedule, weight decay 0.05                            1.562    1.549

    ten epochs of the last row, which was the preset then                          1.482    1.466

The second search did not read the last tenth. It trained on the first 81% of the characters for ten
epochs and scored the next 9%. It ran on a GPU, with the model and optimizers rewritten in PyTorch.
Rows are means; "sd" is the standard deviation of one run, "n" the number of seeds.

    one change of the last row above, at d_ff 272                        apart      sd  n  sliding
    none, d_ff 256                                                      1.4513  0.0062  8  1.4350
    none                                                                1.4511  0.0049  4  1.4348
    windows cut at other places each epoch (shifted)                    1.4318  0.0049  3  1.4147
    weight decay 0.2 for embeddings                                     1.4409  0.0029  2  1.4238
    batch 4, windows of 256 tokens                                      1.4416  0.0045  3  1.4293
    cooldown 0.6                                                        1.4435  0.0070  2  1.4278
    weight decay 0.2 for the layers' matrices                           1.4465  0.0060  2  1.4309
    rope_base 100                                                       1.4471  0.0076  2  1.4312
    rope_base 1000                                                      1.4474  0.0007  2  1.4320
    NorMuon                                                             1.4478  0.0075  3  1.4320
    beta1 0.8                                                           1.4480  0.0008  2  1.4314
    embeddings begin with a deviation of 0.1                            1.4482  0.0017  2  1.4328
    AdamW 3e-3                                                          1.4496  0.0050  2  1.4329
    AdamW 6e-3                                                          1.4498  0.0009  2  1.4338
    no clipping                                                         1.4500  0.0032  2  1.4340
    rotary positions on half of a head                                  1.4507  0.0013  2  1.4354
    squared leaky ReLU                                                  1.4527  0.0046  3  1.4373
    Muon 2e-2                                                           1.4537  0.0093  2  1.4379
    a norm after the embedding                                          1.4542  0.0081  3  1.4381
    768 merges, d_ff 208                                                1.4544  0.0023  3  1.4404
    AdamW 2e-2                                                          1.4545  0.0020  2  1.4390
    512 merges, d_ff 240                                                1.4547  0.0046  3  1.4403
    what attention reads is mixed with the token before                 1.4548  0.0060  3  1.4385
    a gate on each head                                                 1.4548  0.0019  3  1.4406
    Muon 1.4e-2                                                         1.4554  0.0079  2  1.4399
    squared ReLU                                                        1.4565  0.0010  3  1.4416
    values are mixed with the first layer's                             1.4575  0.0044  3  1.4432
    batch 12                                                            1.4576  0.0073  3  1.4413
    queries, keys and values are mixed with those of the token before   1.4592  0.0026  3  1.4443
    what the feed-forward network reads is mixed with the token before  1.4605  0.0062  3  1.4439
    Muon 7e-3                                                           1.4617  0.0071  2  1.4447
    momentum 0.9                                                        1.4617  0.0103  2  1.4454
    the embedding is mixed with that of the token before                1.4622  0.0061  3  1.4464
    pre-norm, RMSNorm                                                   1.4650  0.0047  3  1.4493
    Muon 4e-3                                                           1.4787  0.0004  2  1.4643

    shifted windows, several changes                                     apart      sd  n  sliding
    768 merges, 4 x 256, decay 0.2, cooldown 0.6                        1.4001  0.0018  3  1.3903
    768 merges, 4 x 256, decay 0.2 (embeddings 0.5), cooldown 0.6       1.4051  0.0012  3  1.3960
    768 merges, 4 x 256, decay 0.05 (embeddings 0.2), cooldown 0.6      1.4112  0.0014  3  1.4002
    768 merges, 4 x 256                                                 1.4243  0.0030  3  1.4127
    512 merges, 4 x 256, decay 0.2, cooldown 0.6                        1.4131  0.0050  3  1.4031
        and beta1 0.8, embeddings begin with a deviation of 0.1         1.4073  0.0043  3  1.3976
        and squared leaky ReLU                                          1.4089  0.0014  3  1.3991
        and rope_base 100                                               1.4100  0.0064  3  1.4018
        and label smoothing 0.02                                        1.4120  0.0029  3  1.4025
        and momentum 0.97                                               1.4181  0.0014  3  1.4090
        and Muon 1.4e-2                                                 1.4218  0.0036  3  1.4132
        and 3% of the inputs replaced by others                         1.4229  0.0070  3  1.4145
        and dropout 0.05                                                1.4264  0.0013  3  1.4177
        and dropout 0.1                                                 1.4401  0.0044  3  1.4323
    512 merges, 4 x 256, decay 0.05 (embeddings 0.2)                    1.4170  0.0048  3  1.4055
    256 merges, 4 x 256, decay 0.2, cooldown 0.6                        1.4203  0.0045  3  1.4103
    256 merges, 8 x 128, decay 0.2, cooldown 0.6                        1.4224  0.0042  3  1.4075
        and Muon 1.4e-2                                                 1.4345  0.0069  3  1.4206
    256 merges, 8 x 128, decay 0.4 (embeddings 0.2), cooldown 0.6       1.4405  0.0043  3  1.4268
    256 merges, 8 x 128, decay 0.05 (embeddings 0.2), cooldown 0.6      1.4293  0.0039  3  1.4139
    256 merges, 8 x 128, decay 0.05 (embeddings 0.2)                    1.4327  0.0031  3  1.4170
    256 merges, 4 x 256                                                 1.4306  0.0066  3  1.4180

The third search was like the second. It looked for a recipe that takes no longer than the command
without a preset. "time" is the CPU time of all training steps over that command's, on two cores of
Zen 3, where it was measured. All rows have shifted windows, decay 0.2 and cooldown 0.6; four layers
have four heads and three layers two, unless said.

    four layers                                               apart      sd   n  sliding  time
    768 merges, d_ff 208, 4 x 256: the preset until then     1.4001  0.0018   3   1.3903  1.42
        and 2 heads                                          1.4074  0.0027   3   1.3977  1.30
    1024 merges, d_ff 176, 4 x 256                           1.4039  0.0056   3   1.3940
        and 2 heads                                          1.4059  0.0036   3   1.3952  1.22
        and 2 heads, ReLU, 6 x 256                           1.4139  0.0061   3   1.4036  1.05
        and 2 heads, 12 x 128                                1.4193  0.0050   3   1.4059
        and 2 heads, ReLU, 8 x 128                           1.4197  0.0030   3   1.4066  1.06
        and 2 heads, ReLU, 12 x 128                          1.4254  0.0011   3   1.4124  0.95
    1280 merges, d_ff 144, 2 heads, 4 x 256                  1.4050  0.0026   3   1.3957
    1280 merges, width 56, d_ff 224, 2 heads, 4 x 256        1.4050  0.0026   4   1.3961

    three layers
    1280 merges, d_ff 240, 5 x 256                           1.4071  0.0038  15   1.3980  1.00
        and a gate on each head                              1.3996  0.0031   4   1.3902
        and 4 heads                                          1.4019  0.0032   4   1.3925
        and AdamW 2e-2 for embeddings                        1.4021  0.0032   4   1.3929
        and AdamW 1.4e-2 for embeddings                      1.4025  0.0038   4   1.3930
        and warm-up over 50 steps                            1.4026  0.0048   4   1.3932
        and batch 4                                          1.4029  0.0047   4   1.3937  1.04
        and beta2 0.995                                      1.4031  0.0035   4   1.3935
        and decay 0.3 for embeddings                         1.4032  0.0032   4   1.3942
        and a norm of queries and keys                       1.4033  0.0031   4   1.3931
        and the last layer used twice                        1.4034  0.0069   4   1.3942
        and 4 x 320                                          1.4038  0.0020   4   1.3955
        and squared leaky ReLU                               1.4042  0.0037   4   1.3965
        and rope_base 1000                                   1.4047  0.0048   4   1.3959
        and Muon 1.2e-2                                      1.4050  0.0036   7   1.3959
        and beta1 0.8                                        1.4056  0.0004   4   1.3961
        and values mixed with the first layer's              1.4060  0.0035   4   1.3964
        and embeddings that begin with a deviation of 0.1    1.4062  0.0048   4   1.3974
        and Muon 8e-3                                        1.4063  0.0022   4   1.3970
        and NorMuon                                          1.4075  0.0040   4   1.3985
        and ReLU, batch 4                                    1.4085  0.0017   4   1.3998  0.98
        and a cap of 20 on the logits                        1.4091  0.0051   4   1.3993
        and rotary positions on half of a head               1.4093  0.0059   4   1.4016
        and no clipping                                      1.4101  0.0063   4   1.4010
        and keys, queries, values mixed with the last token  1.4104  0.0042   4   1.4013
        and decay 0.3 for the layers' matrices               1.4105  0.0045   4   1.4016
        and each layer reads the embedding, too              1.4121  0.0040   4   1.4029
        and 1 head                                           1.4153  0.0035   4   1.4082
        and an embedding of hashed pairs, 512 rows           1.4350  0.0022   4   1.4257
    1280 merges, two layers of d_ff 424, 4 x 256             1.4140  0.0016   4   1.4062  0.97
    1536 merges, d_ff 192, 4 x 256                           1.4174  0.0058   4   1.4083  1.06
    1024 merges, d_ff 280, 6 x 256                           1.4100  0.0040   3   1.3996  1.01
    1024 merges, d_ff 280, 8 x 128                           1.4150  0.0013   3   1.4019  1.05

    three layers, 1280 merges, d_ff 240, rates of AdamW and Muon
    4 heads, 8 x 192, 1.4e-2 and 1.4e-2: the preset          1.4025  0.0044   6   1.3909  0.97
    4 heads, 8 x 192, 2e-2 and 1.2e-2                        1.4043  0.0031   6   1.3923  0.97
    4 heads, 8 x 192, 2e-2 and 1.5e-2                        1.4091  0.0027   6   1.3976  0.97
    4 heads, 6 x 256, 2e-2 and 1.2e-2                        1.4027  0.0035   6   1.3935  1.02
    4 heads, 6 x 256, 2e-2 and 1.2e-2, ReLU                  1.4066  0.0016   6   1.3970  0.97
    2 heads, 6 x 256, 1.4e-2 and 1.4e-2                      1.4042  0.0039   6   1.3949  0.95
    2 heads, 6 x 256, 2e-2 and 1.2e-2                        1.4046  0.0030   6   1.3953  0.95
    2 heads, 8 x 256, 2e-2 and 1.2e-2                        1.4058  0.0027   6   1.3960  0.92

The preset was chosen by these rows. Then the last tenth was read once, by the command:

    three seeds, mean and standard deviation        apart 1.4438 ± 0.0041   sliding 1.4341 ± 0.0041
    the preset before it, likewise                  apart 1.4420 ± 0.0051   sliding 1.4331 ± 0.0055

What helped most: orthogonal updates (Muon), many small batches, a high learning rate for the
embeddings. In the second search: windows that begin at other positions each epoch, so that every
token is predicted once an epoch, each time from another context; more decay; with both, more merges
and longer windows. In the third: fewer tokens, which are longer, and fewer layers, which are wider,
cost less time and hardly any score. At this size these did not help: pre-norm; more but narrower
layers; averaging the weights, once the learning rate falls to 0; dropout; mixing in the previous
token. The differences among the best rows are no larger than those between seeds.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Preset(NamedTuple):
    """What a preset changes in `ModelConfig` and `TrainConfig`, and what it is for."""

    help: str
    model: dict[str, Any]
    training: dict[str, Any]


DEFAULT = "original"
FORMER_NAMES = {"seed": "original"}


def preset_named(name: str) -> str:
    """The present name of a preset that was renamed; other strings are returned as they are."""
    return FORMER_NAMES.get(name, name)


NANOGPT: dict[str, Any] = {
    "pre_norm": True,
    "activation": "gelu",
    "tie_weights": True,
    "bias": False,
}

PRESETS: dict[str, Preset] = {
    "original": Preset("the setting of the original, TinyAlpaca in PyTorch; the default", {}, {}),
    "best": Preset(
        "the most from the original's number of parameters and epochs",
        {
            "positions": "rotary",
            "tie_weights": True,
            "activation": "gelu_tanh",
            "d_ff": 240,
            "num_layers": 3,
            "max_seq_len": 192,
        },
        {
            "num_merges": 1280,
            "batch_size": 8,
            "seq_len": 192,
            "windows": "shifted",
            "optimizer": "muon",
            "learning_rate": 1.4e-2,
            "muon_learning_rate": 1.4e-2,
            "schedule": "linear",
            "warmup_steps": 100,
            "cooldown": 0.6,
            "weight_decay": 0.2,
            "decay": "matrices",
            "beta2": 0.99,
            "eval_stride": 32,
        },
    ),
    "small-cpu": Preset(
        "0.8 M parameters on characters: nanoGPT's setting for a CPU",
        {**NANOGPT, "d_model": 128, "d_ff": 512, "max_seq_len": 64, "positions": "rotary"},
        {
            "tokenizer": "char",
            "batch_size": 12,
            "seq_len": 65,
            "windows": "random",
            "epochs": 2,
            "max_steps": 2000,
            "optimizer": "muon",
            "learning_rate": 3e-3,
            "muon_learning_rate": 1e-2,
            "schedule": "cosine",
            "warmup_steps": 100,
            "weight_decay": 0.1,
            "decay": "matrices",
            "beta2": 0.99,
            "eval_stride": 16,
        },
    ),
    "baby-gpt": Preset(
        "10.7 M parameters on characters: nanoGPT's setting for a GPU",
        {
            **NANOGPT,
            "d_model": 384,
            "d_ff": 1536,
            "num_heads": 6,
            "num_layers": 6,
            "max_seq_len": 256,
            "dropout": 0.2,
        },
        {
            "tokenizer": "char",
            "batch_size": 64,
            "seq_len": 257,
            "windows": "random",
            "epochs": 83,
            "max_steps": 5000,
            "learning_rate": 1e-3,
            "min_learning_rate": 1e-4,
            "schedule": "cosine",
            "warmup_steps": 100,
            "weight_decay": 0.1,
            "decay": "matrices",
            "beta2": 0.99,
            "epoch_sample_tokens": 0,
        },
    ),
}
