"""Explicit weights and training, against finite differences of a plain NumPy network, the laws of the weights, PyTorch."""

import math

import numpy as np
import pytest
from scipy import stats
from test_activations import NAMES

from vgp_kernels import Network, activation
from vgp_kernels.classifier.learning import example_order
from vgp_kernels.classifier.weights import Weights, initial_weights, weight_gradients
from vgp_kernels.numerics.products import product
from vgp_kernels.train import Training, train

FEATURES, CLASSES, BATCH = 20, 5, 12
EPSILON = 1e-5

ARCHITECTURES = [
    *({"normalisation": norm, "norm_position": position} for norm in ("batch", "layer", "rms") for position in ("pre", "post")),
    *({"residual": residual, "residual_scale": 0.7} for residual in ("preactivation", "postactivation", "two_weights")),
    *(
        {"residual": residual, "normalisation": norm, "norm_position": position}
        for residual, norm, position in [
            ("preactivation", "batch", "pre"), ("preactivation", "layer", "post"), ("postactivation", "batch", "pre"),
            ("postactivation", "rms", "post"), ("two_weights", "layer", "pre"), ("two_weights", "batch", "post"),
        ]
    ),
]  # fmt: skip


def network_of(name="tanh", depth=3, width=18, **options):
    batch = {"batch_size": BATCH} if options.get("normalisation") == "batch" else {}
    bias_variance = 0.0 if options.get("residual") == "preactivation" else 0.1
    return Network(depth, width, name, weight_variance=1.5, bias_variance=bias_variance, **options, **batch)


def examples(seed=0, count=BATCH):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, FEATURES)).astype(np.float32), generator.integers(0, CLASSES, count)


def normalised(kind, z):
    if kind is None:
        return z
    axis = 0 if kind == "batch" else 1
    centred = z if kind == "rms" else z - z.mean(axis, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis, keepdims=True) + EPSILON)


def logits_of(network, weights, inputs):
    """The classifier in float64, as the docstring of Network writes it."""
    phi = activation(network.activation).value
    before = network.normalisation if network.norm_position == "pre" else None
    after = network.normalisation if network.norm_position == "post" else None
    layers = iter(zip(weights.matrices, weights.biases, strict=True))

    def linear(x):
        matrix, bias = next(layers)
        return x @ matrix.T.astype(float) + (0 if bias is None else bias)

    x = np.asarray(inputs, float)
    if network.residual is None:
        for _ in range(network.depth):
            x = normalised(after, phi(normalised(before, linear(x))))
        return linear(x)
    x = linear(x)
    for _ in range(network.depth):
        if network.residual == "preactivation":
            branch = linear(phi(normalised(before, x)))
        elif network.residual == "postactivation":
            branch = phi(normalised(before, linear(x)))
        else:
            branch = linear(phi(linear(normalised(before, x))))
        x = normalised(after, x + network.residual_scale * branch)
    return linear(x)


def loss_of(network, weights, inputs, labels):
    logits = logits_of(network, weights, inputs)
    return np.mean(np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(labels)), labels])


def moved(weights, kind, index, step):
    parts = {"matrices": list(weights.matrices), "biases": list(weights.biases)}
    parts[kind][index] = parts[kind][index] + step
    return Weights(tuple(parts["matrices"]), tuple(parts["biases"]))


def check_gradients(network):
    inputs, labels = examples()
    weights = initial_weights(network, FEATURES, CLASSES, seed=3)
    found = weight_gradients(network, weights, inputs, labels)
    assert found.loss == pytest.approx(loss_of(network, weights, inputs, labels), rel=2e-6)
    generator = np.random.default_rng(1)
    for kind in ("matrices", "biases"):
        for index, gradient in enumerate(getattr(found.gradients, kind)):
            if gradient is None:
                continue
            # along the gradient, where the derivative is its norm, and along a random direction
            for direction in (gradient.astype(float), generator.standard_normal(gradient.shape)):
                direction = direction / np.linalg.norm(direction) if np.any(direction) else direction
                step = 1e-6 * direction
                above, below = (
                    loss_of(network, moved(weights, kind, index, sign * step), inputs, labels) for sign in (1, -1)
                )
                # float32 round-off of a few layers, and 1e-9 for that of the difference of two losses
                exact = (above - below) / 2e-6
                assert np.sum(gradient * direction) == pytest.approx(
                    exact, rel=1e-4, abs=3e-6 * found.weight_gradient[index] + 1e-9
                )


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_derivatives_of_the_loss_for_each_activation(name):
    check_gradients(network_of(name))


