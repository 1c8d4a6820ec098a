import itertools

import numpy as np
import pytest

from tinyalpaca.data import RandomSampler, ShiftedSampler, WindowSampler
from tinyalpaca.data.samplers import permute

KINDS = [WindowSampler, RandomSampler, ShiftedSampler]


def epoch_of(sampler) -> list[list[int]]:
    return [batch.tolist() for batch in sampler]


def make(kind=WindowSampler, count=103, batch_size=8, **settings):
    if kind is RandomSampler:
        return RandomSampler(1000, batch_size, samples_per_epoch=count, **settings)
    if kind is ShiftedSampler:
        return ShiftedSampler(count * 10 + 4, batch_size, stride=10, **settings)
    return WindowSampler(count, batch_size, **settings)


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 255, 256, 257, 1000, 4097, 70_000])
def test_permute_is_a_permutation_at_every_size(count):
    result = permute(np.arange(count), count, seed=5, epoch=1)
    np.testing.assert_array_equal(np.sort(result), np.arange(count))


def test_permute_does_not_depend_on_how_it_is_asked():
    whole = permute(np.arange(500), 500, seed=1, epoch=2)
    some = np.array([499, 3, 77])
    np.testing.assert_array_equal(permute(some, 500, seed=1, epoch=2), whole[some])


def test_permutations_are_fair():
    # The new positions of the first of 10, for 2,000 seeds: 200 each, standard deviation 13.4.
    goes = [int(permute(np.array([0]), 10, seed, 0)[0]) for seed in range(2000)]
    assert np.abs(np.bincount(goes, minlength=10) - 200).max() < 5 * 13.4
    # All 24 orders of 4 occur about as often: 50 each, standard deviation 6.9.
    orders = [tuple(permute(np.arange(4), 4, 0, epoch).tolist()) for epoch in range(1200)]
    counts = [orders.count(order) for order in itertools.permutations(range(4))]
    assert np.abs(np.array(counts) - 50).max() < 5 * 6.9
    # Neighbours are separated, and the original order does not show.
    order = permute(np.arange(10_000), 10_000, 0, 0)
    assert abs(np.corrcoef(np.arange(10_000), order)[0, 1]) < 0.05
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.05


def test_an_epoch_has_every_window_once_and_each_epoch_its_own_order():
    sampler = make()
    first, second = epoch_of(sampler), epoch_of(sampler)
    for epoch in (first, second):
        assert sorted(itertools.chain(*epoch)) == list(range(103))
        assert [len(batch) for batch in epoch] == [8] * 12 + [7]
    assert first != second
    assert len(sampler) == 13
    assert sampler.state_dict() == {"seed": 0, "epoch": 2, "position": 0}


def test_windows_in_order():
    assert epoch_of(make(count=5, batch_size=2, shuffle=False)) == [[0, 1], [2, 3], [4]]


def test_the_last_small_batch_can_be_dropped():
    sampler = make(drop_last=True)
    assert [len(batch) for batch in sampler] == [8] * 12
    assert len(sampler) == 12
    assert sampler.state_dict() == {"seed": 0, "epoch": 1, "position": 0}


def test_random_windows_cover_the_data_evenly():
    sampler = RandomSampler(50, 1000, samples_per_epoch=20_000)
    counts = np.bincount(np.concatenate(list(sampler)), minlength=50)
    assert counts.sum() == 20_000
    assert np.abs(counts - 400).max() < 5 * 20  # standard deviation 20
    assert epoch_of(sampler) != epoch_of(RandomSampler(50, 1000, samples_per_epoch=20_000))


@pytest.mark.parametrize(("windows", "stride"), [(134, 10), (130, 10), (39, 10), (10, 10), (5, 1)])
def test_shifted_windows_lie_side_by_side_from_another_place_each_epoch(windows, stride):
    """All starts with which an epoch's windows fit are used, and no window exceeds the text."""
    sampler = ShiftedSampler(windows, 8, stride=stride)
    count, shifts = windows // stride, []
    for _ in range(200):
        order = np.concatenate(list(sampler))
        ordered = np.sort(order)
        assert len(ordered) == count and (np.diff(ordered) == stride).all()
        assert ordered[0] >= 0 and ordered[-1] < windows
        assert count < 4 or order.tolist() != ordered.tolist()
        shifts.append(int(ordered[0]))
    assert set(shifts) == set(range(windows - stride * (count - 1)))
    assert shifts[:9] == [sampler.shift_of(epoch) for epoch in range(9)]


