"""Numbers that papers, books and public notebooks printed, beside those of the same networks here."""

import math
from dataclasses import dataclass

import numpy as np
from experiment import Claim, significant
from experiments.relu_units import PARAMETERS as UNITS
from experiments.relu_units import pattern
from matplotlib.lines import Line2D
from scipy import special
from style import INK, MUTED, new_figure, ramp
from threadpoolctl import threadpool_limits

from vgp_kernels import Network, mean_field, propagate
from vgp_kernels.finite_width import log_norms
from vgp_kernels.spectra import log_singular_values, predict_spectrum


@dataclass(frozen=True)
class Parameters:
    trials: int = 2000  # networks with one input
    spectra: int = 8  # networks whose singular values are computed
    batches: int = 12  # networks with a batch: a batch costs its size squared
    products: int = 2000  # products of small matrices
    matrices: int = 60  # large matrices multiplied with themselves
    networks: int = 16  # whose dead units are counted
    width: int = 256  # where the source does not say
    wide: int = 512  # where the source's theory is for infinite width
    batch_size: int = 64
    seed: int = 0


PARAMETERS = Parameters()
BLAS = (0.01, 0.02)  # sums of BLAS differ in rounding, and a count may then change by one
TOLERANCE = {
    "entries": {
        key: {field: BLAS for field in ("predicted", "measured", "error", "low", "high")}
        for key in (
            "glorot-normalised",
            "glorot-standard",
            "pennington-variance",
            "d2l-product",
            "course-product",
            "uva-layer-5",
            "uva-layer-9",
            "fastai-overflow",
            "fastai-scaled",
        )
    }
}


@dataclass(frozen=True)
class Printed:
    """A number that others printed, and where it stands."""

    theirs: float
    rounding: float  # half a unit of the last digit printed; 0 for a formula
    quantity: str
    setting: str
    source: str  # Markdown, with the address
    is_ratio: bool = False  # compared as a logarithm


GLOROT = "[Glorot & Bengio 2010](https://proceedings.mlr.press/v9/glorot10a.html), section 4.2.2"
HE = "[He et al. 2015](https://arxiv.org/abs/1502.01852), section 2.2"
YANG = "[Yang et al. 2019](https://arxiv.org/abs/1902.08129), theorem 8"
BALDUZZI = "[Balduzzi et al. 2017](https://arxiv.org/abs/1702.08591), abstract read, rate from a summary"
XIONG = "[Xiong et al. 2020](https://arxiv.org/abs/2002.04745), theorem 1, as quoted by others"
NIELSEN = "[Nielsen 2015](http://neuralnetworksanddeeplearning.com/chap5.html), chapter 5"
GITHUB = "https://github.com"
FASTAI = (
    f"[fast.ai, course-v3]({GITHUB}/fastai/course-v3/blob/376986269d474f72f18ad9573f9f484734a2717f/nbs/dl2/02b_initializing.ipynb),"
    " 02b_initializing"
)
UVA = (
    f"[UvA tutorial 3]({GITHUB}/phlippe/uvadlc_notebooks/blob/0eafe495d35fad7bf753f0d0c7c345e526337aa6/docs/tutorial_notebooks/"
    "tutorial3/Activation_Functions.ipynb)"
)
BRAUER = f"{GITHUB}/juebrauer/code_jb/blob/%s/0024_vanishing_and_exploding_gradients/01_vanishing_gradients.ipynb"

