"""What Network and propagate accept, what they make of it, and what they say about everything else."""

import math
from dataclasses import fields
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgp_kernels import ACTIVATIONS, INITIALISERS, Network, propagate
from vgp_kernels.network import LARGEST, MAY_BE_ZERO, NORM_POSITIONS, NORMALISATIONS, RANGE, RESIDUALS

COUNTS = tuple(LARGEST)
REALS = tuple(RANGE)
NAMED = {
    "activation": ACTIVATIONS,
    "initialiser": INITIALISERS,
    "normalisation": NORMALISATIONS,
    "norm_position": NORM_POSITIONS,
    "residual": RESIDUALS,
}
MAY_BE_NONE = {"initialiser", "weight_variance", "input_width", "normalisation", "residual"}
VALID = {"depth": 5, "width": 8, "activation": "tanh", "initialiser": "he"}

no_numbers = st.one_of(
    st.none(), st.booleans(), st.text(max_size=5), st.binary(max_size=3), st.just([3]), st.just((3,)), st.just({}),
    st.complex_numbers(), st.just(np.bool_(True)), st.just(np.array([3])), st.just(np.array(3.0)), st.just(object),
)  # fmt: skip
no_counts = st.one_of(no_numbers, st.floats(), st.floats(1, 100).map(np.float64), st.just(Fraction(7, 2)))
no_names = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.just(["tanh"]), st.binary(max_size=3))


def counts(name, below=None):
    """Whole numbers in range, as Python's and NumPy's."""
    numbers = st.integers(1, below or LARGEST[name])
    return st.one_of(numbers, numbers.map(np.int64), numbers.map(np.uint32))


def reals(name):
    """Numbers in range, as Python's, NumPy's and fractions."""
    smallest, largest = RANGE[name]
    numbers = st.floats(smallest, largest)
    kinds = [numbers, numbers.map(np.float64), st.integers(1, min(1000, int(largest))), st.just(Fraction(1, 3))]
    return st.one_of(*kinds, st.just(0)) if name in MAY_BE_ZERO else st.one_of(*kinds)


@st.composite
def plain_networks(draw, depth=None, width=None, activations=None):
    """Arguments of networks with one input, without norms and skips."""
    chosen = {"depth": draw(counts("depth", depth)), "width": draw(counts("width", width))}
    parameter = st.floats(0, 1000).map(lambda x: f"leaky_relu({x!r})") | st.floats(0, 1000).map(lambda x: f"elu({x!r})")
    known = st.sampled_from(activations or sorted(ACTIVATIONS))
    chosen["activation"] = draw(known if activations else known | parameter)
    if draw(st.booleans()):
        chosen["initialiser"] = draw(st.sampled_from(sorted(INITIALISERS)))
    else:
        chosen["weight_variance"] = draw(reals("weight_variance"))
    if chosen.get("initialiser") != "orthogonal" and draw(st.booleans()):
        chosen["input_width"] = draw(counts("input_width", width))
    for name in ("bias_variance", "input_rms"):
        if draw(st.booleans()):
            chosen[name] = draw(reals(name))
    return chosen


@given(plain_networks())
def test_what_is_valid_is_kept_in_plain_python_numbers(chosen):
    network = Network(**chosen)
    assert network.is_plain
    for name in COUNTS:
        assert type(getattr(network, name)) is int or (name == "input_width" and network.input_width is None)
    for name in REALS:
        assert type(getattr(network, name)) is float
    for name, value in chosen.items():
        assert getattr(network, name) == (float(value) if name in REALS else value)
    plain = {name: v if isinstance(v, str) else float(v) if name in REALS else int(v) for name, v in chosen.items()}
    assert Network(**plain) == network and hash(Network(**plain)) == hash(network)


