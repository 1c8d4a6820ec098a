"""The gradient of a batch is the same for any number and kind of workers."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import threadpoolctl

import minigrad as mg
from minigrad import nn, optim
from minigrad.parallel import WholeBatch, WorkerError, Workers, choose_backend, shared_array
from minigrad.parallel.engine import cut, number_of_lanes

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
TEAMS = [
    (1, "processes"),
    (2, "threads"),
    pytest.param(2, "processes", marks=fork),
    pytest.param(3, "processes", marks=fork),
]


def make_model():
    rng = mg.Generator(3)
    return nn.Sequential(nn.Linear(5, 16, rng=rng), nn.Tanh(), nn.Linear(16, 4, rng=rng))


def make_workers(model, **options):
    def loss(part, key):
        x, targets = part
        return nn.functional.cross_entropy(model(mg.Tensor(x)), targets, reduction="sum")

    return Workers(model.parameters(), loss, loss, **options)


@pytest.fixture
def batch(rng):
    return rng.standard_normal((37, 5)).astype(np.float32), rng.integers(0, 4, 37)


def result(batch, **options):
    """Losses and gradients of two steps, with a plain gradient-descent update between them."""
    with make_workers(make_model(), **options) as workers:
        seen = []
        for step in range(2):
            loss = workers.gradients(batch, scale=1 / 37, key=step)
            seen += [loss, workers.flat.grad.copy(), workers.evaluate(batch)]
            workers.flat.data -= workers.flat.grad
        return seen


@pytest.mark.parametrize(("workers", "backend"), TEAMS)
def test_numbers_are_the_same_bit_for_bit_whoever_computes(batch, workers, backend):
    alone = result(batch, workers=1, micro_batch_size=3)
    team = result(batch, workers=workers, micro_batch_size=3, backend=backend)
    for ours, expected in zip(team, alone, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_the_gradient_is_that_of_the_whole_batch(batch):
    model = make_model().astype("float64")
    x, targets = batch
    loss = nn.functional.cross_entropy(model(mg.Tensor(x.astype("float64"))), targets)
    expected = mg.grad(loss, model.parameters())
    with make_workers(model, workers=1, micro_batch_size=5) as workers:
        ours = workers.gradients((x.astype("float64"), targets), scale=1 / 37)
        assert ours == pytest.approx(loss.item(), rel=1e-12)
        for parameter, gradient in zip(model.parameters(), expected, strict=True):
            np.testing.assert_allclose(parameter.grad.numpy(), gradient.numpy(), rtol=1e-10)


def test_whole_batch_has_the_same_interface_and_numbers(batch):
    model = make_model()

    def loss(part, key):
        x, targets = part
        return nn.functional.cross_entropy(model(mg.Tensor(x)), targets, reduction="sum")

    engine = WholeBatch(model.parameters(), loss, loss)
    value = engine.gradients(batch, scale=1 / 37)
    expected = result(batch, workers=1, micro_batch_size=37)
    assert value == pytest.approx(expected[0], rel=1e-6)
    np.testing.assert_allclose(engine.flat.grad, expected[1], rtol=1e-4, atol=1e-7)
    assert engine.evaluate(batch) == pytest.approx(expected[2], rel=1e-6)
    engine.close()


def test_keys_differ_for_every_micro_batch_and_step():
    model, keys = make_model(), []

    def loss(part, key):
        keys.append(key)
        return model(mg.Tensor(part[0])).sum()

    with Workers(model.parameters(), loss, loss, workers=1, micro_batch_size=2) as workers:
        for step in range(3):
            workers.gradients((np.zeros((7, 5), np.float32),), scale=1.0, key=step)
    assert len(set(keys)) == len(keys) == 12


@fork
def test_a_worker_that_dies_is_a_clear_error(batch):
    model, caller = make_model(), os.getpid()

    def loss(part, key):
        if os.getpid() != caller:
            os.kill(os.getpid(), signal.SIGKILL)
        return model(mg.Tensor(part[0])).sum()

    with (
        Workers(
            model.parameters(), loss, loss, workers=2, micro_batch_size=1, backend="processes"
        ) as workers,
        pytest.raises(WorkerError, match="was killed by signal 9"),
    ):
        for _ in range(50):  # at first the other worker may be too late to get a lane
            workers.gradients(batch, scale=1.0)


@fork
def test_an_exception_in_a_worker_comes_back(batch):
    model, caller = make_model(), os.getpid()

    def loss(part, key):
        if os.getpid() != caller:
            raise ValueError("no such thing")
        return model(mg.Tensor(part[0])).sum()

    with (
        Workers(
            model.parameters(), loss, loss, workers=2, micro_batch_size=1, backend="processes"
        ) as workers,
        pytest.raises(WorkerError, match="no such thing"),
    ):
        for _ in range(50):
            workers.gradients(batch, scale=1.0)


@fork
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_its_parent(signal_number):
    """Workers end when the main process ends, in any way."""
    program = """
        import os, time
        import numpy as np
        import minigrad as mg
        from minigrad.parallel import Workers

        weight = mg.nn.Parameter(np.ones(3, np.float32))

        def loss(part, key):
            return (weight * mg.Tensor(part[0])).sum()

        workers = Workers([weight], loss, loss, workers=2, micro_batch_size=1, backend="processes")
        workers.gradients((np.ones((4, 3), np.float32),), scale=1.0)
        print(workers._team._children[0].pid, flush=True)
        time.sleep(60)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        worker = int(parent.stdout.readline())
        parent.send_signal(signal_number)
        parent.wait(10)
    for _ in range(100):
        if not _is_running(worker):
            return
        time.sleep(0.1)
    pytest.fail(f"worker {worker} is still running")


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@fork
def test_shared_memory_is_seen_by_children_and_has_no_name():
    array = shared_array((2, 3), "float32")
    pid = os.fork()
    if pid == 0:
        array[...] = 7
        os._exit(0)
    os.waitpid(pid, 0)
    assert (array == 7).all()


