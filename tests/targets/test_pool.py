"""Threads: Ctrl-C, progress and what is said while functions are compiled."""

import math
import os
import signal
import sys
import threading
import time

import fuzz_kernels
import numba
import numpy as np
import pytest

from vgp_kernels import Network, Recurrent, Transformer, propagate
from vgp_kernels.targets import pool
from vgp_kernels.train import train

X = np.random.default_rng(0).standard_normal((200, 8))
Y = np.arange(200) % 2


def learn(network, trials, epochs, **options):
    return train(network, X, Y, learning_rate=0.01, epochs=epochs, trials=trials, **options).parameters


def flow(network, trials, **options):
    return propagate(network, trials, **options).log_gradient


JOBS = {  # a long job, and a short one of the same kernels
    "plain": (lambda **o: flow(Network(1000, 1000, "tanh", "xavier"), 100_000, **o), Network(3, 5, "tanh", "xavier")),
    "one plain network": (
        lambda **o: flow(Network(100_000, 10_000, "tanh", "xavier"), 1, **o), Network(3, 5, "tanh", "xavier"),
    ),
    "batches": (
        lambda **o: flow(Network(500, 500, "tanh", "xavier", batch_size=4), 10_000, **o),
        Network(3, 5, "tanh", "xavier", batch_size=2),
    ),
    "one batch": (
        lambda **o: flow(Network(20_000, 3000, "tanh", "xavier", batch_size=4), 1, **o),
        Network(3, 5, "tanh", "xavier", batch_size=2),
    ),
    "recurrent": (lambda **o: flow(Recurrent(500, 200, "tanh", "lecun"), 10_000, **o), Recurrent(3, 5, "tanh", "lecun")),
    "one recurrent network": (
        lambda **o: flow(Recurrent(20_000, 1500, "tanh", "lecun", input_width=10), 1, **o), Recurrent(3, 5, "tanh", "lecun"),
    ),
    "a Haar matrix": (
        lambda **o: flow(Recurrent(2, 4000, "tanh", "orthogonal"), 1, **o), Recurrent(3, 5, "tanh", "orthogonal"),
    ),
    "transformers": (lambda **o: flow(Transformer(20, 128), 10_000, **o), Transformer(2, 8)),
    "one transformer": (lambda **o: flow(Transformer(2, 1024, tokens=2000), 1, **o), Transformer(2, 8)),
}  # fmt: skip
TRAINED = Network(3, 30, "tanh", "xavier")
JOBS["training"] = (lambda **o: learn(TRAINED, 100, 5000, **o), None)
JOBS["one network in training"] = (lambda **o: learn(TRAINED, 1, 200_000, **o), None)


def short(network, **options):
    return learn(TRAINED, 2, 1, **options) if network is None else flow(network, 5, **options)


@pytest.mark.parametrize("name", JOBS)
def test_control_c_stops_all_threads_and_the_next_call_works(name):
    job, small = JOBS[name]
    expected, threads = short(small), threading.active_count()
    began = []

    def interrupt():
        began.append(time.process_time())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(1.0, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        job(threads=2)
    assert (
        time.process_time() - began[0] < 2
    )  # seconds of two threads: the clock also counts what else the machine does
    timer.join()
    assert threading.active_count() == threads
    assert short(small).tobytes() == expected.tobytes()


def test_what_a_thread_raises_stops_the_others_and_is_raised():
    done = []

    def work(pieces, watch):
        for piece in pieces:
            if piece == 3:
                raise OSError("of the fourth piece")
            done.append(piece)
            time.sleep(0.01)

    before = threading.active_count()
    with pytest.raises(OSError, match="of the fourth piece"):
        pool.share(range(10_000), 3, work)
    assert len(done) < 100 and threading.active_count() == before


def test_each_piece_is_taken_once():
    taken = []
    pool.share(range(1000), 7, lambda pieces, watch: taken.extend(pieces))
    assert sorted(taken) == list(range(1000))


@pytest.mark.parametrize("bar", ["tqdm", "plain"])
@pytest.mark.parametrize("name", ["plain", "batches", "recurrent", "transformers", "training"])
def test_progress_is_shown_to_the_end_and_changes_no_bit(name, bar, capfd, monkeypatch):
    if bar == "plain":
        monkeypatch.setitem(sys.modules, "tqdm", None)
    _, small = JOBS[name]
    silent = short(small)
    assert capfd.readouterr().err == ""
    assert short(small, progress=True).tobytes() == silent.tobytes()
    assert "100 %" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["plain", "batches", "recurrent", "transformers", "training"])
def test_progress_counts_the_steps_that_kernels_do(name, monkeypatch):
    # or the bar would stand still within long networks, or run over
    seen = []
    share = pool.share

    def counted(pieces, threads, work, progress=False, steps=1):
        def work_and_look(own, watch):
            def each():
                for piece in own:
                    before = watch[pool.DONE]
                    yield piece
                    seen.append((int(watch[pool.DONE] - before), steps))

            work(each(), watch)

        share(pieces, 1, work_and_look, progress, steps)

    for room in ("plain.kernels", "batch.kernels", "recurrent.kernels", "transformer.kernels", "classifier.learning"):
        monkeypatch.setattr(f"vgp_kernels.{room}.share", counted)
    short(JOBS[name][1])
    assert seen and all(done == steps for done, steps in seen), seen


def test_progress_is_true_or_false():
    with pytest.raises(TypeError, match="progress must be True or False, not 1"):
        propagate(Network(2, 3, "tanh", "xavier"), 1, progress=1)


def test_compilation_is_announced_to_those_who_wait(capfd, monkeypatch):
    monkeypatch.setattr(pool, "PATIENCE", 0.0)
    for watching, said in ((True, True), (False, False)):
        with pool.announced(watching):
            numba.njit(lambda x: x + 1)(1)
            time.sleep(0.1)
        assert ("compiles" in capfd.readouterr().err) == said
    with pool.announced(True):  # nothing to compile
        time.sleep(0.1)
    assert capfd.readouterr().err == ""


def test_random_networks_of_every_family_are_computed_or_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(fuzz_kernels, "ACTIVATIONS", ("tanh", "relu"))  # each takes its time to compile
    done = fuzz_kernels.main(math.inf, 0, most=60)
    assert sum(done.values()) == 60 and min(done.values()) > 10