@pytest.mark.parametrize("options", ARCHITECTURES, ids=lambda o: "-".join(str(v) for v in o.values()))
@pytest.mark.parametrize("name", ["tanh", "gelu"])
def test_gradients_are_the_derivatives_of_the_loss_with_norms_and_skips(options, name):
    check_gradients(network_of(name, **options))


def test_reported_norms_are_those_of_the_gradients_and_signals():
    network = network_of("sigmoid", depth=4)
    inputs, labels = examples()
    weights = initial_weights(network, FEATURES, CLASSES)
    found = weight_gradients(network, weights, inputs, labels)
    assert found.weight_gradient == pytest.approx([np.linalg.norm(g) for g in found.gradients.matrices], rel=1e-6)
    assert found.signal[0] == pytest.approx(np.sqrt(np.mean(inputs.astype(float) ** 2)), rel=1e-6)
    # |∂E/∂h| by going back through the top layers in NumPy
    phi, h, slopes = activation("sigmoid"), [inputs.astype(float)], []
    for matrix, bias in zip(weights.matrices[:-1], weights.biases[:-1], strict=True):
        z = h[-1] @ matrix.T + bias
        h.append(phi.value(z))
        slopes.append(phi.slope(z))
    logits = h[-1] @ weights.matrices[-1].T + weights.biases[-1]
    delta = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    delta[np.arange(BATCH), labels] -= 1
    g = delta / BATCH @ weights.matrices[-1]
    norms = [np.linalg.norm(g)]
    for matrix, slope in zip(weights.matrices[-2::-1], slopes[::-1], strict=True):
        g = (g * slope) @ matrix
        norms.append(np.linalg.norm(g))
    assert found.gradient == pytest.approx(norms[::-1], rel=1e-5)
    assert found.signal == pytest.approx([np.sqrt(np.mean(layer**2)) for layer in h], rel=1e-6)


# Products


@pytest.mark.parametrize(
    "rows, terms, columns", [(64, 64, 64), (1, 1, 1), (3, 5, 7), (37, 20, 33), (8, 1, 16), (9, 300, 17)]
)
def test_product_is_the_matrix_product(rows, terms, columns):
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal(shape).astype(np.float32) for shape in ((rows, terms), (terms, columns)))
    # the bound of a chain of multiply-adds: terms · 2⁻²⁴ · Σ|a||b|
    bound = terms * 2.0**-24 * (np.abs(a).astype(float) @ np.abs(b).astype(float))
    assert np.all(np.abs(product(a, b) - a.astype(float) @ b.astype(float)) <= bound)


def test_product_sums_each_entry_in_one_order_whatever_the_shape():
    generator = np.random.default_rng(1)
    a, b = (generator.standard_normal(shape).astype(np.float32) for shape in ((29, 40), (40, 39)))
    whole = product(a, b)
    assert np.array_equal(product(np.asfortranarray(a), b), whole)
    assert np.array_equal(product(a[3:5], b), whole[3:5])
    assert np.array_equal(product(a, np.ascontiguousarray(b[:, 30:37])), whole[:, 30:37])


# Initial weights


def standardised(law, variance=1.7, width=200, **options):
    network = Network(2, width, "tanh", weight_variance=variance, **options)
    matrix = initial_weights(network, width, 3, trial=1, seed=5, law=law).matrices[1]
    return (matrix * math.sqrt(width / variance)).ravel().astype(float)


