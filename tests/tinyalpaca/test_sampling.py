import itertools
import math

import numpy as np
import pytest

from tinyalpaca.generation.sampling import (
    Sampler,
    Sampling,
    draw,
    filtered,
    log_probabilities,
    penalised,
)

SETTINGS = [
    dict(zip(("temperature", "top_k", "top_p", "min_p", "repetition_penalty"), values, strict=True))
    for values in itertools.product(
        (0.4, 1.7), (None, 1, 5, 999), (None, 0.0, 0.6, 1.0), (None, 0.3), (1.0, 1.8)
    )
]


def softmax(scores):
    weights = [0.0 if s == -math.inf else math.exp(s - max(scores)) for s in scores]
    return [w / sum(weights) for w in weights]


def reference(logits, seen, temperature, top_k, top_p, min_p, repetition_penalty):
    """The seven steps of the documentation, for one row, in plain Python."""
    scores = [float(x) for x in logits]
    for token in sorted(seen):
        x = scores[token]
        scores[token] = x / repetition_penalty if x > 0 else x * repetition_penalty
    scores = [x / temperature for x in scores]
    if top_k is not None:
        lowest = sorted(scores, reverse=True)[min(top_k, len(scores)) - 1]
        scores = [x if x >= lowest else -math.inf for x in scores]
    if top_p is not None and top_p < 1:
        probabilities, before = softmax(scores), 0.0
        for place, token in enumerate(sorted(range(len(scores)), key=lambda i: -scores[i])):
            if place > 0 and before >= top_p:
                scores[token] = -math.inf
            before += probabilities[token]
    if min_p is not None:
        best = max(scores)
        scores = [x if math.exp(x - best) >= min_p else -math.inf for x in scores]
    return scores


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_filters_are_the_rules_as_they_read(setting, rng):
    logits = rng.normal(0, 2, (4, 23))
    seen = rng.random((4, 23)) < 0.3
    ours = filtered(penalised(logits, seen, setting["repetition_penalty"]), Sampling(**setting))
    for row, (x, known) in enumerate(zip(logits, seen, strict=True)):
        expected = reference(x, np.flatnonzero(known), **setting)
        np.testing.assert_allclose(ours[row], expected, rtol=1e-12)


def test_ties_at_the_top_k_all_stay_and_ties_in_the_top_p_go_by_id():
    logits = np.array([[1.0, 3.0, 3.0, 2.0, 3.0]])
    kept = np.isfinite(filtered(logits, Sampling(temperature=1, top_k=2)))
    assert kept.tolist() == [[False, True, True, False, True]]
    kept = np.isfinite(filtered(logits, Sampling(temperature=1, top_p=0.5)))
    assert kept.tolist() == [[False, True, True, False, False]]


def chi_square_limit(freedom: int) -> float:
    """The value that chi-square exceeds once in 10,000 times (Wilson and Hilferty, 1931)."""
    return freedom * (1 - 2 / (9 * freedom) + 3.719 * math.sqrt(2 / (9 * freedom))) ** 3