PRINTED = {
    "glorot-normalised": Printed(
        0.8, 0.05, "mean singular value of a layer's Jacobian", "tanh, normalised initialisation", GLOROT
    ),
    "glorot-standard": Printed(0.5, 0.05, "the same", "tanh, standard initialisation", GLOROT),
    "he-vgg": Printed(
        1.7e4, 0.05e4, "gradient lost from conv10 to conv2", "VGG-B, standard deviation 0.01, against He's", HE, True
    ),
    "he-xavier": Printed(
        2.0**-15, 0.0, "gradient left after 30 layers, 1/√2<sup>L</sup>", "ReLU, Xavier's deviation", HE, True
    ),
    "schoenholz-depth": Printed(
        3.6269760, 0.0, "depth scale ξ_c, by their formula", "tanh, σ_w² = 1, σ_b² = 0.05",
        "[Schoenholz et al. 2017](https://arxiv.org/abs/1611.01232), abstract read, formula (not checked)",
    ),
    "pennington-variance": Printed(
        4.0, 0.0, "variance of the squared singular values, L", "ReLU, orthogonal, L = 4",
        "[Pennington et al. 2017](https://arxiv.org/abs/1711.04735), abstract read, formula (not checked)",
    ),
    "hanin-variance": Printed(
        5.0, 0.0, "variance of ln |∂E/∂h₀|², 5L/n", "ReLU, He, L = n = 100",
        "[Hanin & Nica 2018](https://arxiv.org/abs/1812.05994), abstract read, constant (not checked)",
    ),
    "yang-relu": Printed(
        1.5899505, 0.0, "growth of the squared norm per layer, by their formula", "ReLU, batch norm, batch of 16", YANG
    ),
    "yang-linear": Printed(14 / 13, 0.0, "the same, (B − 2)/(B − 3)", "linear, batch norm, batch of 16", YANG),
    "balduzzi-batch": Printed(
        2.0**-4, 0.0, "likeness of two inputs' gradients, 2<sup>−L</sup>", "ReLU, batch norm of constant statistics, L = 4", BALDUZZI
    ),
    "balduzzi-plain": Printed(2.0**-5, 0.0, "the same", "ReLU, He, no norm, L = 5, orthogonal inputs", BALDUZZI),
    "xiong-pre": Printed(
        -0.5, 0.0, "power of the depth in the last gradient", "pre-LN feed-forward blocks, 32 to 128", XIONG
    ),
    "xiong-post": Printed(0.0, 0.0, "the same", "post-LN feed-forward blocks, 32 to 128", XIONG),
    "klambauer-contraction": Printed(
        0.782648, 5e-7, "slope of the variance map at its fixed point", "SELU, weight variance 1/n",
        "[Klambauer et al. 2017](https://arxiv.org/abs/1706.02515), equation 6",
    ),
    "nielsen-four": Printed(
        0.285 / 0.003, 0.0, "|δ₄|/|δ₁|, from 0.003, 0.017, 0.070, 0.285", "sigmoid, 784-30-30-30-30-10", NIELSEN, True
    ),
    "nielsen-three": Printed(
        0.283 / 0.012, 0.0, "|δ₃|/|δ₁|, from 0.012, 0.060, 0.283", "sigmoid, 784-30-30-30-10", NIELSEN, True
    ),
    "d2l-product": Printed(
        2.4317e25, 0.0, "largest entry", "product of 101 matrices, 4 × 4, N(0, 1)",
        f"[d2l.ai]({GITHUB}/d2l-ai/d2l-pytorch-slides/blob/ccff7154878b26105368f8f1f00e36bf7e1d8721/chapter_multilayer-perceptrons/"
        "numerical-stability-and-init.ipynb), slides",
        True,
    ),
    "course-product": Printed(
        3.8170743e-05, 0.0, "largest entry", "product of 100 matrices, 4 × 4, N(0, ¼)",
        f"[serivan/DeepLearning]({GITHUB}/serivan/DeepLearning), numerical-stability-and-init (which commit: not checked)",
        True,
    ),
    "uva-layer-5": Printed(34.77, 0.0, "dead units of layer 5, %", "ReLU, PyTorch's default, FashionMNIST", UVA),
    "uva-layer-9": Printed(56.25, 0.0, "dead units of layer 9, %", "the same", UVA),
    "deepshare-linear": Printed(
        2.0786820453988485e37, 0.0, "standard deviation after 31 layers", "linear, width 256, N(0, 1), batch of 16",
        f"A PyTorch course, [its script]({GITHUB}/yolunghiu/pytorch/blob/1999dcac41c14dafe3b246c79ca2d1682ae780a9/class4/"
        "01.grad_vanish_explod_no_activate.py); printout read in four copies of its notes",
        True,
    ),
    "fastai-overflow": Printed(
        28.0, 0.5, "multiplication at which float32 overflows", "one 512 × 512 matrix N(0, 1), again and again", FASTAI
    ),
    "fastai-scaled": Printed(
        5.5337, 0.0, "standard deviation after 100 multiplications", "the same matrix over √512", FASTAI, True
    ),
    "brauer-sigmoid": Printed(
        (6.17e-8 / 1.1019657e-3) ** 0.2, 0.0, "factor per layer, layers 19 to 14", "20 × sigmoid(100), PyTorch's default",
        f"[juebrauer/code_jb]({BRAUER % '2197c4c64a0da05733f553dabfbb0bbabb98c294'}), commit 2197c4c",
        True,
    ),
    "brauer-relabelled": Printed(
        (9.234e-6 / 7.869281e-4) ** 0.2, 0.0, "the same", "the same code, a later printout",
        f"[juebrauer/code_jb]({BRAUER % '2166bd42ae128b9bc048a769286391cef5593289'}), commit 2166bd4",
        True,
    ),
}  # fmt: skip