def test_gaussian_weights_are_normal_and_uniform_ones_uniform():
    uniform = stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)).cdf
    assert stats.kstest(standardised("gaussian"), "norm").pvalue > 1e-4
    assert stats.kstest(standardised("uniform"), uniform).pvalue > 1e-4
    # negative controls: each law against the other
    assert stats.kstest(standardised("gaussian"), uniform).pvalue < 1e-4
    assert stats.kstest(standardised("uniform"), "norm").pvalue < 1e-4


@pytest.mark.parametrize("law, fourth", [("gaussian", 3.0), ("uniform", 1.8)])
def test_moments_of_the_weights_are_those_of_their_law(law, fourth):
    sample = standardised(law)
    # five standard errors
    assert abs(sample.mean()) < 5 / math.sqrt(sample.size)
    assert abs(np.mean(sample**2) - 1) < 5 * math.sqrt((fourth - 1) / sample.size)
    assert abs(np.mean(sample**4) - fourth) < 5 * math.sqrt(100 / sample.size)


def test_orthogonal_weights_are_orthogonal_with_the_haar_law():
    n, draws = 5, 4000
    network = Network(2, n, "tanh", "orthogonal", weight_variance=2.25)
    sample = np.array([initial_weights(network, n, 2, trial=t).matrices[1] for t in range(draws)]) / 1.5
    assert np.abs(np.einsum("tij,tik->tjk", sample, sample) - np.eye(n)).max() < 1e-6
    # each entry of a Haar matrix: (1 + x)/2 has the law Beta((n-1)/2, (n-1)/2)
    law = stats.beta((n - 1) / 2, (n - 1) / 2, loc=-1, scale=2).cdf
    for i in range(n):
        for j in range(n):
            assert stats.kstest(sample[:, i, j].astype(float), law).pvalue > 1e-5, (i, j)
    assert abs(np.linalg.det(sample.astype(float)).mean()) < 5 / math.sqrt(draws)
    assert abs(np.trace(sample, axis1=1, axis2=2).mean()) < 5 / math.sqrt(draws)
    assert abs(np.mean(np.trace(sample, axis1=1, axis2=2) ** 2) - 1) < 5 * math.sqrt(2 / draws)


@pytest.mark.parametrize("initialiser", ["standard", "xavier", "he", "lecun", "normal"])
def test_each_matrix_has_the_variance_of_its_own_fan_in_and_fan_out(initialiser):
    from vgp_kernels import INITIALISERS

    weights = initial_weights(Network(2, 100, "tanh", initialiser), 300, 20)
    for matrix in weights.matrices:
        fan_out, fan_in = matrix.shape
        expected = INITIALISERS[initialiser].variance(fan_in, fan_out) / fan_in
        assert matrix.var() == pytest.approx(expected, rel=5 * math.sqrt(2 / matrix.size))


def test_matrices_trials_and_seeds_are_independent():
    network = Network(2, 100, "tanh", "lecun")
    base = initial_weights(network, 100, 100)
    others = [
        base.matrices[0], base.matrices[2],
        initial_weights(network, 100, 100, trial=1).matrices[1], initial_weights(network, 100, 100, seed=1).matrices[1],
    ]  # fmt: skip
    for other in others:
        assert abs(np.corrcoef(base.matrices[1].ravel(), other.ravel())[0, 1]) < 5 / 100


# Training


