"""Networks in time, against explicit NumPy in float64, finite differences, closed forms and independent draws."""

import math

import mpmath
import numpy as np
import pytest
from reference import haar
from scipy import special, stats

from vgp_kernels import Network, Recurrent, activation, mean_field, propagate
from vgp_kernels.recurrent.kernels import draw
from vgp_kernels.theory.gates import forget_factor, half_life, scalar_factor, singular_value_bound

CELLS = ["tanh", "relu", "lstm", "gru"]
INITIALISERS = ["lecun", "orthogonal", "pytorch"]


def step(cell, drawn, x, h, c):
    """(h_t, c_t) from the textbook's equations."""
    from_state = drawn["weights"] @ h + drawn["hidden_bias"]
    from_input = drawn["input_weights"] @ x + drawn["input_bias"]
    if cell == "lstm":
        i, f, g, o = np.split(from_state + from_input, 4)
        c = special.expit(f) * c + special.expit(i) * np.tanh(g)
        return special.expit(o) * np.tanh(c), c
    if cell == "gru":
        (r, z, n), (rx, zx, nx) = np.split(from_state, 3), np.split(from_input, 3)
        r, z = special.expit(r + rx), special.expit(z + zx)
        return (1 - z) * np.tanh(nx + r * n) + z * h, c
    return activation(cell).value(from_state + from_input), c


def states(cell, drawn):
    h, c = drawn["state"], np.zeros_like(drawn["state"])
    found = [(h, c)]
    for x in drawn["inputs"]:
        h, c = step(cell, drawn, x, h, c)
        found.append((h, c))
    return found


def loss_from(cell, drawn, t, h, c):
    for x in drawn["inputs"][t:]:
        h, c = step(cell, drawn, x, h, c)
    return drawn["loss"] @ h


def finite_difference(function, x, size=1e-5):
    gradient = np.empty(x.size)
    for i in range(x.size):
        e = np.zeros(x.size)
        e[i] = size
        gradient[i] = (function(x + e.reshape(x.shape)) - function(x - e.reshape(x.shape))) / (2 * size)
    return gradient


def as_float64(drawn):
    return {name: value.astype(np.float64) for name, value in drawn._asdict().items()}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("initialiser", INITIALISERS)
@pytest.mark.parametrize("trial", [0, 2])
def test_gradients_are_finite_differences_of_the_textbook_equations(cell, initialiser, trial):
    network = Recurrent(5, 4, cell, initialiser, input_width=3, initial_rms=0.7)
    flow = propagate(network, trials=3, seed=11)
    drawn = as_float64(draw(network, trial, 11))
    path = states(cell, drawn)
    rms = [np.sqrt(np.mean(h**2)) for h, _ in path]
    assert np.exp(flow.log_signal[trial]) == pytest.approx(rms, rel=1e-5)  # float32 has 1.2e-7; sums of a few
    gradients = [
        np.linalg.norm(finite_difference(lambda h, t=t, c=c: loss_from(cell, drawn, t, h, c), h))
        for t, (h, c) in enumerate(path)
    ]
    # a function of order 1 with errors of 1e-16, over a step of 1e-5: an absolute error of 1e-10
    assert np.exp(flow.log_gradient[trial]) == pytest.approx(gradients, rel=2e-5, abs=1e-9)

    def loss(weights):
        changed = drawn | {"weights": weights}
        return changed["loss"] @ states(cell, changed)[-1][0]

    def loss_of_step(weights, t):  # the weights of this step alone
        h, c = step(cell, drawn | {"weights": weights}, drawn["inputs"][t], *path[t])
        return loss_from(cell, drawn, t + 1, h, c)

    total = np.linalg.norm(finite_difference(loss, drawn["weights"]))
    assert math.exp(flow.log_total_weight_gradient[trial]) == pytest.approx(total, rel=2e-5, abs=1e-9)
    for t in range(5):
        own = np.linalg.norm(finite_difference(lambda weights, t=t: loss_of_step(weights, t), drawn["weights"]))
        assert math.exp(flow.log_weight_gradient[trial, t]) == pytest.approx(own, rel=2e-5, abs=1e-9)


