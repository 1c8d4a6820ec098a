"""The random generator."""

import copy
import json
import threading

import numpy as np
import pytest

from minigrad import Generator


def test_a_seed_gives_the_same_numbers() -> None:
    first, second, other = Generator(7), Generator(7), Generator(8)
    for draw in ("normal", "uniform"):
        x, y, z = (getattr(g, draw)((3, 4)).numpy() for g in (first, second, other))
        assert np.array_equal(x, y) and not np.array_equal(x, z)
    assert not np.array_equal(first.normal(5).numpy(), first.normal(5).numpy())


def test_shapes_and_dtypes() -> None:
    rng = Generator(0)
    assert rng.normal((2, 3)).shape == (2, 3) and rng.uniform(4).shape == (4,)
    assert rng.normal(()).shape == ()
    assert rng.normal(2).dtype == rng.uniform(2).dtype == np.float32
    assert rng.normal(2, dtype="float64").dtype == np.float64
    assert rng.integers(0, 5, (2,)).dtype == rng.permutation(3).dtype == np.int64
    assert rng.bernoulli(3, 0.5).dtype == np.bool_


def test_statistics() -> None:
    rng, n = Generator(1), 100_000
    normal = rng.normal(n, mean=3.0, std=2.0, dtype="float64").numpy()
    assert abs(normal.mean() - 3) < 0.03 and abs(normal.std() - 2) < 0.03
    uniform = rng.uniform(n, low=-1.0, high=3.0).numpy()
    assert uniform.min() >= -1 and uniform.max() < 3 and abs(uniform.mean() - 1) < 0.02
    integers = rng.integers(2, 5, n).numpy()
    assert set(integers.tolist()) == {2, 3, 4}
    assert abs(rng.bernoulli(n, 0.3).numpy().mean() - 0.3) < 0.01
    assert sorted(rng.permutation(10).tolist()) == list(range(10))


def test_state_goes_through_json() -> None:
    rng = Generator(3)
    rng.normal(10)
    state = json.loads(json.dumps(rng.state_dict()))
    expected = rng.normal(5).tolist()
    other = Generator(99)
    other.load_state_dict(state)
    assert other.normal(5).tolist() == expected


def test_a_copy_goes_its_own_way() -> None:
    rng = Generator(3)
    rng.normal(2)
    twin = copy.deepcopy(rng)
    assert twin.normal(4).tolist() == rng.normal(4).tolist()


def test_seeded_blocks_depend_on_their_key_alone() -> None:
    rng, other = Generator(1), Generator(2)
    with rng.seeded(5, 1):
        first = rng.normal(3).tolist()
        with rng.seeded(5, 2):
            second = rng.normal(3).tolist()
        rest = rng.normal(3).tolist()
    other.normal(100)
    with other.seeded(5, 1):
        assert other.normal(3).tolist() == first != second
        assert other.normal(3).tolist() == rest, "an inner block does not disturb the outer one"
    assert rng.normal(3).tolist() == Generator(1).normal(3).tolist(), "nothing was drawn outside"


def test_seeded_blocks_belong_to_a_thread() -> None:
    rng, expected, seen = Generator(1), Generator(1).normal(3).tolist(), []
    with rng.seeded(5):
        thread = threading.Thread(target=lambda: seen.append(rng.normal(3).tolist()))
        thread.start()
        thread.join()
    assert seen == [expected]


def test_bad_seeds() -> None:
    with pytest.raises(ValueError):
        Generator(-1)


def test_nothing_is_drawn_where_weights_are_loaded_next():
    rng = Generator(3)
    with rng.without_drawing():
        assert not rng.normal((2, 3), 1.0).numpy().any()
        assert rng.uniform(4, 1.0, 2.0, np.float64).numpy().tolist() == [0, 0, 0, 0]
    np.testing.assert_array_equal(rng.normal(5).numpy(), Generator(3).normal(5).numpy())