def numpy_steps(network, optimiser, rate, steps, inputs, labels):
    """The same steps in NumPy with the gradients of the kernel: the optimiser is what is tested."""
    weights = initial_weights(network, FEATURES, CLASSES, seed=2)
    parts = [part.astype(float) for part in (*weights.matrices, *weights.biases)]
    first, second = ([np.zeros_like(part) for part in parts] for _ in range(2))
    order = example_order(len(inputs), 0, seed=2)
    losses, count = [], len(weights.matrices)
    for step in range(steps):
        batch = order[step * BATCH : (step + 1) * BATCH]
        now = Weights(tuple(parts[:count]), tuple(parts[count:]))
        found = weight_gradients(network, now, inputs[batch], labels[batch])
        losses.append(found.loss)
        for i, gradient in enumerate((*found.gradients.matrices, *found.gradients.biases)):
            if optimiser == "sgd":
                parts[i] = parts[i] - rate * gradient
            elif optimiser == "momentum":
                first[i] = 0.9 * first[i] + gradient
                parts[i] = parts[i] - rate * first[i]
            else:
                first[i] = 0.9 * first[i] + 0.1 * gradient
                second[i] = 0.999 * second[i] + 0.001 * gradient.astype(float) ** 2
                scaled = first[i] / (1 - 0.9 ** (step + 1)), second[i] / (1 - 0.999 ** (step + 1))
                parts[i] = parts[i] - rate * scaled[0] / (np.sqrt(scaled[1]) + 1e-8)
    return losses, parts


@pytest.mark.parametrize("optimiser, rate", [("sgd", 0.1), ("momentum", 0.03), ("adam", 0.003)])
def test_steps_are_those_of_the_optimisers_formula(optimiser, rate):
    network, (inputs, labels) = network_of(), examples(count=10 * BATCH)
    labels[:CLASSES] = range(CLASSES)
    losses, parts = numpy_steps(network, optimiser, rate, 10, inputs, labels)
    done = train(network, inputs, labels, optimiser=optimiser, learning_rate=rate, epochs=1, batch_size=BATCH, seed=2)
    # ten steps amplify float32 round-off by less than a hundred
    assert done.batch_loss[0] == pytest.approx(losses, rel=1e-5)
    weights = done.weights(0)
    for found, expected in zip((*weights.matrices, *weights.biases), parts, strict=True):
        assert np.abs(found - expected).max() < 2e-5


def test_an_order_is_a_permutation_and_each_position_is_uniform():
    orders = np.array([example_order(6, epoch) for epoch in range(3000)])
    assert np.array_equal(np.sort(orders, axis=1), np.tile(np.arange(6), (3000, 1)))
    counts = np.array([np.bincount(orders[:, position], minlength=6) for position in range(6)])
    assert stats.chisquare(counts, axis=1).pvalue.min() > 1e-4


