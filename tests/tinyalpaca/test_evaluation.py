"""Every token but the first is predicted once, for any stride of windows."""

import numpy as np
import pytest

from tinyalpaca.evaluation import IGNORED, evaluate, evaluation_batches


@pytest.mark.parametrize("stride", [0, 1, 3, 7, 8])
@pytest.mark.parametrize("length", [2, 5, 9, 10, 17, 40, 41])
def test_each_token_is_predicted_once_and_from_what_precedes_it(length, stride):
    tokens = np.arange(100, 100 + length)
    predicted = []
    for x, y in evaluation_batches(tokens, seq_len=9, batch_size=2, stride=stride):
        assert x.shape == y.shape and x.shape[0] <= 2 and x.shape[1] <= 8
        for inputs, targets in zip(x, y, strict=True):
            counted = targets != IGNORED
            assert np.array_equal(targets[counted], inputs[counted] + 1)
            if stride and targets[counted][0] - 100 > 8:  # all but the first window see enough
                assert np.argmax(counted) >= 8 - stride
            predicted += targets[counted].tolist()
    assert predicted == tokens[1:].tolist()


def test_the_score_is_spread_over_characters():
    score = evaluate(lambda part: float((part[1] != IGNORED).sum()), np.arange(30), 87, seq_len=8)
    assert score.nats == score.tokens == 29
    assert score.nats_per_token == 1 and score.nats_per_character == pytest.approx(29 / 87)


@pytest.mark.parametrize("stride", [-1, 9])
def test_a_stride_out_of_range_is_refused(stride):
    with pytest.raises(ValueError, match="the stride must be from 0 to seq_len - 1"):
        list(evaluation_batches(np.arange(30), 9, 2, stride))
