"""Which windows come next: the order depends only on (seed, epoch, position).

So the state is three integers, resuming costs nothing, and any number of workers or processes sees
the same order. A shuffled epoch is not a list but a keyed permutation that is evaluated where it is
needed, so memory does not grow with the corpus.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

State = dict[str, int]

_ROUNDS = 6
_SHIFTS = 1  # so that random shifts and random orders have different seeds


def mix(values: np.ndarray) -> np.ndarray:
    """Hash uint64 to uint64: SplitMix64's finalizer (Steele, Lea and Flood, 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _key(*numbers: int) -> np.ndarray:
    """One uint64, in an array of one element, from several numbers."""
    key = np.zeros(1, np.uint64)
    for number in numbers:
        key = mix(key ^ np.uint64(number % 2**64))
    return key


def permute(positions: np.ndarray, count: int, seed: int, epoch: int) -> np.ndarray:
    """Where `positions` (each in 0 to count - 1) go in a random permutation of `count` things.

    A Feistel network (Luby and Rackoff, 1988) permutes the numbers of an even count of bits;
    numbers that come out too large are put in again until they are small enough, which is still a
    permutation (Black and Rogaway, 2002, "Ciphers with Arbitrary Finite Domains").
    """
    half = np.uint64(max(2, ((count - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    keys = mix(_key(seed, epoch) ^ np.arange(_ROUNDS, dtype=np.uint64))
    result = positions.astype(np.uint64)
    todo = np.arange(len(result))
    while len(todo):
        values = result[todo]
        left, right = values >> half, values & mask
        for key in keys:
            left, right = right, left ^ (mix(right ^ key) & mask)
        values = left << half | right
        result[todo] = values
        todo = todo[values >= np.uint64(count)]
    return result.astype(np.int64)


class _Sampler:
    """Yields arrays of indices, batch by batch, to the end of an epoch.

    A batch has `batch_size` indices *over all ranks*, of which this rank gets every `world_size`th.
    The last batch of an epoch may be smaller; with `drop_last` it is then left out. Iteration
    starts from the state, which after the last batch is the start of the next epoch.
    """

    count: int
    batch_size: int
    drop_last: bool
    rank: int
    world_size: int
    seed: int
    epoch: int
    position: int

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        if count < 1 or batch_size < 1:
            raise ValueError(f"count ({count}) and batch_size ({batch_size}) must be at least 1")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not one of {world_size} (0 to {world_size - 1})")
        if batch_size % world_size:
            raise ValueError(
                f"batch_size {batch_size} is shared by {world_size} processes: make it a multiple"
            )
        if drop_last and count < batch_size:
            raise ValueError(
                f"with drop_last an epoch of {count} has no batch of {batch_size}: make it smaller"
            )
        self.count, self.batch_size, self.drop_last = count, batch_size, drop_last
        self.rank, self.world_size = rank, world_size
        self.seed, self.epoch, self.position = seed, 0, 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(self.count, self.batch_size)
        return full if self.drop_last or not rest else full + 1

    def indices_at(self, positions: np.ndarray, epoch: int) -> np.ndarray:
        """The indices (n,) at these positions (n,) of an epoch's order."""
        raise NotImplementedError

    def batch_at(self, position: int, epoch: int) -> np.ndarray:
        """This rank's indices in the batch from `position` of an epoch on; keeps no state."""
        positions = np.arange(position, min(position + self.batch_size, self.count))
        return self.indices_at(positions[self.rank :: self.world_size], epoch)

    def __iter__(self) -> Iterator[np.ndarray]:
        needed = self.batch_size if self.drop_last else 1
        epoch = self.epoch
        while self.epoch == epoch:
            position = self.position
            self.position += self.batch_size
            if self.count - self.position < needed:
                self.epoch, self.position = epoch + 1, 0
            if self.count - position >= needed:
                yield self.batch_at(position, epoch)

    def state_dict(self) -> State:
        """Seed, epoch, and position: how many indices of the epoch all ranks together have used."""
        return {"seed": self.seed, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: State) -> None:
        """Continue from a state. `batch_size` and `world_size` may be others than before."""
        missing = {"seed", "epoch", "position"} - state.keys()
        if missing:
            raise ValueError(f"the sampler's state lacks {', '.join(sorted(missing))}")
        if not 0 <= state["position"] < self.count or state["epoch"] < 0:
            raise ValueError(
                f"the sampler's state {dict(state)} does not belong to data of {self.count} windows"
            )
        self.seed, self.epoch, self.position = state["seed"], state["epoch"], state["position"]


class WindowSampler(_Sampler):
    """Every index once an epoch, in a new random order or, with `shuffle=False`, in order."""

    def __init__(
        self, count: int, batch_size: int, *, shuffle: bool = True, **settings: Any
    ) -> None:
        super().__init__(count, batch_size, **settings)
        self.shuffle = shuffle

    def indices_at(self, positions: np.ndarray, epoch: int) -> np.ndarray:
        return permute(positions, self.count, self.seed, epoch) if self.shuffle else positions


class RandomSampler(_Sampler):
    """Indices drawn at random, with replacement, from 0 to `num_windows - 1`.

    `samples_per_epoch` says how many make an epoch.
    """

    def __init__(
        self, num_windows: int, batch_size: int, samples_per_epoch: int, **settings: Any
    ) -> None:
        super().__init__(samples_per_epoch, batch_size, **settings)
        if num_windows < 1:
            raise ValueError(f"num_windows must be at least 1: {num_windows}")
        self.num_windows = num_windows

    def indices_at(self, positions: np.ndarray, epoch: int) -> np.ndarray:
        hashes = mix(positions.astype(np.uint64) ^ _key(self.seed, epoch))
        return (hashes % np.uint64(self.num_windows)).astype(np.int64)


class ShiftedSampler(_Sampler):
    """Windows without overlap in random order; the first begins at another token in every epoch.

    So each token is predicted once an epoch, as with `WindowSampler`, but each time from another
    context. The indices are those of a dataset with a window at every token.

    Args:
        num_windows: the indices go from 0 to this - 1.
        stride: from one window of an epoch to the next.
    """

    num_windows: int
    stride: int

    def __init__(self, num_windows: int, batch_size: int, stride: int, **settings: Any) -> None:
        if num_windows < 1 or stride < 1:
            raise ValueError(
                f"num_windows ({num_windows}) and stride ({stride}) must be at least 1"
            )
        super().__init__(max(1, num_windows // stride), batch_size, **settings)
        self.num_windows, self.stride = num_windows, stride

    def shift_of(self, epoch: int) -> int:
        """Where the first window of an epoch begins, such that all windows still fit."""
        places = self.num_windows - self.stride * (self.count - 1)
        return int(_key(self.seed, epoch, _SHIFTS)[0] % np.uint64(places))

    def indices_at(self, positions: np.ndarray, epoch: int) -> np.ndarray:
        order = permute(positions, self.count, self.seed, epoch)
        return self.shift_of(epoch) + self.stride * order
