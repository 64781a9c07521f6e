"""Datasets, samplers, collation, and the loader in one process."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flambeau
from flambeau import Generator
from flambeau.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
    random_split,
    sample_rng,
)


class Noisy(Dataset):
    """The index and a random number of the sample."""

    def __init__(self, n=20):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return index, sample_rng().normal()


class Count(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))

    def __len__(self):
        return self.n


def collected(loader):
    return [(batch[0].tolist(), batch[1].tolist()) for batch in loader]


def generator(seed):
    return Generator().manual_seed(seed)


# -- datasets ---------------------------------------------------------------------------------------------------------


def test_tensor_dataset_subset_and_concat():
    data = TensorDataset(flambeau.from_numpy(np.arange(10)), np.arange(10) * 2)
    assert len(data) == 10 and data[3][0].item() == 3 and data[3][1] == 6
    joined = data + Subset(data, [7, 8])
    assert isinstance(joined, ConcatDataset) and len(joined) == 12
    assert joined[10][1] == 14 and joined[-1][1] == 16 and joined[9][1] == 18
    for index in (12, -13):
        with pytest.raises(IndexError):
            joined[index]
    with pytest.raises(ValueError, match="same first size"):
        TensorDataset(np.zeros(2), np.zeros(3))


@given(total=st.integers(1, 50), fractions=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_random_split_parts_are_a_partition(total, fractions):
    shares = [f / sum(fractions) for f in fractions]
    parts = random_split(range(total), shares, generator(0))
    assert sorted(i for part in parts for i in part.indices) == list(range(total))
    for part, share in zip(parts, shares, strict=True):
        assert abs(len(part) - total * share) < len(shares)


def test_random_split_is_seeded_and_checks_lengths():
    first, second = (random_split(range(9), [4, 5], generator(3)) for _ in range(2))
    assert [list(p.indices) for p in first] == [list(p.indices) for p in second]
    with pytest.raises(ValueError, match="sum to 8"):
        random_split(range(9), [4, 4])


# -- samplers ---------------------------------------------------------------------------------------------------------


def test_samplers():
    assert list(SequentialSampler(range(4))) == [0, 1, 2, 3]
    assert sorted(RandomSampler(range(50), generator=generator(0))) == list(range(50))
    assert list(RandomSampler(range(50), generator=generator(0))) != list(range(50))
    assert sorted(SubsetRandomSampler([5, 7, 9])) == [5, 7, 9]
    assert len(list(RandomSampler(range(3), replacement=True, num_samples=10))) == 10
    assert collections.Counter(RandomSampler(range(3), num_samples=6)) == {0: 2, 1: 2, 2: 2}
    drawn = collections.Counter(WeightedRandomSampler([1, 0, 3], 4000, generator=generator(1)))
    assert drawn[1] == 0 and 0.7 < drawn[2] / 4000 < 0.8
    assert sorted(WeightedRandomSampler([1, 0, 3], 2, replacement=False)) == [0, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda g: RandomSampler(range(30), generator=g),
        lambda g: RandomSampler(range(30), replacement=True, generator=g),
        lambda g: SubsetRandomSampler(range(30), generator=g),
        lambda g: WeightedRandomSampler(np.ones(30), 30, generator=g),
    ],
)
@pytest.mark.parametrize("numpy_generator", [False, True])
def test_orders_follow_the_generator_change_each_epoch_and_replay(make, numpy_generator):
    def source():
        return np.random.default_rng(5) if numpy_generator else generator(5)

    sampler, again = make(source()), make(source())
    first, second = list(sampler), list(sampler)
    assert first != second and [list(again), list(again)] == [first, second]
    state = sampler.state_dict()
    other = make(generator(99))
    other.load_state_dict(state)
    assert list(other) == second and list(other) != second


@given(n=st.integers(0, 20), size=st.integers(1, 7), drop=st.booleans())
def test_batch_sampler(n, size, drop):
    sampler = BatchSampler(range(n), size, drop)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    kept = n - n % size if drop else n
    assert [i for batch in batches for i in batch] == list(range(kept))
    assert all(len(batch) == size for batch in batches[:-1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: BatchSampler(range(3), 0, False),
        lambda: BatchSampler(range(3), 2, 1),
        lambda: RandomSampler(range(3), num_samples=0),
        lambda: WeightedRandomSampler([1, -1], 2),
        lambda: WeightedRandomSampler([0, 0], 2),
        lambda: WeightedRandomSampler([1, float("nan")], 2),
        lambda: WeightedRandomSampler([1, 0], 2, replacement=False),
        lambda: DataLoader(range(3), batch_size=0),
        lambda: DataLoader(range(3), shuffle=True, sampler=[0]),
        lambda: DataLoader(range(3), batch_sampler=[[0]], batch_size=2),
        lambda: DataLoader(range(3), batch_size=None, drop_last=True),
        lambda: DataLoader(range(3), num_workers=-1),
        lambda: DataLoader(range(3), prefetch_factor=2),
        lambda: DataLoader(range(3), persistent_workers=True),
        lambda: DataLoader(range(3), timeout=-1),
        lambda: DataLoader(Count(3), shuffle=True),
    ],
)
def test_contradicting_arguments_are_refused(make):
    with pytest.raises(ValueError):
        make()


# -- collation --------------------------------------------------------------------------------------------------------


def test_default_collate():
    Pair = collections.namedtuple("Pair", "a b")
    samples = [
        {"t": flambeau.ones(2), "a": np.zeros((2, 2), np.uint8), "f": 1.5, "i": i, "s": "x", "p": Pair(i, "y"),
         "l": (i, [i]), "o": True}
        for i in range(3)
    ]  # fmt: skip
    batch = default_collate(samples)
    assert tuple(batch["t"].shape) == (3, 2) and batch["t"].dtype is flambeau.float32
    assert tuple(batch["a"].shape) == (3, 2, 2) and batch["a"].dtype is flambeau.uint8
    assert batch["f"].dtype is flambeau.float64 and batch["i"].tolist() == [0, 1, 2]
    assert batch["o"].dtype is flambeau.bool
    assert batch["s"] == ["x"] * 3 and isinstance(batch["p"], Pair) and batch["p"].a.tolist() == [0, 1, 2]
    assert isinstance(batch["l"], list) and batch["l"][1][0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("samples", "error", "words"),
    [
        ([{"x": np.zeros(2)}, {"x": np.zeros(3)}], ValueError, r"\['x'\] have different shapes"),
        ([{"x": 1}, {"y": 1}], ValueError, "different keys"),
        ([(1, 2), (1,)], ValueError, "different lengths"),
        ([object()], TypeError, "object"),
        ([np.array(["a"])], TypeError, "cannot become a Tensor"),
    ],
)
def test_what_cannot_be_batched(samples, error, words):
    with pytest.raises(error, match=words):
        default_collate(samples)


# -- the loader -------------------------------------------------------------------------------------------------------


def test_batches_lengths_and_drop_last():
    assert [b[0].tolist() for b in DataLoader(Noisy(5), 2)] == [[0, 1], [2, 3], [4]]
    loader = DataLoader(Noisy(5), 2, drop_last=True)
    assert len(loader) == 2 and [len(b[0]) for b in loader] == [2, 2]
    assert [b[0] for b in DataLoader(Noisy(3), batch_size=None)] == [0, 1, 2]
    assert [b[0].tolist() for b in DataLoader(Noisy(5), batch_sampler=[[4, 0], [1]])] == [[4, 0], [1]]
    assert [b[0].tolist() for b in DataLoader(Noisy(5), sampler=[3, 2])] == [[3], [2]]
    assert list(DataLoader([], 2)) == [] and len(DataLoader([], 2)) == 0


def test_iterable_dataset():
    loader = DataLoader(Count(5), 2)
    assert [b.tolist() for b in loader] == [[0, 1], [2, 3], [4]] and len(loader) == 3
    assert [b.tolist() for b in DataLoader(Count(5), 2, drop_last=True)] == [[0, 1], [2, 3]]
    assert list(DataLoader(Count(3), None)) == [0, 1, 2]


def test_getitems_is_used():
    class Several(Noisy):
        def __getitems__(self, indices):
            return [(i, sample_rng(i).normal()) for i in indices]

    flambeau.manual_seed(0)
    one_by_one = collected(DataLoader(Noisy(), 4, shuffle=True))
    flambeau.manual_seed(0)
    assert collected(DataLoader(Several(), 4, shuffle=True)) == one_by_one
    part = Subset(Several(), [5, 1, 3])
    assert [i for i, _ in part.__getitems__([2, 0])] == [3, 5]
    assert [batch[0].tolist() for batch in DataLoader(part, 2)] == [[5, 1], [3]]
    assert not hasattr(Subset(Noisy(), [1]), "__getitems__")
    assert Subset(np.arange(10) * 2, [5, 1, 3])[[0, 2]].tolist() == [10, 6]


def test_the_order_and_the_samples_follow_the_seed_and_change_each_epoch():
    def two_epochs(seed):
        flambeau.manual_seed(seed)
        loader = DataLoader(Noisy(), 4, shuffle=True)
        return [collected(loader), collected(loader)]

    first = two_epochs(1)
    assert two_epochs(1) == first and first[0] != first[1] and two_epochs(2) != first
    by_index = [{i: x for indices, values in epoch for i, x in zip(indices, values, strict=True)} for epoch in first]
    assert by_index[0][3] != by_index[1][3] and len(set(by_index[0].values())) == 20


def test_a_sample_is_the_same_whatever_the_batch_size():
    def by_index(batch_size):
        epoch = collected(DataLoader(Noisy(), batch_size, generator=generator(4)))
        return {i: x for indices, values in epoch for i, x in zip(indices, values, strict=True)}

    assert by_index(1) == by_index(7)


def test_collate_has_a_generator_of_the_batch():
    def mixed(samples):
        return sample_rng().normal()

    flambeau.manual_seed(0)
    first = list(DataLoader(Noisy(), 5, collate_fn=mixed))
    flambeau.manual_seed(0)
    assert list(DataLoader(Noisy(), 5, collate_fn=mixed)) == first and len(set(first)) == 4


def test_outside_a_loader_sample_rng_follows_the_global_seed():
    flambeau.manual_seed(3)
    first = sample_rng().normal()
    flambeau.manual_seed(3)
    assert sample_rng().normal() == first and get_worker_info() is None


def test_stop_iteration_in_a_dataset_does_not_end_the_epoch_silently():
    class Stops(Noisy):
        def __getitem__(self, index):
            raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(DataLoader(Stops()))


# -- resume -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [0, 1, 3, 5, "end", "before"])
@pytest.mark.parametrize("own_generator", [False, True])
def test_resume_gives_the_rest_of_the_epoch_and_the_same_epochs_after_it(stop, own_generator):
    def make(seed):
        return DataLoader(Noisy(), 4, shuffle=True, generator=generator(seed) if own_generator else None)

    flambeau.manual_seed(8)
    loader = make(8)
    whole = [collected(loader) for _ in range(4)]

    flambeau.manual_seed(8)
    loader = make(8)
    head = []
    if stop != "before":
        collected(loader)
        batches = iter(loader)
        if stop == "end":
            list(batches)
        else:
            head = [next(batches) for _ in range(stop)]
    state, rng = loader.state_dict(), flambeau.get_rng_state()

    flambeau.manual_seed(1234)
    other = make(77)
    other.load_state_dict(state)
    flambeau.set_rng_state(rng)
    assert other.state_dict() == state
    rest = [collected(other) for _ in range(2)]
    if stop == "before":
        assert rest == whole[:2]
    elif stop == "end":
        assert rest == whole[2:]
    else:
        assert [(b[0].tolist(), b[1].tolist()) for b in head] + rest[0] == whole[1] and rest[1] == whole[2]


def test_resume_does_not_load_what_was_seen():
    seen = []

    class Recording(Noisy):
        def __getitem__(self, index):
            seen.append(index)
            return index, 0

    loader = DataLoader(Recording(), 4)
    batches = iter(loader)
    next(batches), next(batches)
    state = loader.state_dict()
    seen.clear()
    loader.load_state_dict(state)
    assert len(list(loader)) == 3 and seen == list(range(8, 20))


def test_resume_of_an_iterable_dataset():
    loader = DataLoader(Count(10), 2)
    batches = iter(loader)
    next(batches), next(batches)
    other = DataLoader(Count(10), 2)
    other.load_state_dict(loader.state_dict())
    assert [b.tolist() for b in other] == [[4, 5], [6, 7], [8, 9]] and len(list(other)) == 5


def test_a_foreign_state_is_refused():
    with pytest.raises(ValueError, match="seed"):
        DataLoader(Noisy()).load_state_dict({})


# -- PyTorch's further datasets and samplers ---------------------------------------------------------------------------


def test_stacked_datasets():
    a, b = TensorDataset(np.arange(3)), [5, 6, 7]
    assert StackDataset(a, b)[1] == ((1,), 6) and len(StackDataset(a, b)) == 3
    batches = list(DataLoader(StackDataset(x=b, y=["p", "q", "r"]), 2))
    assert batches[0]["x"].tolist() == [5, 6] and batches[1]["y"] == ["r"]
    for build, words in [
        (lambda: StackDataset(a, x=b), "not both"),
        (lambda: StackDataset(), "at least one"),
        (lambda: StackDataset(b, [1]), "size mismatch"),
    ]:
        with pytest.raises(ValueError, match=words):
            build()


def test_chained_iterable_datasets():
    chain = Count(3) + Count(2)
    assert isinstance(chain, ChainDataset) and list(chain) == [0, 1, 2, 0, 1]
    assert [batch.tolist() for batch in DataLoader(chain, 2)] == [[0, 1], [2, 0], [1]] and len(chain) == 5
    with pytest.raises(TypeError, match="ConcatDataset"):
        list(ChainDataset([TensorDataset(np.arange(2))]))


@given(st.integers(1, 40), st.integers(1, 5), st.booleans(), st.booleans())
def test_distributed_shares(n, replicas, shuffle, drop):
    shares = [DistributedSampler(range(n), replicas, rank, shuffle, 3, drop) for rank in range(replicas)]
    orders = [list(share) for share in shares]
    assert [len(order) for order in orders] == [len(share) for share in shares]
    assert len(orders[0]) - len(orders[-1]) <= (0 if drop else 1)
    everything = [i for order in orders for i in order]
    assert set(everything) <= set(range(n)) and (drop or sorted(everything) == list(range(n)))
    assert not drop or len(everything) == len(set(everything)) == n // replicas * replicas
    assert orders[0] == list(shares[0])
    shares[0].set_epoch(1)
    assert not shuffle or n < 12 or list(shares[0]) != orders[0] or len(orders[0]) < 3


def test_distributed_sampler_needs_its_place():
    with pytest.raises(RuntimeError, match="num_replicas and rank"):
        DistributedSampler(range(3))
    with pytest.raises(ValueError, match="Invalid rank 2"):
        DistributedSampler(range(3), 2, 2)


def test_utils_data_is_the_same_package():
    from flambeau.utils import data
    from flambeau.utils.data import DataLoader as Same

    assert Same is DataLoader and data.TensorDataset is TensorDataset


def test_arguments_without_effect_are_accepted():
    loader = DataLoader([1, 2], pin_memory=True, pin_memory_device="cuda", in_order=False)
    assert [batch.tolist() for batch in loader] == [[1], [2]]