@pytest.mark.parametrize("initialiser", INITIALISERS)
@pytest.mark.parametrize("trial", [0, 1])
def test_cell_gradient_of_the_lstm_and_its_direct_path(initialiser, trial):
    network = Recurrent(6, 3, "lstm", initialiser, forget_bias=0.8)
    flow = propagate(network, trials=2, seed=3)
    drawn = as_float64(draw(network, trial, 3))
    path = states("lstm", drawn)

    def gate(which, t):
        from_state = drawn["weights"] @ path[t - 1][0] + drawn["hidden_bias"]
        from_input = drawn["input_weights"] @ drawn["inputs"][t - 1] + drawn["input_bias"]
        return special.expit(np.split(from_state + from_input, 4)[which])

    def loss_of_cell(t, h, c):  # c_t reaches h_t too, from t = 1 on
        return loss_from("lstm", drawn, t, gate(3, t) * np.tanh(c) if t else h, c)

    gradients = [finite_difference(lambda c, t=t, h=h: loss_of_cell(t, h, c), c) for t, (h, c) in enumerate(path)]
    norms = [np.linalg.norm(g) for g in gradients]
    assert np.exp(flow.log_cell_gradient[trial]) == pytest.approx(norms, rel=2e-5, abs=1e-9)
    direct = [gradients[-1]]
    for t in range(6, 0, -1):
        direct.append(direct[-1] * gate(1, t))
    norms = [np.linalg.norm(g) for g in direct[::-1]]
    assert np.exp(flow.log_direct_gradient[trial]) == pytest.approx(norms, rel=2e-5, abs=1e-9)


def explicit(network, trials, seed, shared=True):
    """The same quantities from matrices of NumPy's own generator; with shared=False each step has a W of its own."""
    generator = np.random.default_rng(seed)
    n, m = network.width, network.input_width
    phi = activation(network.cell)
    bound = 1 / math.sqrt(n)

    def weights():
        if network.law == "orthogonal":
            return math.sqrt(network.weight_variance) * haar(generator, 1, n)[0]
        if network.law == "uniform":
            return generator.uniform(-bound, bound, (n, n))
        return math.sqrt(network.weight_variance / n) * generator.standard_normal((n, n))

    rows = []
    for _ in range(trials):
        w = weights()
        if network.law == "uniform":
            u, b = generator.uniform(-bound, bound, (n, m)), generator.uniform(-bound, bound, (2, n)).sum(0)
        else:
            u = math.sqrt(network.input_variance / m) * generator.standard_normal((n, m))
            b = math.sqrt(network.bias_variance) * generator.standard_normal(n)
        h = generator.standard_normal(n)
        h *= network.initial_rms * math.sqrt(n) / np.linalg.norm(h)
        kept = []
        for _ in range(network.steps):
            z = w @ h + u @ generator.standard_normal(m) + b
            kept.append((w, h, phi.slope(z)))
            h = phi.value(z)
            w = w if shared else weights()
        g = generator.standard_normal(n)
        g /= np.linalg.norm(g)
        total = np.zeros((n, n))
        for w, below, slope in reversed(kept):
            delta = slope * g
            total += np.outer(delta, below)
            g = w.T @ delta
        rows.append([np.linalg.norm(g), np.linalg.norm(h), np.linalg.norm(delta), np.linalg.norm(total)])
    with np.errstate(divide="ignore"):
        return np.log(np.array(rows))


def sampled(network, trials, seed):
    flow = propagate(network, trials, seed)
    h0 = math.log(network.initial_rms) + 0.5 * math.log(network.width)
    last = flow.log_signal[:, -1] + 0.5 * math.log(network.width)
    return np.column_stack(
        [flow.log_gradient[:, 0], last, flow.log_weight_gradient[:, 0] - h0, flow.log_total_weight_gradient]
    )