@settings(max_examples=60, deadline=None)
@given(
    plain_networks(depth=30, width=20, activations=("tanh", "relu")),
    st.integers(1, 40),
    st.integers(0, 2**64 - 1),
)
def test_what_is_valid_gives_an_ordinary_result(chosen, trials, seed):
    network = Network(**chosen)
    flow = propagate(network, trials, seed)
    assert flow.network == network and flow.trials == trials and flow.seed == seed
    assert flow.log_signal.shape == flow.log_gradient.shape == (trials, network.depth + 1)
    assert flow.log_weight_gradient.shape == (trials, network.depth)
    for values in (flow.log_signal, flow.log_gradient, flow.log_weight_gradient):
        assert values.dtype == np.float64 and not np.isnan(values).any() and not np.isposinf(values).any()
    assert np.allclose(flow.log_signal[:, 0], math.log(network.input_rms), rtol=1e-12, atol=1e-12)
    assert (flow.log_gradient[:, -1] == 0).all()


def refused(error, chosen, *words):
    """Network refuses it with this error, and the message holds the words."""
    with pytest.raises(error) as raised:
        Network(**chosen)
    assert type(raised.value) is error
    for word in words:
        assert word in str(raised.value), (word, str(raised.value))


@pytest.mark.parametrize("name", COUNTS)
@given(value=no_counts)
def test_what_is_no_whole_number_is_refused(name, value):
    if not (value is None and name in MAY_BE_NONE):
        refused(TypeError, VALID | {name: value}, name, repr(value), "whole number")


@pytest.mark.parametrize("name", REALS)
@given(value=no_numbers)
def test_what_is_no_number_is_refused(name, value):
    if not (value is None and name in MAY_BE_NONE):
        refused(TypeError, VALID | {"initialiser": "orthogonal"} | {name: value}, name, repr(value), "a number")


@pytest.mark.parametrize("name", COUNTS)
@given(data=st.data())
def test_counts_out_of_range_are_refused(name, data):
    value = data.draw(st.integers(max_value=0) | st.integers(min_value=LARGEST[name] + 1) | st.just(10**400))
    refused(ValueError, VALID | {name: value}, name, repr(value), f"from 1 to {LARGEST[name]}")


@pytest.mark.parametrize("name", REALS)
@given(data=st.data())
def test_numbers_out_of_range_are_refused(name, data):
    smallest, largest = RANGE[name]
    strange = [
        math.nan,
        math.inf,
        -math.inf,
        np.float32("nan"),
        np.float64("inf"),
        10**400,
        -(10**400),
        Fraction(10**400),
    ]
    value = data.draw(
        st.floats(max_value=smallest, exclude_max=True).filter(lambda x: x != 0 or name not in MAY_BE_ZERO)
        | st.floats(min_value=largest, exclude_min=True)
        | st.sampled_from(strange)
    )
    refused(ValueError, VALID | {"initialiser": "orthogonal"} | {name: value}, name, repr(value), f"{largest:g}")


@pytest.mark.parametrize("name", NAMED)
@given(value=no_names)
def test_what_is_no_name_is_refused(name, value):
    if not (value is None and name in MAY_BE_NONE):
        refused(TypeError, VALID | {name: value}, name, repr(value), next(iter(NAMED[name])))


@pytest.mark.parametrize("name", NAMED)
@given(value=st.text(max_size=12))
def test_unknown_names_are_refused_with_the_known_ones(name, value):
    if value not in NAMED[name]:
        refused(ValueError, VALID | {name: value}, name, repr(value), *NAMED[name])


@pytest.mark.parametrize(
    "value", ["relU", "ReLU", "relu ", "", "leaky_relu()", "leaky_relu(nan)", "leaky_relu(-1)", "elu(1e9)", "elu(0.1"]
)
def test_activations_that_look_like_one_are_refused(value):
    refused(ValueError, VALID | {"activation": value}, repr(value))


CONTRADICTIONS = [
    ({"initialiser": None}, "initialiser", "weight_variance", "xavier"),
    ({"weight_variance": 1.5}, "'he' means weight_variance 2", "not 1.5", "one of the two"),
    ({"initialiser": "orthogonal", "input_width": 3}, "input_width 3 must equal width 8", "leave input_width out"),
    ({"input_correlation": 0.5}, "0.5", "batch_size=2"),
    ({"batch_size": 4, "input_correlation": -0.5}, "-0.5", "-0.333333"),
    ({"batch_size": 9}, "9 inputs", "8 dimensions", "batch_size"),
    ({"batch_size": 4, "input_width": 3}, "4 inputs", "3 dimensions", "input_width"),
    ({"normalisation": "batch"}, "batch normalisation", "batch_size=2"),
    ({"normalisation": "layer", "width": 1}, "width 1", "larger width"),
    ({"norm_position": "post"}, "'post'", "batch, layer or rms"),
    ({"residual_scale": 0.5}, "0.5", *RESIDUALS),
    ({"residual": "preactivation", "input_width": 3}, "input_width 3 must equal width 8", "leave input_width out"),
]