# The same networks


def average(values, predicted, transform=lambda x: x):
    """An entry whose source gives a mean or a formula: our mean with its standard error."""
    values = np.asarray(values, float)
    mean, error = values.mean(), values.std(ddof=1) / math.sqrt(len(values))
    measured = transform(mean)
    error = abs(transform(mean + error) - transform(mean - error)) / 2
    return {
        "predicted": significant(predicted, 7),
        "measured": significant(measured, 6),
        "error": significant(error, 2),
        "trials": len(values),
    }


def draws(values, predicted, is_ratio):
    """An entry whose source printed one draw: the middle of ours, and where two thirds of them lie."""
    values = np.asarray(values, float)
    centre = math.exp(np.log(values).mean()) if is_ratio else values.mean()
    low, high = np.quantile(values, [0.16, 0.84])
    return {
        "predicted": None if predicted is None else significant(predicted, 7),
        "measured": significant(centre, 4),
        "low": significant(low, 4),
        "high": significant(high, 4),
        "trials": len(values),
    }


def log_delta(flow):
    """ln |∂E/∂z_l|, l = 1 … depth, from |∂E/∂W_l| = |∂E/∂z_l| |h_{l-1}|."""
    widths = np.full(flow.network.depth, float(flow.network.width))
    widths[0] = flow.network.fan_in
    return flow.log_weight_gradient - flow.log_signal[:, :-1] - 0.5 * np.log(widths)


def compute(p):
    with threadpool_limits(1):  # so that the sums are taken in one order
        return {"entries": papers(p) | batches(p) | notebooks(p), **beside(p)}