@pytest.mark.parametrize("cell, initialiser", [("tanh", "lecun"), ("linear", "orthogonal"), ("relu", "pytorch")])
def test_law_is_that_of_independent_draws(cell, initialiser):
    options = {} if initialiser == "pytorch" else {"bias_variance": 0.3}
    network = Recurrent(6, 3, cell, initialiser, input_width=2, initial_rms=1.3, **options)
    ours, theirs = sampled(network, 3000, 5), explicit(network, 3000, 6)
    for column in range(4):
        if np.ptp(theirs[:, column]) > 1e-9:  # orthogonal and linear: the gradient is 1 in every draw
            assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3, column
        else:
            assert ours[:, column] == pytest.approx(theirs[:, column], abs=1e-5)


def test_a_new_matrix_at_each_step_has_another_law():
    network = Recurrent(6, 3, "linear", "lecun", input_width=2, initial_rms=1.3)
    ours, wrong = sampled(network, 3000, 5), explicit(network, 3000, 6, shared=False)
    assert all(stats.ks_2samp(ours[:, column], wrong[:, column]).pvalue < 1e-6 for column in (0, 1, 3))


def test_orthogonal_matrices_are_orthogonal_and_uniform():
    drawn = [draw(Recurrent(1, 5, "gru", "orthogonal", weight_variance=4.0), trial, 0).weights for trial in range(1500)]
    first = np.array([w[:5] for w in drawn], np.float64) / 2
    last = np.array([w[10:] for w in drawn], np.float64) / 2
    assert np.abs(first.transpose(0, 2, 1) @ first - np.eye(5)).max() < 1e-6
    generator = np.random.default_rng(0)
    theirs = haar(generator, 1500, 5)
    probe = generator.standard_normal((5, 5))
    for ours in (first, last):
        for statistic in (
            lambda q: np.trace(q, axis1=1, axis2=2),
            lambda q: q[:, 4, 4],
            lambda q: (q * probe).sum((1, 2)),
        ):
            assert stats.ks_2samp(statistic(ours), statistic(theirs)).pvalue > 1e-3
    assert np.mean(np.linalg.det(first) > 0) == pytest.approx(0.5, abs=0.05)  # 4 standard errors of 1500 coins
    assert abs(np.mean(first * last)) < 4 / math.sqrt(25 * 1500) / 5  # blocks are independent


@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
@pytest.mark.parametrize("initialiser", INITIALISERS)
def test_bits_depend_on_nothing_but_network_trial_and_seed(cell, initialiser):
    network = Recurrent(7, 9, cell, initialiser)
    one, many = propagate(network, 6, 2, threads=1), propagate(network, 3, 2, threads=3)
    for name in ("log_signal", "log_gradient", "log_weight_gradient", "log_total_weight_gradient"):
        assert getattr(one, name)[:3].tobytes() == getattr(many, name).tobytes()
    assert not np.array_equal(one.log_gradient, propagate(network, 6, 3).log_gradient)


@pytest.mark.parametrize("sigma", [0.6, 1.0, 1.7])
def test_wide_networks_follow_mean_field_theory(sigma):
    network = Recurrent(12, 600, "tanh", weight_variance=sigma**2, input_variance=0.2, bias_variance=0.05)
    flow, theory = propagate(network, 24, 0), mean_field(network.unrolled)
    error = flow.log_gradient.std(axis=0) / math.sqrt(24)
    # a bias drawn once is no fresh noise: 2 % a step, and four standard errors
    off = np.abs(flow.log_gradient.mean(axis=0) - theory.log_gradient)
    assert np.all(off[:-1] < 0.02 * np.arange(12, 0, -1) + 4 * error[:-1])
    assert flow.log_signal[:, -1].mean() == pytest.approx(theory.log_signal[-1], abs=0.03)


def test_linear_powers_have_their_exact_second_moment():
    # E|Wᵀ²g|² = σ⁴(1 + 2/n - …): for W with N(0, 1/n) entries E W²W²ᵀ = (n² + n + 1 … )/n², from Wick's theorem
    n, trials = 3, 20_000
    square = np.exp(2 * propagate(Recurrent(2, n, "linear", "lecun"), trials, 1).log_gradient[:, 0])
    # tr(W W Wᵀ Wᵀ): pairings (1-4)(2-3) give n³; (1-2)(3-4) and (1-3)(2-4) give n each, over n² · n
    assert square.mean() == pytest.approx((n**3 + 2 * n) / n**3, abs=4 * square.std() / math.sqrt(trials))