def test_shifted_windows_of_a_short_text():
    """There are at least two windows, unless the text is shorter than that."""
    sampler = ShiftedSampler(7, 8, stride=10)
    starts = [epoch_of(sampler) for _ in range(100)]
    assert {tuple(map(tuple, epoch)) for epoch in starts} == {((start,),) for start in range(7)}
    for windows, stride in ((0, 3), (3, 0)):
        with pytest.raises(
            ValueError, match=r"num_windows \(.\) and stride \(.\) must be at least 1"
        ):
            ShiftedSampler(windows, 8, stride=stride)


@pytest.mark.parametrize("kind", KINDS)
def test_order_depends_on_the_seed_alone(kind):
    assert epoch_of(make(kind, seed=3)) == epoch_of(make(kind, seed=3))
    assert epoch_of(make(kind, seed=3)) != epoch_of(make(kind, seed=4))
    assert epoch_of(make(kind, seed=-1)) == epoch_of(make(kind, seed=2**64 - 1))


@pytest.mark.parametrize("kind", KINDS)
def test_going_on_from_any_state_gives_the_same_batches(kind):
    sampler = make(kind, seed=9)
    expected, states = [], []
    for _ in range(2):
        for batch in sampler:
            expected.append(batch.tolist())
            states.append(sampler.state_dict())
    for number, state in enumerate(states[:-1]):
        resumed = make(kind)
        resumed.load_state_dict(state)
        rest = epoch_of(resumed)
        assert rest == expected[number + 1 : number + 1 + len(rest)]
        assert len(rest) > 0
    assert all(type(value) is int for state in states for value in state.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_fits_another_batch_size(kind):
    whole = list(itertools.chain(*epoch_of(make(kind))))
    sampler = make(kind)
    for _ in range(3):
        next(iter(sampler))
    resumed = make(kind, batch_size=10)
    resumed.load_state_dict(sampler.state_dict())
    assert list(itertools.chain(*epoch_of(resumed))) == whole[24:]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_ranks_share_each_batch_of_the_same_order(kind, world_size):
    whole = epoch_of(make(kind))
    ranks = [epoch_of(make(kind, rank=rank, world_size=world_size)) for rank in range(world_size)]
    for number, batch in enumerate(whole):
        for rank in range(world_size):
            assert ranks[rank][number] == batch[rank::world_size]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_computes_the_same_batches(kind, workers):
    expected = epoch_of(make(kind))
    computed = {}
    for worker in range(workers):
        own = make(kind)
        for number in range(worker, len(own), workers):
            computed[number] = own.batch_at(number * own.batch_size, epoch=0).tolist()
        assert own.state_dict() == {"seed": 0, "epoch": 0, "position": 0}
    assert [computed[number] for number in range(len(expected))] == expected


def test_memory_does_not_grow_with_the_data():
    sampler = WindowSampler(10**15, 32, seed=1)
    batch = next(iter(sampler))
    assert len(set(batch.tolist())) == 32
    assert batch.min() >= 0
    assert 10**14 < batch.max() < 10**15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, r"count \(0\) and batch_size \(8\) must be at least 1"),
        ({"batch_size": 0}, r"batch_size \(0\) must be at least 1"),
        ({"rank": 2, "world_size": 2}, r"rank 2 is not one of 2 \(0 to 1\)"),
        ({"world_size": 3}, "batch_size 8 is shared by 3 processes: make it a multiple"),
        ({"count": 7, "drop_last": True}, "an epoch of 7 has no batch of 8"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_states_that_do_not_belong_are_refused():
    with pytest.raises(ValueError, match="the sampler's state lacks epoch, seed"):
        make().load_state_dict({"position": 0})
    for state in ({"position": 103}, {"position": -1}, {"epoch": -1}):
        with pytest.raises(ValueError, match="does not belong to data of 103 windows"):
            make().load_state_dict({"seed": 0, "epoch": 0, "position": 0, **state})
    with pytest.raises(ValueError, match="num_windows must be at least 1"):
        RandomSampler(0, 1, samples_per_epoch=1)