@pytest.mark.parametrize("change, words", [(change, words) for change, *words in CONTRADICTIONS], ids=str)
def test_contradictions_are_refused_with_a_way_out(change, words):
    refused(ValueError, VALID | change, *words)


@pytest.mark.parametrize(
    "change",
    [
        {"weight_variance": 2.0},  # what the initialiser says, said again
        {"initialiser": "orthogonal", "input_width": 8, "weight_variance": 1.5},
        {"batch_size": 8, "input_correlation": -1 / 7},
        {"batch_size": 9, "input_correlation": 1.0},
        {"batch_size": 2, "normalisation": "batch", "norm_position": "post", "residual": "two_weights"},
        {"residual": "postactivation", "residual_scale": 0},
        {"normalisation": "rms", "width": 1},
    ],
    ids=str,
)
def test_combinations_that_only_look_like_contradictions_are_accepted(change):
    network = Network(**VALID | change)
    assert all(getattr(network, name) == value for name, value in change.items())


def test_a_network_cannot_be_changed():
    network = Network(**VALID)
    for field in fields(network):
        with pytest.raises(AttributeError):
            setattr(network, field.name, 1)


def test_the_rules_of_the_initialisers():
    # Glorot & Bengio 2010, He et al. 2015: the variance of a weight, times the fan-in
    assert Network(3, 8, "tanh", "xavier", input_width=24).first_weight_variance == 2 * 24 / (24 + 8)
    assert Network(3, 8, "tanh", "xavier", input_width=24).weight_variance == 1
    assert Network(3, 8, "relu", "he", input_width=24).first_weight_variance == 2
    assert Network(3, 8, "tanh", "normal", input_width=24).first_weight_variance == 24
    assert Network(3, 8, "tanh", "normal", input_width=24).weight_variance == 8
    assert Network(3, 8, "tanh", "standard").weight_variance == 1 / 3
    assert Network(3, 8, "tanh", "orthogonal").weight_variance == 1


SMALL = Network(2, 3, "tanh", "he")
LIMITS = {"trials": (1, 2**31), "seed": (0, 2**64 - 1), "threads": (1, 1024)}


@pytest.mark.parametrize("name", LIMITS)
@given(value=no_counts)
def test_propagate_refuses_what_is_no_whole_number(name, value):
    if value is None and name == "threads":
        return
    with pytest.raises(TypeError) as raised:
        propagate(SMALL, **{name: value})
    assert name in str(raised.value) and repr(value) in str(raised.value)


@pytest.mark.parametrize("name", LIMITS)
@given(data=st.data())
def test_propagate_refuses_numbers_out_of_range(name, data):
    smallest, largest = LIMITS[name]
    value = data.draw(st.integers(max_value=smallest - 1) | st.integers(min_value=largest + 1))
    with pytest.raises(ValueError) as raised:
        propagate(SMALL, **{name: value})
    assert all(word in str(raised.value) for word in (name, repr(value), f"from {smallest} to {largest}"))


@given(st.one_of(no_numbers, st.integers()))
def test_propagate_refuses_what_is_no_network(value):
    with pytest.raises(TypeError) as raised:
        propagate(value)
    assert repr(value) in str(raised.value) and "Network(" in str(raised.value)


@given(st.one_of(no_numbers, st.integers()).filter(lambda value: value not in (None, "cpu", "cuda", "auto")))
def test_propagate_refuses_unknown_targets(value):
    with pytest.raises((TypeError, ValueError)) as raised:
        propagate(SMALL, target=value)
    assert repr(value) in str(raised.value) and "cpu" in str(raised.value)