def test_gradient_of_an_orthogonal_linear_network_is_kept_for_ever():
    flow = propagate(Recurrent(2000, 16, "linear", "orthogonal", input_variance=0.0), 3)
    assert np.abs(flow.log_gradient).max() < 2000 * 16 * 6e-8  # a rounding per step and entry at most


def test_decay_does_not_underflow():
    flow = propagate(Recurrent(3000, 8, "linear", "orthogonal", weight_variance=0.25, input_variance=0.0), 2)
    assert flow.log_gradient[:, 0] == pytest.approx(3000 * math.log(0.5), rel=1e-5)


def test_growth_beyond_float32_is_an_error_that_says_where():
    with pytest.raises(ValueError, match="leaves the range of float32 at step"):
        propagate(Recurrent(400, 8, "linear", weight_variance=4.0), 1)


def test_infinities_that_cancel_are_an_error_too():
    with pytest.raises(ValueError, match="leaves the range of float32 at step"):
        propagate(Recurrent(3, 8, "linear", weight_variance=1e30, initial_rms=1e15), 20)


def test_weight_gradient_of_states_below_float32s_normal_range():
    network = Recurrent(140, 6, "linear", "orthogonal", weight_variance=0.25, input_variance=0.0, initial_rms=1.0)
    flow, drawn = propagate(network, 3, 2), as_float64(draw(network, 2, 2))
    path, delta, total, steps = states("linear", drawn), drawn["loss"], 0.0, []
    for h, _ in path[-2::-1]:
        total = total + np.outer(delta, h)
        steps.append(np.linalg.norm(delta) * np.linalg.norm(h))
        delta = drawn["weights"].T @ delta
    assert path[-1][0].max() < np.finfo(np.float32).smallest_normal
    assert flow.log_weight_gradient[2] == pytest.approx(np.log(steps[::-1]), abs=5e-3)  # nine bits are left
    assert flow.log_total_weight_gradient[2] == pytest.approx(math.log(np.linalg.norm(total)), abs=1e-3)


@pytest.mark.parametrize("cell", ["sigmoid", "tanh"])
def test_slopes_below_float32s_normal_range_leave_finite_gradients(cell):
    # saturated units: |δ| is subnormal, and its direction still has the norm 1
    flow = propagate(Recurrent(4, 3, cell, weight_variance=1.0, input_variance=900.0), 2000, 1)
    assert np.all(flow.log_total_weight_gradient < math.inf) and np.all(flow.log_gradient < math.inf)
    # the sum over all steps is no larger than the sum of their norms
    bound = np.logaddexp.reduce(flow.log_weight_gradient, axis=1)
    assert np.all(flow.log_total_weight_gradient <= bound + 1e-3)


# Theory


@pytest.mark.parametrize("bias, factor, life", [(0, 0.5, 1), (1, 0.73105858, 2.2127), (3, 0.95257413, 14.266)])
def test_forget_gates_have_their_half_lives(bias, factor, life):
    assert forget_factor(bias) == pytest.approx(factor, rel=1e-8)
    assert half_life(factor) == pytest.approx(life, rel=1e-4)


@pytest.mark.parametrize("bias, variance", [(0, 1), (1, 1), (2, 1), (-1.5, 0.3), (4, 9)])
def test_forget_factor_of_random_logits_is_the_integral(bias, variance):
    root = math.sqrt(variance)
    exact = mpmath.quad(lambda z: -mpmath.log1p(mpmath.exp(-bias - root * z)) * mpmath.npdf(z), [-12, -3, 0, 3, 12])
    assert forget_factor(bias, variance) == pytest.approx(float(mpmath.exp(exact)), rel=1e-10)


def test_forget_bias_alone_gives_the_direct_path():
    for bias in (-0.5, 1.0, 2.5):
        network = Recurrent(30, 4, "lstm", weight_variance=1e-30, input_variance=0.0, forget_bias=bias)
        direct = propagate(network, 1).log_direct_gradient[0]
        assert np.diff(direct) == pytest.approx(np.full(30, -math.log(special.expit(bias))), rel=1e-5)