def test_lanes_cover_a_batch_in_order_and_do_not_depend_on_workers():
    for batch, micro, lanes in [(32, 4, 8), (7, 3, 8), (100, 1, 8), (1, 4, 2), (33, 4, 4)]:
        plan = cut(batch, micro, lanes)
        rows = [row for lane in plan for part in lane for row in range(part.start, part.stop)]
        assert rows == list(range(batch))
        assert len(plan) <= lanes
        assert all(plan)


def test_large_models_get_fewer_lanes():
    assert number_of_lanes(10**6) == 8
    assert number_of_lanes(43 * 10**6) == 4
    assert number_of_lanes(10**9) == 2


def test_a_notebook_gets_threads(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert choose_backend() == "threads"


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="micro_batch_size at least 1"):
        make_workers(make_model(), micro_batch_size=0)


def steps(batch, *, shared, groups, workers, backend="processes"):
    """Parameters after three clipped AdamW steps, with or without sharing the optimizer's work."""
    model = make_model()
    params = model.parameters()
    if groups:
        params = [
            {"params": [p for p in params if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in params if p.ndim == 1], "weight_decay": 0.0, "lr": 0.02},
        ]
    optimizer = optim.AdamW(params, lr=0.05)
    options = {"optimizer": optimizer} if shared else {}
    with make_workers(
        model, workers=workers, micro_batch_size=4, backend=backend, **options
    ) as team:
        for number in range(3):
            team.gradients(batch, scale=1.0, key=number)
            if shared:
                team.update(optimizer, max_norm=0.5)
            else:
                norm = optim.clip_grad_norm_(model.parameters(), 0.5)
                assert norm == pytest.approx(team.grad_norm, rel=1e-5)
                optimizer.step()
    return model.state_dict(), optimizer.state_dict()


@pytest.mark.parametrize("groups", [False, True], ids=["one group", "two groups"])
@pytest.mark.parametrize(("workers", "backend"), TEAMS)
def test_a_shared_update_is_the_optimizers_own(batch, monkeypatch, groups, workers, backend):
    monkeypatch.setattr("minigrad.parallel.cpu.SLICE", 50)  # several slices per parameter group
    plain, plain_state = steps(batch, shared=False, groups=groups, workers=1)
    ours, state = steps(batch, shared=True, groups=groups, workers=workers, backend=backend)
    alone, _ = steps(batch, shared=True, groups=groups, workers=1)
    for name, value in plain.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(ours[name], alone[name])
    assert [entry["step"] for entry in state["state"].values()] == [3] * 4
    for number, entry in plain_state["state"].items():
        np.testing.assert_allclose(
            state["state"][number]["exp_avg"], entry["exp_avg"], rtol=1e-4, atol=1e-7
        )


class nudge(optim.Rule):
    """A user's rule that needs whole parameters: moves towards 0 by the size of the gradients."""

    state = ("step", "seen")
    elementwise = False

    def step(xp, p, g, seen, *, lr, step):
        seen = xp.maximum(seen, xp.abs(g))
        return p - lr / step * g / (1 + seen.max(axis=tuple(range(1, p.ndim)), keepdims=True)), seen


class Nudge(optim.Optimizer):
    rule = nudge

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})


def muon(params):
    matrices = [p for p in params if p.ndim == 2]
    rest = [p for p in params if p.ndim != 2]
    return optim.Muon([{"params": matrices, "orthogonal": True}, {"params": rest}], lr=0.05)


KINDS = {
    "sgd": lambda params: optim.SGD(params, lr=0.05),
    "momentum": lambda params: optim.SGD(params, lr=0.05, momentum=0.9, dampening=0.1),
    "adam": lambda params: optim.Adam(params, lr=0.05, weight_decay=0.1, amsgrad=True),
    "rmsprop": lambda params: optim.RMSprop(params, lr=0.05, momentum=0.5, maximize=True),
    "muon": muon,
    "of one's own": lambda params: Nudge(params, lr=0.05),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("workers", "backend"), TEAMS)