def toy(count=300, seed=0):
    """Two noisy rings around the origin: no linear classifier tells them apart."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, count)
    angle = generator.uniform(0, 2 * np.pi, count)
    radius = 1 + labels + 0.1 * generator.standard_normal(count)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]), labels


@pytest.mark.parametrize("options", [{}, *ARCHITECTURES[::3]], ids=str)
def test_the_same_bits_for_any_number_of_threads(options):
    inputs, labels = toy()
    batch = {"batch_size": 10} if options.get("normalisation") == "batch" else {}
    network = Network(2, 10, "gelu", "he", **options, **batch)

    def run(threads, trials):
        return train(
            network, inputs, labels, learning_rate=0.1, epochs=3, batch_size=10, trials=trials, threads=threads, seed=7
        )

    one, two, first = run(1, 3), run(2, 3), run(2, 1)
    for field in ("batch_loss", "train_loss", "train_accuracy", "weight_gradient", "movement", "parameters"):
        assert np.array_equal(getattr(one, field), getattr(two, field), equal_nan=True), field
        assert np.array_equal(getattr(one, field)[:1], getattr(first, field), equal_nan=True), field
    assert len({loss.tobytes() for loss in one.batch_loss}) == 3


def test_training_learns_what_no_linear_classifier_can():
    inputs, labels = toy()
    test_inputs, test_labels = toy(seed=1)
    done = train(
        Network(2, 16, "tanh", "xavier"), inputs, labels,
        test_inputs=test_inputs, test_labels=test_labels, learning_rate=0.3, epochs=60, batch_size=20, trials=3,
    )  # fmt: skip
    assert done.train_accuracy[:, 0].max() < 0.9
    assert done.test_accuracy[:, -1].min() > 0.97
    assert np.all(done.epochs_to(0.95) < 60) and np.all(np.isinf(done.epochs_to(1.01)))
    assert np.all(done.movement[:, 0] == 0) and np.all(done.movement[:, -1] > 0.01)
    assert not done.diverged.any()


def test_scores_are_those_of_the_final_weights():
    inputs, labels = toy()
    network = Network(2, 10, "tanh", "xavier")
    done = train(network, inputs, labels, learning_rate=0.1, epochs=2, batch_size=32)
    logits = logits_of(network, done.weights(0), inputs.astype(np.float32))
    assert done.train_accuracy[0, -1] == pytest.approx(np.mean(logits.argmax(axis=1) == labels))
    assert done.train_loss[0, -1] == pytest.approx(
        loss_of(network, done.weights(0), inputs.astype(np.float32), labels), rel=1e-5
    )


@pytest.mark.parametrize("normalisation, batch_size", [("layer", 32), ("rms", 32), ("batch", 300), ("batch", 150)])
def test_scores_before_the_first_step_are_those_of_the_initial_weights(normalisation, batch_size):
    inputs, labels = toy()
    test_inputs, test_labels = toy(150, seed=1)
    network = Network(3, 10, "tanh", "xavier", normalisation=normalisation, batch_size=2)
    done = train(
        network, inputs, labels, learning_rate=0.1, epochs=1, batch_size=batch_size, seed=3, trials=2,
        test_inputs=test_inputs, test_labels=test_labels,
    )  # fmt: skip
    weights = initial_weights(network, 2, 2, 1, 3)
    by_batch = batch_size if normalisation == "batch" else 300  # of whose examples the norm takes the statistics
    losses = [
        loss_of(network, weights, inputs[i : i + by_batch].astype(np.float32), labels[i : i + by_batch])
        for i in range(0, 300, by_batch)
    ]
    assert done.train_loss[1, 0] == pytest.approx(np.mean(losses), rel=1e-5)
    assert done.test_loss[1, 0] == pytest.approx(
        loss_of(network, weights, test_inputs.astype(np.float32), test_labels), rel=1e-5
    )
    assert 0 < done.train_accuracy[1, 0] < 1 and not done.diverged.any()


def test_one_example_has_no_statistics_of_a_batch():
    inputs, labels = toy(61)
    network = Network(2, 10, "tanh", "xavier", normalisation="batch", batch_size=2)

    def run(count, tests):
        return train(
            network, inputs[:count], labels[:count], learning_rate=0.1, epochs=1, batch_size=20,
            test_inputs=inputs[:tests], test_labels=labels[:tests],
        )  # fmt: skip

    assert run(61, 60).train_loss[0, 0] == run(60, 60).train_loss[0, 0]
    assert np.isnan(run(60, 1).test_loss[0, 0]) and np.isfinite(run(60, 1).test_loss[0, 1])


def test_divergence_is_reported():
    inputs, labels = toy()
    network = Network(20, 10, "relu", "he", residual="preactivation")
    with np.errstate(all="raise"):
        done = train(network, inputs, labels, learning_rate=1e6, epochs=3, batch_size=10)
    assert isinstance(done, Training) and done.diverged.all() and np.isnan(done.train_loss[0, -1])


def test_divergence_that_relu_hides_is_reported():
    # relu(NaN) = 0: the loss of lost weights is a number again
    generator = np.random.default_rng(0)
    inputs, labels = generator.standard_normal((12, 5)), np.arange(12) % 2
    for network, rate in (
        (Network(4, 5, "relu", "he"), 1e10),
        (Network(17, 5, "relu", weight_variance=1e16), 1.3),
    ):
        done = train(network, inputs, labels, learning_rate=rate, epochs=3, batch_size=4, trials=200)
        lost = ~np.isfinite(done.parameters).all(axis=1)
        assert lost.any() and done.diverged[lost].all()
        assert np.isnan(done.train_loss[done.diverged, -1]).all() and np.isnan(done.movement[done.diverged, -1]).all()
        assert np.isfinite(done.train_loss[~done.diverged]).all() and np.isfinite(done.movement[~done.diverged]).all()


def test_a_loss_that_is_lost_between_two_epochs_is_reported():
    # running statistics lag behind weights that leap: for an epoch the sums overflow, then they have caught up
    network = Network(17, 5, "elu", "lecun", batch_size=2, normalisation="batch", residual="postactivation")
    inputs, labels = np.array([[0.3, -0.7], [1.2, 0.4]]), [0, 2]
    done = train(
        network, inputs, labels, learning_rate=1e5, epochs=3, batch_size=2, optimiser="adam", trials=100, law="uniform"
    )
    assert (np.isnan(done.train_loss[:, 1]) & np.isfinite(done.batch_loss[:, 0])).any()
    assert (done.diverged == np.isnan(done.train_loss).any(axis=1)).all() and np.isfinite(done.train_loss[:, 0]).all()
    assert np.isnan(done.train_loss[done.diverged, -1]).all() and np.isnan(done.batch_loss[done.diverged, -1]).all()


BAD = [
    ({"learning_rate": 0}, ValueError, "learning_rate must be above 0"),
    ({"learning_rate": "fast"}, TypeError, "learning_rate must be a number"),
    ({"optimiser": "sgdd"}, ValueError, "unknown optimiser 'sgdd'; known: sgd, momentum, adam"),
    ({"epochs": 0}, ValueError, "epochs must be from 1"),
    ({"batch_size": 1000}, ValueError, "batch_size must be from 1 to 300"),
    ({"trials": 1.5}, TypeError, "trials must be a whole number"),
    ({"law": "cauchy"}, ValueError, "unknown law 'cauchy'"),
    ({"law": "orthogonal"}, ValueError, "2 features do not fit width 10"),
    ({"labels": np.full(300, -1)}, ValueError, "labels must be from 0"),
    ({"labels": np.zeros(3, int)}, ValueError, "labels must be 300 whole numbers"),
    ({"inputs": np.full((300, 2), np.nan)}, ValueError, "inputs must be finite"),
    ({"inputs": np.zeros(300)}, ValueError, r"inputs must be numbers of shape \(examples, features\)"),
    (
        {"test_inputs": np.zeros((4, 3)), "test_labels": np.zeros(4, int)},
        ValueError,
        "test_inputs must have 2 features",
    ),
    ({"test_inputs": np.zeros((4, 2)), "test_labels": np.full(4, 9)}, ValueError, "test_labels must be from 0 to 1"),
    ({"network": "relu"}, TypeError, "network must be a Network"),
    ({"network": Network(2, 10, "relu", "he", input_width=7)}, ValueError, "input_width is 7"),
]


@pytest.mark.parametrize("change, error, message", BAD, ids=[message for _, _, message in BAD])
def test_bad_input_is_named(change, error, message):
    inputs, labels = toy()
    good = {
        "network": Network(2, 10, "relu", "he"),
        "inputs": inputs,
        "labels": labels,
        "learning_rate": 0.1,
        "epochs": 1,
    }
    with pytest.raises(error, match=message):
        train(**{**good, "batch_size": 10, **change})


def test_weights_of_the_wrong_shape_are_named():
    network = network_of()
    weights = initial_weights(network, FEATURES, CLASSES)
    inputs, labels = examples()
    with pytest.raises(ValueError, match=r"matrices\[0\] must have the shape \(18, 20\) \(fan_out, fan_in\)"):
        weight_gradients(
            network, Weights((weights.matrices[0].T, *weights.matrices[1:]), weights.biases), inputs, labels
        )
    with pytest.raises(ValueError, match="this network has 4 weight matrices"):
        weight_gradients(network, Weights(weights.matrices[1:], weights.biases[1:]), inputs, labels)