@pytest.mark.parametrize("memory", [2, 30, 784])
def test_chrono_biases_are_the_logarithm_of_uniform_times(memory):
    for cell in ("lstm", "gru"):
        network = Recurrent(1, 2000, cell, weight_variance=1.0, input_width=1, longest_memory=memory)
        bias = draw(network, 0, 4).input_bias
        times = np.exp(bias[2000:4000].astype(np.float64))
        if memory == 2:
            assert np.all(bias == 0)
        else:
            assert stats.kstest(times, stats.uniform(1, memory - 2).cdf).pvalue > 1e-3
        assert np.array_equal(bias[:2000], -bias[2000:4000] if cell == "lstm" else np.zeros(2000, np.float32))


@pytest.mark.parametrize("weight", [0.3, 1.0, 1.05, 2.0, -2.0, 5.0])
def test_scalar_factor_is_that_of_a_long_run(weight):
    h = 0.5
    for _ in range(20_000):
        h = math.tanh(abs(weight) * h)
    # at w = 1 the state falls as 1/√t
    assert scalar_factor(weight) == pytest.approx(abs(weight) * (1 - h * h), rel=1e-10 if abs(weight) != 1 else 1e-3)
    if weight == 2:
        assert scalar_factor(2) == pytest.approx(0.16637209, rel=1e-7)


@pytest.mark.parametrize("law, sigma", [("gaussian", 0.8), ("orthogonal", 1.3)])
def test_singular_value_bound_is_that_of_large_matrices(law, sigma):
    network = Recurrent(8, 400, "sigmoid", "orthogonal" if law == "orthogonal" else None, weight_variance=sigma**2)
    weights = draw(network, 0, 0).weights
    largest = np.linalg.svd(weights, compute_uv=False)[0] / 4
    assert singular_value_bound(network) == pytest.approx(largest, rel=0.02)  # the edge's fluctuations, n^(-2/3)
    flow = propagate(network, 4)
    assert np.all(-np.diff(flow.log_gradient) < math.log(largest * 1.05))


def test_wrong_values_are_named():
    for arguments, error, message in (
        (dict(steps=0, width=4, initialiser="lecun"), ValueError, "steps must be from 1"),
        (dict(steps=3, width=2.5, initialiser="lecun"), TypeError, "width must be a whole number"),
        (dict(steps=3, width=4), ValueError, "give an initialiser or a weight_variance"),
        (dict(steps=3, width=4, cell="rnn", initialiser="lecun"), ValueError, "unknown cell 'rnn'"),
        (dict(steps=3, width=4, cell=3, initialiser="lecun"), TypeError, "must be a name"),
        (dict(steps=3, width=4, initialiser="glorot"), ValueError, "unknown initialiser"),
        (dict(steps=3, width=4, initialiser="he", weight_variance=1.0), ValueError, "means weight_variance 2"),
        (dict(steps=3, width=4, initialiser="pytorch", weight_variance=1.0), ValueError, "give no variances"),
        (dict(steps=3, width=4, initialiser="lecun", forget_bias=1), ValueError, "no gate to bias"),
        (
            dict(steps=3, width=4, cell="lstm", initialiser="lecun", forget_bias=math.nan),
            ValueError,
            "from -1000 to 1000",
        ),
        (dict(steps=3, width=4, cell="gru", initialiser="lecun", longest_memory=1), ValueError, "2 steps or more"),
        (
            dict(steps=3, width=4, cell="lstm", initialiser="lecun", longest_memory=9, forget_bias=1.0),
            ValueError,
            "give one of the two",
        ),
        (dict(steps=3, width=4, initialiser="lecun", input_variance=-1), ValueError, "input_variance must be 0 or"),
        (dict(steps=3, width=100_000, initialiser="lecun"), ValueError, "too large"),
    ):
        with pytest.raises(error, match=message):
            Recurrent(**arguments)
    with pytest.raises(ValueError, match="no feed-forward network is like 'gru'"):
        _ = Recurrent(3, 4, "gru", "lecun").unrolled
    assert isinstance(Recurrent(3, 4, "tanh", "lecun").unrolled, Network)