def test_every_optimizer_is_shared(batch, monkeypatch, make, workers, backend):
    """Weights and state are bitwise identical to those without sharing."""
    monkeypatch.setattr("minigrad.parallel.cpu.SLICE", 50)
    results = []
    for shared in (False, True):
        model = make_model()
        optimizer = make(model.parameters())
        with make_workers(
            model, optimizer=optimizer, workers=workers, micro_batch_size=4, backend=backend
        ) as team:
            for number in range(4):
                team.gradients(batch, scale=1.0, key=number)
                if shared:
                    team.update(optimizer, max_norm=0.5)
                else:
                    optimizer.step(optim.clip.clip_scale(team.grad_norm, 0.5))
        results.append((model.state_dict(), optimizer.state_dict()))
    (plain, plain_state), (ours, state) = results
    for name, value in plain.items():
        np.testing.assert_array_equal(ours[name], value)
    for number, entry in plain_state["state"].items():
        for name, value in entry.items():
            np.testing.assert_array_equal(state["state"][number][name], value)


def test_what_is_not_in_shared_memory_is_stepped_all_the_same(batch):
    """A group that was added later, and a parameter whose array was replaced."""
    weights = []
    for shared in (False, True):
        model, late = make_model(), nn.Parameter(np.ones(3, np.float32))
        optimizer = optim.AdamW(model.parameters(), lr=0.05)
        with make_workers(model, optimizer=optimizer, workers=2, micro_batch_size=4) as team:
            for number in range(3):
                team.gradients(batch, scale=1.0, key=number)
                late.grad = mg.ones(3)
                if number == 1:
                    optimizer.add_param_group({"params": late})
                first = model.parameters()[0]
                if number == 2:
                    first.data = first.data.copy()
                if shared:
                    team.update(optimizer)
                else:
                    optimizer.step()
        weights.append([p.numpy() for p in optimizer.parameters()])
    assert len(weights[0]) == 5 and weights[0][4].max() < 1
    for ours, plain in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize("own", [False, True])
def test_an_update_is_noticed_by_graphs_that_have_read_the_weights(batch, own):
    model = make_model()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with make_workers(model, workers=2, optimizer=optimizer if own else None) as team:
        team.gradients(batch, scale=1.0)
        loss = model(mg.Tensor(batch[0])).sum()
        team.update(optimizer)
        with pytest.raises(mg.InPlaceError):
            loss.backward()


def test_an_optimizer_of_other_parameters_is_refused(batch):
    optimizer = optim.SGD([nn.Parameter([1.0])])
    with pytest.raises(ValueError, match="a parameter that the engine was not given"):
        make_workers(make_model(), optimizer=optimizer)


def test_micro_batches_are_those_of_the_losses(batch):
    seen = []

    def loss(part, key):
        seen.append((len(part[0]), key))
        return (weight * mg.Tensor(part[0][:, 0])).sum()

    weight = nn.Parameter([1.0])
    with Workers([weight], loss, loss, workers=1, micro_batch_size=3) as workers:
        workers.gradients(batch, scale=1.0, key=7)
        told = [(len(part[0]), key) for part, key in workers.micro_batches(batch, 7)]
    assert told == seen and sum(n for n, _ in told) == 37
    seen.clear()
    whole = WholeBatch([weight], loss, loss)
    whole.gradients(batch, scale=1.0, key=7)
    assert [(len(part[0]), key) for part, key in whole.micro_batches(batch, 7)] == seen


def test_another_optimizer_is_stepped_as_it_is(batch):
    model = make_model()
    with make_workers(model, workers=1) as team:
        team.gradients(batch, scale=1.0)
        before, gradient = team.flat.data.copy(), team.flat.grad.copy()
        team.update(optim.SGD(model.parameters(), lr=0.1), max_norm=1.0)
        clipped = gradient / np.linalg.norm(gradient)
        np.testing.assert_allclose(team.flat.data, before - 0.1 * clipped, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("workers", "backend"), TEAMS)
def test_every_worker_has_single_threaded_blas(workers, backend):
    """BLAS threads of several workers would compete for the same cores."""
    weight = nn.Parameter(np.ones(3, np.float32))
    threads = shared_array(8, np.int64)

    def loss(part, key):
        pools = threadpoolctl.threadpool_info()
        found = [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"]
        threads[key % 2**20] = max(found, default=1)
        time.sleep(0.02)  # so that every worker gets a lane
        return (weight * mg.Tensor(part[0])).sum()

    with Workers(
        [weight], loss, loss, workers=workers, micro_batch_size=1, backend=backend
    ) as team:
        team.gradients((np.ones((8, 3), np.float32),), scale=1.0)
    assert threads.tolist() == [1] * 8


def test_an_empty_batch_has_no_loss_and_no_gradient(batch):
    with make_workers(make_model(), workers=1) as workers:
        workers.gradients(batch, scale=1.0)
        nothing = tuple(part[:0] for part in batch)
        assert workers.evaluate(nothing) == 0.0
        assert workers.gradients(nothing, scale=1.0) == 0.0 == workers.grad_norm
        assert (workers.flat.grad == 0).all()
        assert workers.evaluate(batch) > 0, "and the next batch has one"