def papers(p):
    found = {}
    for key, initialiser in (("glorot-normalised", "xavier"), ("glorot-standard", "standard")):
        levels = np.exp(mean_field(Network(5, p.width // 2, "tanh", initialiser)).log_signal[1:5])
        layers = [Network(1, p.width // 2, "tanh", initialiser, input_rms=float(level)) for level in levels]
        means = [
            np.mean([np.exp(log_singular_values(layer, p.seed + trial)).mean() for layer in layers])
            for trial in range(p.spectra)
        ]
        # of a square Gaussian matrix: 8/3π, the mean of the quarter circle
        found[key] = average(means, 8 / (3 * math.pi) * math.sqrt(layers[0].weight_variance))

    loss, variance, predicted = 0.0, 0.0, 0.0
    for filters, count in ((64, 1), (128, 2), (256, 2), (512, 4)):
        fan = 9 * filters
        flow = propagate(Network(1, fan, "relu", weight_variance=1e-4 * fan), p.trials, p.seed)
        squares = np.exp(2 * flow.log_gradient[:, 0])
        loss -= 0.5 * count * math.log(squares.mean())
        variance += (0.5 * count * squares.std(ddof=1) / squares.mean()) ** 2 / p.trials
        predicted += 0.5 * count * math.log(2e4 / fan)
    found["he-vgg"] = {
        "predicted": significant(math.exp(predicted), 7),
        "measured": significant(math.exp(loss), 6),
        "error": significant(math.exp(loss) * math.sqrt(variance), 2),
        "trials": p.trials,
    }

    flow = propagate(Network(30, p.wide, "relu", "xavier"), p.trials, p.seed)
    found["he-xavier"] = average(np.exp(2 * flow.log_gradient[:, 0]), 2.0**-15, math.sqrt)

    pair = Network(16, p.wide, "tanh", weight_variance=1.0, bias_variance=0.05, batch_size=2)
    apart = np.log(1 - propagate(pair, p.trials // 10, p.seed).correlation)
    found["schoenholz-depth"] = average((apart[:, 6] - apart[:, 16]) / 10, mean_field(pair).xi_c, lambda rate: 1 / rate)

    orthogonal = Network(4, p.width // 2, "relu", "orthogonal", weight_variance=2.0)
    squares = np.exp([2 * log_singular_values(orthogonal, p.seed + trial) for trial in range(p.spectra)])
    theory = predict_spectrum(orthogonal)
    spread = squares.var(axis=1) / squares.mean(axis=1) ** 2
    found["pennington-variance"] = average(spread, theory.variance / theory.mean**2)

    square = Network(100, 100, "relu", "he")
    logs = 2 * propagate(square, 4 * p.trials, p.seed).log_gradient[:, 0]
    found["hanin-variance"] = average((logs - logs.mean()) ** 2, 4 * log_norms(square).log_gradient_variance[0])
    return found


def batches(p):
    found = {}
    for key, activation in (("yang-relu", "relu"), ("yang-linear", "linear")):
        net = Network(24, p.wide, activation, "he", normalisation="batch", batch_size=16)
        theory, flow = mean_field(net).log_gradient, propagate(net, p.batches, p.seed).log_gradient
        rate = 2 * (flow[:, 5] - flow[:, 19]) / 14
        found[key] = average(rate, math.exp(2 * (theory[5] - theory[19]) / 14), math.exp)

    net = Network(4, p.width, "relu", "he", normalisation="batch_inference", batch_size=p.batch_size)
    flow = propagate(net, p.batches, p.seed, loss_gradient="shared")
    found["balduzzi-batch"] = average(flow.gradient_correlation[:, 0], mean_field(net).gradient_correlation[0])
    net = Network(5, p.wide, "relu", "he", batch_size=2)
    flow = propagate(net, p.trials // 5, p.seed, loss_gradient="shared")
    found["balduzzi-plain"] = average(flow.gradient_correlation[:, 0], mean_field(net).gradient_correlation[0])

    depths = np.array([32, 64, 128])  # the power is that of great depth
    for key, position in (("xiong-pre", "pre"), ("xiong-post", "post")):
        last, theory = [], []
        for depth in depths:
            net = Network(
                int(depth),
                p.width,
                "relu",
                "he",
                normalisation="layer",
                norm_position=position,
                residual="preactivation",
            )
            # a pre-LN network ends with a norm, which divides the gradient by the scale of the sum
            flow, expected = propagate(net, 4 * p.batches, p.seed), mean_field(net)
            last.append(flow.log_weight_gradient[:, -1] - flow.log_signal[:, -1])
            theory.append(expected.log_weight_gradient[-1] - expected.log_signal[-1])
        found[key] = average(slope(np.log(depths), np.array(last).T), round(float(slope(np.log(depths), theory)), 6))

    flows = [
        propagate(Network(1, p.wide, "selu", "lecun", input_rms=math.sqrt(q)), p.trials, p.seed) for q in (1.05, 0.95)
    ]  # the same random numbers for both
    above, below = (np.exp(2 * flow.log_signal[:, 1]) for flow in flows)
    found["klambauer-contraction"] = average((above - below) / 0.1, mean_field(Network(1, 64, "selu", "lecun")).chi_q)
    return found


def slope(x, y):
    """Of the straight line through (x, y) by least squares, along the last axis of y."""
    centred = x - x.mean()
    return (centred * y).sum(axis=-1) / (centred**2).sum()


def notebooks(p):
    found = {}
    pixels = math.sqrt(0.1307**2 + 0.3081**2)  # mean and standard deviation of MNIST
    for key, hidden in (("nielsen-four", 4), ("nielsen-three", 3)):
        net = Network(
            hidden + 1, 30, "sigmoid", weight_variance=1.0, bias_variance=1.0, input_width=784, input_rms=pixels
        )
        delta = log_delta(propagate(net, p.trials, p.seed))
        theory = mean_field(net)
        predicted = theory.log_weight_gradient - theory.log_signal[:-1] - 0.5 * np.log([784] + [30] * hidden)
        found[key] = draws(
            np.exp(delta[:, hidden - 1] - delta[:, 0]), math.exp(predicted[hidden - 1] - predicted[0]), True
        )

    generator = np.random.default_rng(p.seed)
    growth = 0.5 * (math.log(2) + special.digamma(2.0))  # E ln |Wu| for a 4 × 4 matrix of N(0, 1) and a unit vector
    for key, count, scale in (("d2l-product", 101, 1.0), ("course-product", 100, 0.5)):
        product = np.broadcast_to(np.eye(4), (p.products, 4, 4))
        for _ in range(count):
            product = product @ (scale * generator.standard_normal((p.products, 4, 4)))
        found[key] = draws(np.abs(product).max(axis=(1, 2)), math.exp(count * (growth + math.log(scale))), True)

    dead = np.array([dead_shares(p, trial) for trial in range(p.networks)])
    for key, layer in (("uva-layer-5", 5), ("uva-layer-9", 9)):
        found[key] = draws(100 * dead[:, layer - 1], None, False)

    linear = Network(31, 256, "linear", "normal", batch_size=16)
    scale = np.exp(propagate(linear, 4 * p.batches, p.seed).log_signal[:, -1])
    found["deepshare-linear"] = draws(scale, 16.0**31, True)

    overflow, scaled = zip(*(repeated(p, trial) for trial in range(p.matrices)), strict=True)
    limit = math.log(float(np.finfo(np.float32).max)) / math.log(math.sqrt(512))
    found["fastai-overflow"] = draws(overflow, limit, False)
    found["fastai-scaled"] = draws(scaled, 1.0, True)

    for key, activation in (("brauer-sigmoid", "sigmoid"), ("brauer-relabelled", "sigmoid"), ("relu", "relu")):
        found[key] = draws(*factor_of_default(p, activation), True)
    return found


def factor_of_default(p, activation):
    """The factor per layer of 20 layers of width 100 with PyTorch's default, weights' gradients 19 to 14; and its prediction."""
    net = Network(20, 100, activation, weight_variance=1 / 3, bias_variance=1 / 300)
    weights, theory = propagate(net, p.trials, p.seed).log_weight_gradient, mean_field(net).log_weight_gradient
    return np.exp((weights[:, 13] - weights[:, 18]) / 5), math.exp((theory[13] - theory[18]) / 5)


def dead_shares(p, trial):
    """For each layer of the tutorial's network, the share of units that are 0 for all the digits."""
    from sklearn.datasets import load_digits  # slow to import, and not needed by the drawings

    pixels = load_digits().data
    inputs = ((pixels - pixels.mean()) / pixels.std()).astype(np.float32)
    return [float(layer.mean()) for layer in pattern(UNITS, inputs, "default", p.seed + trial)]


def repeated(p, trial):
    """(the multiplication x ← Ax at which float32 overflows, the deviation of x after a hundred x ← Ax/√512)."""
    generator = np.random.default_rng([p.seed, trial])
    matrix = generator.standard_normal((512, 512), dtype=np.float32)
    x = generator.standard_normal(512, dtype=np.float32)
    y, count = x, 0
    with np.errstate(over="ignore", invalid="ignore"):
        while np.isfinite(x).all():
            x, count = matrix @ x, count + 1
    for _ in range(100):
        y = matrix @ y / np.float32(math.sqrt(512))
    return count - 1, float(y.std())  # they count from 0


def beside(p):
    """What the sentences around the printed numbers say, measured."""
    selu = Network(100, p.wide, "selu", "lecun")
    growth = propagate(selu, p.trials // 10, p.seed).log_gradient[:, 0] / 100
    tanh = Network(100, p.wide, "tanh", "xavier")
    variance = np.exp(2 * propagate(tanh, p.trials // 10, p.seed).log_signal[:, 99])
    plain = Network(30, p.width, "relu", "he", batch_size=p.batch_size)
    options = {"normalisation": "batch_inference", "batch_size": p.batch_size}
    normed = Network(8, p.width, "relu", "he", **options)
    skips = Network(8, p.width, "relu", "he", residual="preactivation", **options)
    found = {
        "selu_factor": average(growth, mean_field(selu).chi_1 ** 0.5, math.exp),
        "tanh_variance": average(variance, float(mean_field(tanh).variance[99])),
    }
    for key, net in (("plain", plain), ("normed", normed), ("skips", skips)):
        flow, theory = propagate(net, p.batches, p.seed, loss_gradient="shared"), mean_field(net)
        found[f"{key}_correlation"] = average(flow.gradient_correlation[:, 0], theory.gradient_correlation[0])
        if key == "plain":
            found["single"] = average(flow.log_gradient[:, 0], math.exp(theory.log_gradient[0]), math.exp)
            # |mean|² over the mean square of the gradients
            left = [(1 + (net.batch_size - 1) * c) / net.batch_size for c in flow.gradient_correlation[:, 0]]
            predicted = (1 + (net.batch_size - 1) * theory.gradient_correlation[0]) / net.batch_size
            found["average"] = average(left, math.sqrt(predicted), math.sqrt)
    return found


# Compared


NEAR = 3.0  # standard errors, or halves of the width in which two thirds of single draws lie


def distance(result, key):
    """Theirs minus ours, in standard errors of our mean and of their rounding, or in spreads of single draws."""
    entry, printed = result["entries"][key], PRINTED[key]
    scale = math.log if printed.is_ratio else float
    if "error" in entry:
        error = entry["error"] / entry["measured"] if printed.is_ratio else entry["error"]
    else:
        error = (scale(entry["high"]) - scale(entry["low"])) / 2
    rounding = printed.rounding / printed.theirs if printed.is_ratio else printed.rounding
    return (scale(printed.theirs) - scale(entry["measured"])) / math.hypot(error, rounding)


def agrees(result, key):
    return abs(distance(result, key)) <= NEAR


def is_draw(result, key):
    return "low" in result["entries"][key]


def disagreeing(result):
    return [key for key in PRINTED if not agrees(result, key)]


def written(value, digits=4):
    """So many digits; a power of ten for what is very large or small."""
    if value is None:
        return "—"
    if abs(value) < 1e-12:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{float(f'{value:.{digits}g}'):,g}".replace("-", "−")
    mantissa, exponent = f"{value:.{min(digits, 3) - 1}e}".split("e")
    return f"{mantissa} · 10<sup>{int(exponent)}</sup>".replace("-", "−")


def ours(result, key):
    entry = result["entries"][key]
    if is_draw(result, key):
        return f"{written(entry['measured'])}, from {written(entry['low'])} to {written(entry['high'])}"
    return f"{written(entry['measured'])} ± {written(entry['error'], 1)}"


def figure(result):
    drawing, axes = new_figure(7.2, 7.0)
    mean_colour, draw_colour = ramp(2)
    limit = 8.0
    axes.axvspan(-1, 1, color=MUTED, alpha=0.15, linewidth=0)
    axes.axvline(0, color=MUTED, linewidth=0.9)
    for row, key in enumerate(PRINTED):
        x = distance(result, key)
        colour, marker = (draw_colour, "o") if is_draw(result, key) else (mean_colour, "s")
        if abs(x) <= limit:
            axes.plot(x, row, color=colour, marker=marker, linestyle="none", markersize=6)
        else:
            axes.annotate(
                f"{x:+.0f}".replace("-", "−"),
                (math.copysign(limit, x), row),
                (-math.copysign(20, x), 0),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=9,
                color=INK,
                arrowprops={"arrowstyle": "<-", "color": colour},
            )
    axes.set_yticks(range(len(PRINTED)), list(PRINTED))
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.invert_yaxis()
    axes.set(
        xlim=(-limit, limit),
        xlabel="theirs minus ours, in standard errors (squares) or in spreads of single draws (circles)",
    )
    handles = [
        Line2D([], [], color=mean_colour, marker="s", linestyle="none", label="a mean or a formula"),
        Line2D([], [], color=draw_colour, marker="o", linestyle="none", label="one draw"),
    ]
    axes.legend(handles=handles, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0))
    return drawing


def caption(result):
    return (
        "Each row is a number that others printed, minus ours. Squares: they give a mean or a formula, and the unit is the "
        "standard error of our mean, with the rounding of theirs. Circles: they printed one random draw, and the unit is half of "
        "the width in which two thirds of our draws lie. Arrows: beyond the figure."
    )


def alt(result):
    far = disagreeing(result)
    return (
        f"Of {len(PRINTED)} printed numbers {len(PRINTED) - len(far)} lie within three standard errors or spreads of ours; "
        f"more than that away: {', '.join(far) or 'none'}."
    )


def table(result):
    rows = [["Name", "Setting", "What", "Theirs", "Theory", "Ours", "Distance"]]
    for key, printed in PRINTED.items():
        sign = f"{distance(result, key):+.1f}".replace("-", "−")
        rows.append(
            [
                f'<a id="museum-{key}"></a>`{key}`<br>{printed.source}',
                printed.setting,
                printed.quantity,
                written(printed.theirs),
                written(result["entries"][key]["predicted"]),
                f"{ours(result, key)}<br>({result['entries'][key]['trials']:,} draws)",
                sign if agrees(result, key) else f"**{sign}**",
            ]
        )
    return rows


def data(result):
    header = (
        "name source setting quantity theirs predicted measured standard_error low high draws kind distance".split()
    )
    rows = [header]
    for key, printed in PRINTED.items():
        entry = result["entries"][key]
        values = [entry.get(field, "") for field in ("predicted", "measured", "error", "low", "high", "trials")]
        kind = "draw" if is_draw(result, key) else "mean"
        rows.append(
            [
                key,
                printed.source,
                printed.setting,
                printed.quantity,
                printed.theirs,
                *values,
                kind,
                distance(result, key),
            ]
        )
    return rows


BESIDE = (
    "selu_factor",
    "tanh_variance",
    "plain_correlation",
    "normed_correlation",
    "skips_correlation",
    "single",
    "average",
)


def numbers(result):
    found = {"entries": len(PRINTED), "agree": len(PRINTED) - len(disagreeing(result)), "far": len(disagreeing(result))}
    for key in (*PRINTED, "relu"):
        entry, name = result["entries"][key], key.replace("-", "_")
        found |= {f"{name}_{field}": value for field, value in entry.items() if value is not None}
        if key in PRINTED:
            found |= {f"{name}_theirs": PRINTED[key].theirs, f"{name}_distance": distance(result, key)}
    for name in BESIDE:
        found |= {name: result[name]["measured"], f"{name}_predicted": result[name]["predicted"]}
    return found


def with_error(name):
    return lambda r: f"{r[name]['measured']:.4g} ± {r[name]['error']:.1g}"


def value(result, name):
    return result[name]["measured"]


PAGE = "verify/museum.md"
EXPECTED_FAR = {"hanin-variance", "balduzzi-plain", "brauer-relabelled"}
CLAIMS = [
    Claim(
        "printed-numbers-agree",
        "Most numbers that others printed agree with ours; where they do not, the setting differs from the one that is named, or the "
        "formula is one for infinite width.",
        "papers, books and public notebooks",
        lambda r: f"{len(PRINTED)} printed numbers",
        lambda r: (
            f"{len(PRINTED) - len(disagreeing(r))} within {NEAR:.0f} standard errors or spreads; not: {', '.join(disagreeing(r))}"
        ),
        "holds with a condition",
        lambda r: set(disagreeing(r)) <= EXPECTED_FAR,
        PAGE,
    ),
    Claim(
        "selu-gradient-grows",
        "SELU keeps the variance of the signal and not that of the gradient, which grows by three per cent per layer.",
        "Klambauer et al. 2017, abstract: vanishing and exploding gradients are impossible",
        lambda r: f"× {r['selu_factor']['predicted']:.4f} per layer",
        lambda r: f"× {with_error('selu_factor')(r)} per layer",
        "holds with a condition",
        lambda r: 1.025 < value(r, "selu_factor") < 1.045,
        PAGE,
    ),
    Claim(
        "tanh-never-settles",
        "The variance of a tanh network with Xavier initialisation does not settle: it falls as one over twice the depth.",
        "belief: with Xavier initialisation tanh settles at a variance of 0.25",
        lambda r: f"{r['tanh_variance']['predicted']:.5f} at layer 100",
        lambda r: f"{with_error('tanh_variance')(r)} at layer 100",
        "false as stated",
        lambda r: abs(value(r, "tanh_variance") * 200 - 1) < 0.15,
        PAGE,
    ),
    Claim(
        "skips-keep-gradients-alike",
        "What skips add to batch normalisation is not size: through eight plain layers the gradients of two inputs lose all "
        "likeness, and through eight blocks with skips they keep a part of it.",
        "belief: ResNets solved vanishing gradients",
        lambda r: (
            f"correlation {r['normed_correlation']['predicted']:.4f} plain, {r['skips_correlation']['predicted']:.3f} with skips"
        ),
        lambda r: f"{with_error('normed_correlation')(r)} plain, {with_error('skips_correlation')(r)} with skips",
        "false as stated",
        lambda r: value(r, "normed_correlation") < 0.01 and value(r, "skips_correlation") > 0.2,
        PAGE,
    ),
    Claim(
        "averages-cancel",
        "The norm of a gradient that is averaged over inputs mixes cancellation with vanishing: through thirty ReLU layers with He "
        "initialisation each input's gradient keeps its size, and the average over 64 inputs loses three quarters.",
        "practice: plotting the norm of the averaged gradient",
        lambda r: f"single × {r['single']['predicted']:.3f}, average × {r['average']['predicted']:.3f}",
        lambda r: f"single × {with_error('single')(r)}, average × {with_error('average')(r)}",
        "holds with a condition",
        lambda r: abs(value(r, "single") - 1) < 0.25 and value(r, "average") < 0.25,
        PAGE,
    ),
]
