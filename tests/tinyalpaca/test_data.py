import numpy as np
import pytest

from tinyalpaca.data import RandomWindows, TinyPacaDataset, TokenFile
from tinyalpaca.data.token_file import Header


def test_windows_follow_one_another_and_targets_are_the_next_tokens():
    dataset = TinyPacaDataset(np.arange(100, 123, dtype=np.uint16), seq_len=5)
    assert len(dataset) == 4
    x, y = dataset.batch_at([0, 3, 1])
    assert x.tolist() == [[100, 101, 102, 103], [115, 116, 117, 118], [105, 106, 107, 108]]
    assert y.tolist() == [[101, 102, 103, 104], [116, 117, 118, 119], [106, 107, 108, 109]]
    assert x.dtype == y.dtype == np.int64
    assert [part.tolist() for part in dataset[-1]] == [x[1].tolist(), y[1].tolist()]


def test_the_default_setting_has_127_predictions_a_window():
    dataset = TinyPacaDataset(np.arange(128 * 3), seq_len=128)
    x, y = dataset.batch_at(np.arange(3))
    assert x.shape == y.shape == (3, 127)
    np.testing.assert_array_equal(
        np.concatenate([x, y[:, -1:]], axis=1).reshape(-1), np.arange(384)
    )


def test_random_windows_begin_at_every_token():
    dataset = RandomWindows(np.arange(10), seq_len=4)
    assert len(dataset) == 7
    x, y = dataset.batch_at([0, 6, 1])
    assert x.tolist() == [[0, 1, 2], [6, 7, 8], [1, 2, 3]]
    assert y.tolist() == [[1, 2, 3], [7, 8, 9], [2, 3, 4]]


def test_windows_of_a_mapped_file(tmp_path):
    tokens = np.arange(1000, dtype="<u2")
    tokens.tofile(tmp_path / "tokens")
    mapped = np.memmap(tmp_path / "tokens", "<u2", "r")
    file = TokenFile(tmp_path / "tokens", Header("<u2", 1000, 1000, "", "", ""), mapped)
    x, _ = TinyPacaDataset(file.tokens, seq_len=100).batch_at([9])
    assert x[0].tolist() == list(range(900, 999))


@pytest.mark.parametrize("kind", [TinyPacaDataset, RandomWindows])
def test_data_that_cannot_be(kind):
    with pytest.raises(ValueError, match=r"a sequence of 11 tokens is longer than the data.* 10"):
        kind(np.arange(10), seq_len=11)
    assert len(kind(np.arange(10), seq_len=10)) == 1
    with pytest.raises(ValueError, match="seq_len must be at least 2"):
        kind(np.arange(10), seq_len=1)
    with pytest.raises(ValueError, match=r"1-D array of integers, not float64 of shape \(10,\)"):
        kind(np.ones(10), seq_len=2)
    with pytest.raises(ValueError, match=r"1-D array of integers, not int64 of shape \(2, 5\)"):
        kind(np.ones((2, 5), np.int64), seq_len=2)


def test_windows_out_of_range_are_named():
    dataset = TinyPacaDataset(list(range(20)), seq_len=5)
    for index in (4, -5):
        with pytest.raises(IndexError, match="is out of range: there are 4"):
            dataset[index]
    with pytest.raises(IndexError, match="window 7 is out of range"):
        dataset.batch_at([0, 7])