@pytest.mark.parametrize(
    ("setting", "batch"),
    [
        ({"temperature": 1.0}, 1),  # has its own code
        ({"temperature": 1.0}, 1000),
        ({"temperature": 0.5}, 1000),
        ({"temperature": 1.3, "top_k": 7}, 1000),
        ({"temperature": 1.0, "top_p": 0.8}, 1000),
        ({"temperature": 1.5, "min_p": 0.08}, 1000),
        ({"temperature": 1.4, "top_k": 9, "top_p": 0.9, "min_p": 0.05}, 1000),
        ({"temperature": 1.4, "top_p": 0.9, "repetition_penalty": 1.5}, 1000),
    ],
)
def test_draws_follow_the_filtered_distribution(setting, batch, rng):
    """A chi-square test of 12,000 draws."""
    logits, seen = rng.normal(0, 1, 17).astype(np.float32), [2, 3, 5]
    full = {"top_k": None, "top_p": None, "min_p": None, "repetition_penalty": 1.0, **setting}
    expected = np.array(softmax(reference(logits, seen, **full))) * 12_000
    counts = np.zeros(17)
    rngs = [np.random.default_rng(i) for i in range(batch)]
    sampler = Sampler(Sampling(**setting), rngs, 17, [seen] * batch)
    for _ in range(12_000 // batch):
        np.add.at(counts, sampler.pick(np.tile(logits, (batch, 1))), 1)
        if sampler._seen is not None:  # each draw starts without seen tokens
            sampler._seen[:] = np.isin(np.arange(17), seen)
    assert counts[expected == 0].sum() == 0
    counts, expected = counts[expected > 0], expected[expected > 0]
    assert len(expected) > 4
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < chi_square_limit(len(expected) - 1)


def test_one_row_and_many_rows_draw_the_same(rng):
    logits = rng.normal(0, 2, (50, 356)).astype(np.float32)
    many = Sampler(Sampling(), [np.random.default_rng(i) for i in range(50)], 356, [[]] * 50)
    alone = [
        Sampler(Sampling(), [np.random.default_rng(i)], 356, [[]]).pick(row[None])[0]
        for i, row in enumerate(logits)
    ]
    assert many.pick(logits) == alone


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17, 356])
def test_draw_finds_the_token_whose_share_holds_the_number(size, rng):
    weights = rng.random((200, size)) * (rng.random((200, size)) < 0.5)
    weights[:, rng.integers(size)] = 1.0
    uniform = rng.random(200)
    uniform[:2] = 0, 1 - 2.0**-53
    tokens = draw(weights, uniform)
    for row, token in enumerate(tokens):
        shares = np.cumsum(weights[row]) / weights[row].sum()
        assert weights[row, token] > 0
        assert shares[token] >= uniform[row] - 1e-12
        assert token == 0 or shares[token - 1] <= uniform[row] + 1e-12


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-45, 5e-324])
def test_the_coldest_temperatures_are_greedy(temperature, rng):
    logits = rng.normal(0, 1, (20, 40)).astype(np.float32)
    rngs = [np.random.default_rng(i) for i in range(20)]
    cold = Sampler(Sampling(temperature), rngs, 40, [[]] * 20)
    assert cold.pick(logits) == logits.argmax(-1).tolist()
    one = Sampler(Sampling(temperature), rngs[:1], 40, [[]])
    assert one.pick(logits[:1]) == [logits[0].argmax()]


def test_greedy_takes_the_lowest_id_of_equals_and_draws_nothing():
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert Sampler(Sampling(0), [rng], 3, [[]]).pick(np.array([[1.0, 5.0, 5.0]])) == [1]
    assert rng.bit_generator.state == before


def test_the_penalty_counts_what_was_drawn():
    sampler = Sampler(Sampling(0, repetition_penalty=2.0), [np.random.default_rng(0)], 3, [[0]])
    logits = np.array([[3.0, 2.0, 1.2]])
    assert [sampler.pick(logits)[0] for _ in range(3)] == [1, 0, 0]


@pytest.mark.parametrize("setting", [{}, {"temperature": 0}, {"top_p": 0.5}])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_error(setting, bad):
    logits = np.array([[1.0, bad, 2.0]])
    sampler = Sampler(Sampling(**setting), [np.random.default_rng(0)], 3, [[]])
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(ValueError, match="not finite numbers"),
    ):
        sampler.pick(logits)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -0.1}, "temperature must be a number and not negative, it is -0.1"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"temperature": math.inf}, "temperature must be"),
        ({"top_k": 0}, "top_k must be at least 1, it is 0"),
        ({"top_p": 1.1}, "top_p must be between 0 and 1, it is 1.1"),
        ({"top_p": math.nan}, "top_p must be between 0 and 1"),
        ({"min_p": -0.5}, "min_p must be between 0 and 1, it is -0.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be positive, it is 0.0"),
    ],
)
def test_settings_out_of_range_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**setting)


def test_log_probabilities_are_normalised_whatever_the_scale(rng):
    logits = rng.normal(0, 300, (3, 50)).astype(np.float32)
    np.testing.assert_allclose(np.exp(log_probabilities(logits)).sum(-1), 1, rtol=1e-12)
