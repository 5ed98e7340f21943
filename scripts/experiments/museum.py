"""Numbers that papers, books, posts and public notebooks printed, beside those of the same networks here."""

import math
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from experiment import Claim, significant
from experiments.relu_units import PARAMETERS as UNITS
from experiments.relu_units import pattern
from matplotlib.lines import Line2D
from scipy import special, stats
from style import INK, MUTED, new_figure, ramp
from threadpoolctl import threadpool_limits

from vgp_kernels import Network, activation, mean_field, propagate
from vgp_kernels.theory.finite_width import log_norms
from vgp_kernels.theory.spectra import log_singular_values, predict_spectrum


@dataclass(frozen=True)
class Parameters:
    seeds: int = 16  # everything is done again with each: no agreement may hang on one of them
    draws: int = 64  # of each seed, where a draw is cheap: 1,024 in all
    slow_draws: int = 13  # of each seed, where it is not: 208 in all
    networks: int = 250  # of each seed, for a mean
    pairs: int = 32  # of each seed, of networks with two inputs
    batches: int = 2  # of each seed, of networks with a batch: a batch costs its size squared
    average: int = 100  # networks that a notebook averages
    width: int = 256  # where the source does not say
    wide: int = 512  # where the source's theory is for infinite width
    narrow: int = 64
    small_input: float = 0.3  # the root of the mean square of MNIST's pixels is 0.33
    batch_size: int = 64
    inputs: int = 16  # that stand for the hundreds or thousands of a source
    sample: int = 100_000  # numbers drawn for a gain
    seed: int = 0


PARAMETERS = Parameters()
LEVEL = 0.998  # of the intervals round our means: that of the range of 999 draws
BLAS = (0.01, 0.02)  # sums of BLAS differ in rounding, and a count may then change by one
FIELDS = ("predicted", "measured", "low", "high", "inner_low", "inner_high", "least", "most")
TOLERANCE = {
    "entries": {
        key: {field: BLAS for field in FIELDS} | {"instead": {field: BLAS for field in FIELDS}}
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
            "pytorch-selu-gradient",
        )
    }
}


@dataclass(frozen=True)
class Printed:
    """A number that others printed, and where it stands."""

    theirs: str | tuple[str, str] | float  # as printed; two numbers whose ratio it is; or what a formula gives
    quantity: str
    setting: str
    source: str  # Markdown, with the address
    root: int = 1  # of the ratio: a factor per layer
    instead: str = ""  # the setting that the number is of, where it is not the one that is named

    @property
    def interval(self) -> tuple[float, float]:
        """The values that the printed digits stand for: those that round to them."""
        if isinstance(self.theirs, float):
            return self.theirs, self.theirs
        if isinstance(self.theirs, str):
            return rounded_to(self.theirs)
        (low, high), (least, most) = map(rounded_to, self.theirs)
        return (low / most) ** (1 / self.root), (high / least) ** (1 / self.root)

    @property
    def value(self) -> float:
        if isinstance(self.theirs, tuple):
            above, below = map(float, self.theirs)
            return (above / below) ** (1 / self.root)
        return float(self.theirs)


def rounded_to(digits: str) -> tuple[float, float]:
    """The ends of the interval of the numbers that round to these digits."""
    number = Decimal(digits)
    half = Decimal(5).scaleb(int(number.as_tuple().exponent) - 1)
    return float(number - half), float(number + half)


GLOROT = "[Glorot & Bengio 2010](https://proceedings.mlr.press/v9/glorot10a.html), section 4.2.2"
HE = "[He et al. 2015](https://arxiv.org/abs/1502.01852), section 2.2"
YANG = "[Yang et al. 2019](https://arxiv.org/abs/1902.08129), theorem 8"
BALDUZZI = (
    "[Balduzzi et al. 2017](https://arxiv.org/abs/1702.08591): exponential in its abstract, the rate from summaries"
)
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
CS231N = (
    f"[Feng's notes]({GITHUB}/calvinfeng/machine-learning-notebook/blob/10b747e8417d0569f43f5121229375d51671be19/"
    "convolutional_neural_network/weight_initialization.md) on CS231n's experiment"
)
GERON = (
    f"[Géron, Hands-on machine learning]({GITHUB}/ageron/handson-ml2/blob/262e54bd7f9e6aad2f9543fd1c71e1d24ee5f396/"
    "11_training_deep_neural_networks.ipynb), chapter 11"
)
DEEPSHARE = (
    f"[Notes on a PyTorch course]({GITHUB}/JuneXia/JuneXia.github.io/blob/98d2da7ee1e07570de56df95f8d6f193fad14e84/source/_posts/"
    "PyTorch%E7%AC%94%E8%AE%B0/%E3%80%90Tutorials%E3%80%91torch.nn.init.md)"
)
SELU_GAIN = f"[PyTorch, pull request 50664]({GITHUB}/pytorch/pytorch/pull/50664)"
GAINS = f"[PyTorch, issue 24991]({GITHUB}/pytorch/pytorch/issues/24991)"
WILBER = (
    f"[A post on initialisation]({GITHUB}/wilberquito/wilberquito.github.io/blob/15482b3fe4c6e2748c0c9c45ca8401aa8f6857c9/_posts/"
    "2024-08-07-initialization-of-nn.md)"
)
RASCHKA = (
    f"[Raschka, Build a large language model]({GITHUB}/rasbt/LLMs-from-scratch/blob/07d80438df21de189ec47e6d1ca149d849b8623f/ch04/"
    "01_main-chapter-code/ch04.ipynb), chapter 4"
)

PRINTOUTS = {
    "nielsen-four": Printed(
        ("0.285", "0.003"), "|δ₄|/|δ₁|, from 0.003, 0.017, 0.070, 0.285", "sigmoid, 784-30-30-30-30-10", NIELSEN
    ),
    "nielsen-three": Printed(
        ("0.283", "0.012"), "|δ₃|/|δ₁|, from 0.012, 0.060, 0.283", "sigmoid, 784-30-30-30-10", NIELSEN
    ),
    "d2l-product": Printed(
        "2.4317e25", "largest entry", "product of 101 matrices, 4 × 4, N(0, 1)",
        f"[d2l.ai]({GITHUB}/d2l-ai/d2l-pytorch-slides/blob/ccff7154878b26105368f8f1f00e36bf7e1d8721/chapter_multilayer-perceptrons/"
        "numerical-stability-and-init.ipynb), slides",
    ),
    "course-product": Printed(
        "3.67178233e24", "the same", "the same, another framework's run of the same page",
        f"[serivan/DeepLearning]({GITHUB}/serivan/DeepLearning/blob/595503e9948bd7323137f3ec6a9c40fd0f9f1ecd/"
        "04-Multilayer-Perceptrons/tensorflow/numerical-stability-and-init.ipynb)",
    ),
    "uva-layer-5": Printed("34.77", "dead units of layer 5, %", "ReLU, PyTorch's default, FashionMNIST (ours: 8 × 8 digits)", UVA),
    "uva-layer-9": Printed("56.25", "dead units of layer 9, %", "the same", UVA),
    "deepshare-linear": Printed(
        "2.0786820453988485e37", "deviation after 31 layers", "linear, width 256, N(0, 1), batch of 16",
        f"A PyTorch course, [its script]({GITHUB}/yolunghiu/pytorch/blob/1999dcac41c14dafe3b246c79ca2d1682ae780a9/class4/"
        "01.grad_vanish_explod_no_activate.py); printout read in four copies of its notes",
    ),
    "deepshare-scaled": Printed(
        "1.2215301990509033", "deviation after 100 layers", "linear, width 256, N(0, 1/n), batch of 16", DEEPSHARE
    ),
    "deepshare-tanh": Printed("0.08206240087747574", "the same", "the same, tanh", DEEPSHARE),
    "deepshare-tanh-gain": Printed(
        "0.6442864537239075", "the same", "tanh, width 256, Xavier with gain 5/3, batch of 16", DEEPSHARE
    ),
    "deepshare-relu-gain": Printed(
        "7640645.5", "the same", "ReLU, width 256, Xavier with tanh's gain 5/3, batch of 16", DEEPSHARE
    ),
    "deepshare-relu-he": Printed("0.6668476462364197", "the same", "ReLU, width 256, He, batch of 16", DEEPSHARE),
    "cs231n-small": Printed(
        "0.000533", "deviation after 5 layers", "tanh, width 500, weights of deviation 0.01, 1,000 inputs", CS231N
    ),
    "cs231n-large": Printed("0.981527", "deviation after 10 layers", "the same, weights of deviation 1", CS231N),
    "cs231n-xavier": Printed("0.226953", "deviation after 10 layers", "the same, weights of deviation 1/√n", CS231N),
    "geron-selu-100": Printed(
        "0.96", "deviation of a unit over 500 inputs, layer 100", "SELU, width 100, N(0, 1/n)", GERON
    ),
    "geron-selu-400": Printed("0.89", "the same, layer 400", "the same", GERON),
    "pytorch-selu-signal": Printed(
        "0.2085", "deviation after 91 layers", "SELU, width 1,000, gain ¾, 1,000 inputs", SELU_GAIN
    ),
    "pytorch-selu-gradient": Printed(
        "0.2760", "mean |∂ Σh₁₁/∂x|, 11 layers below", "the same", SELU_GAIN
    ),
    "pytorch-tanh-signal": Printed(
        "0.6518", "deviation after 10 layers", "tanh, width 1,000, gain 5/3, 1,000 inputs",
        "[PyTorch forum, topic 20854](https://discuss.pytorch.org/t/calculate-gain-tanh/20854)",
    ),
    "gain-sigmoid": Printed(
        "4.809119701385498", "deviation of x over that of φ(x)", "sigmoid, 100,000 numbers x from N(0, 1)", GAINS
    ),
    "gain-tanh": Printed("1.5975916385650635", "the same", "the same, tanh", GAINS),
    "gain-relu": Printed("1.7068026065826416", "the same", "the same, ReLU", GAINS),
    "initialisation-post-small": Printed(
        "821.2817993164062", "variance of layer 1's z", "784 to 512, FashionMNIST (ours: normal inputs), weights of deviation 0.01",
        WILBER,
        instead="deviation 1: the 0.01 went into the place of the mean",
    ),
    "initialisation-post-fan": Printed(
        "1.6039454936981201", "the same", "784 to 512, FashionMNIST (ours: normal inputs), weight variance 1/fan-in", WILBER,
        instead="1/fan-out: the size was taken from the other side of the matrix",
    ),
    "raschka-plain": Printed(
        ("0.00020173587836325169", "0.005049646366387606"), "mean |∂E/∂W₁| over mean |∂E/∂W₅|",
        "GELU, 3-3-3-3-3-1, PyTorch's default", RASCHKA,
    ),
    "raschka-shortcuts": Printed(
        ("0.22169792652130127", "1.3258541822433472"), "the same", "the same, with shortcuts", RASCHKA
    ),
    "fastai-overflow": Printed(
        "28", "multiplication at which float32 overflows", "one 512 × 512 matrix N(0, 1), again and again", FASTAI
    ),
    "fastai-scaled": Printed("5.5337", "deviation after 100 multiplications", "the same matrix over √512", FASTAI),
    "fastai-relu": Printed(
        "252.03490020751954", "mean square, average of 100 draws", "ReLU of one 512 × 512 matrix N(0, 1) on N(0, 1)", FASTAI
    ),
    "brauer-sigmoid": Printed(
        ("0.0000000617", "0.0011019657"), "factor per layer, layers 19 to 14", "20 × sigmoid(100), PyTorch's default",
        f"[juebrauer/code_jb]({BRAUER % '2197c4c64a0da05733f553dabfbb0bbabb98c294'}), commit 2197c4c",
        root=5,
    ),
    "brauer-relabelled": Printed(
        ("0.0000092340", "0.0007869281"), "the same", "the same code, a later printout",
        f"[juebrauer/code_jb]({BRAUER % '2166bd42ae128b9bc048a769286391cef5593289'}), commit 2166bd4",
        root=5, instead="ReLU, a line that stands commented out in the cell",
    ),
}  # fmt: skip

PAPERS = {
    "glorot-normalised": Printed(
        "0.8", "mean singular value of ∂z<sub>i+1</sub>/∂z<sub>i</sub>, i = 1 … 4", "tanh, normalised initialisation", GLOROT,
        instead="the root of the mean square of the singular values",
    ),
    "glorot-standard": Printed("0.5", "the same", "tanh, standard initialisation", GLOROT),
    "he-vgg": Printed(
        "1.7e4", "gradient lost from conv10 to conv2",
        "VGG-B, standard deviation 0.01, against He's (ours: dense layers of the same fan-in)",
        HE
    ),
    "klambauer-contraction": Printed(
        "0.782648", "slope of the variance map at its fixed point", "SELU, weight variance 1/n",
        "[Klambauer et al. 2017](https://arxiv.org/abs/1706.02515), equation 6",
    ),
}  # fmt: skip

FORMULAS = {
    "he-xavier": Printed(2.0**-15, "gradient left after 30 layers, 1/√2<sup>L</sup>", "ReLU, Xavier's deviation", HE),
    "schoenholz-depth": Printed(
        3.6269760, "depth scale ξ_c", "tanh, σ_w² = 1, σ_b² = 0.05",
        "[Schoenholz et al. 2017](https://arxiv.org/abs/1611.01232); abstract and introduction read",
    ),
    "pennington-variance": Printed(
        4.0, "variance of the squared singular values, L", "ReLU, orthogonal, L = 4",
        "[Pennington et al. 2017](https://arxiv.org/abs/1711.04735); abstract read, the variance derived here",
    ),
    "hanin-variance": Printed(
        5.0, "variance of ln |∂E/∂h₀|², 5L/n", "ReLU, He, L = n = 100",
        "[Hanin & Nica 2018](https://arxiv.org/abs/1812.05994); abstract read, the 5 derived [here](/learn/width.md)",
    ),
    "yang-relu": Printed(1.5899505, "growth of the squared norm per layer", "ReLU, batch norm, batch of 16", YANG),
    "yang-linear": Printed(14 / 13, "the same, (B − 2)/(B − 3)", "linear, batch norm, batch of 16", YANG),
    "balduzzi-batch": Printed(
        2.0**-4, "likeness of two inputs' gradients, 2<sup>−L</sup>", "ReLU, batch norm of constant statistics, L = 4", BALDUZZI
    ),
    "balduzzi-plain": Printed(2.0**-5, "the same", "ReLU, He, no norm, L = 5, orthogonal inputs", BALDUZZI),
    "xiong-pre": Printed(-0.5, "power of the depth in the last gradient", "pre-LN feed-forward blocks, 32 to 128", XIONG),
    "xiong-post": Printed(0.0, "the same", "post-LN feed-forward blocks, 32 to 128", XIONG),
}  # fmt: skip

KINDS = {"printout": PRINTOUTS, "paper": PAPERS, "formula": FORMULAS}
PRINTED = PRINTOUTS | PAPERS | FORMULAS
KIND = {key: kind for kind, members in KINDS.items() for key in members}


# The same networks


def seeds(p):
    return range(p.seed, p.seed + p.seeds)


def mean(values, predicted):
    """An entry for what is a mean or a formula: the mean over seeds, with its interval by Student's law."""
    values = np.asarray(values, float)
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    centre = values.mean()
    return {
        "predicted": None if predicted is None else significant(float(predicted), 7),
        "measured": significant(centre, 6),
        "low": significant(centre - half, 6),
        "high": significant(centre + half, 6),
        "least": significant(values.min(), 5),
        "most": significant(values.max(), 5),
    }


def draws(values, predicted):
    """An entry for one printed draw: the middle of ours and their range, which misses a new draw 2 times in (draws + 1)."""
    values = np.asarray(values, float)  # (seeds, draws of each)
    medians = np.median(values, axis=1)
    inner_low, inner_high = np.quantile(values, [0.16, 0.84])
    return {
        "predicted": None if predicted is None else significant(float(predicted), 7),
        "measured": significant(np.median(values), 4),
        "low": significant(values.min(), 5),
        "high": significant(values.max(), 5),
        "inner_low": significant(inner_low, 4),
        "inner_high": significant(inner_high, 4),
        "least": significant(medians.min(), 4),
        "most": significant(medians.max(), 4),
        "draws": values.size,
    }


def of_flows(p, network, count, quantity):
    """A quantity of a network's logarithms of signals, for the draws of each seed and as theory has it."""
    values = [quantity(propagate(network, count, seed).log_signal) for seed in seeds(p)]
    return draws(values, quantity(mean_field(network).log_signal[np.newaxis])[0])


GRID = np.linspace(-9, 9, 4001)
NORMAL = stats.norm.pdf(GRID) * (GRID[1] - GRID[0])


def deviation(network, layer):
    """The standard deviation of all entries of h_l, from |h_l| and from the mean of φ(z), which |h_{l-1}| fixes."""

    def of(log_signal):
        scale = np.sqrt(network.weight_variance * np.exp(2 * log_signal[:, layer - 1]) + network.bias_variance)
        centre = activation(network.activation).value(scale[:, np.newaxis] * GRID) @ NORMAL
        return np.sqrt(np.exp(2 * log_signal[:, layer]) - centre**2)

    return of


def log_delta(flow):
    """ln |∂E/∂z_l|, l = 1 … depth, from |∂E/∂W_l| = |∂E/∂z_l| |h_{l-1}|."""
    widths = np.full(flow.network.depth, float(flow.network.width))
    widths[0] = flow.network.fan_in
    return flow.log_weight_gradient - flow.log_signal[:, :-1] - 0.5 * np.log(widths)


def compute(p):
    with threadpool_limits(1):  # so that the sums are taken in one order
        return {"entries": papers(p) | formulas(p) | kernels(p) | matrices(p), **beside(p)}


def papers(p):
    found = {}
    for key, initialiser in (("glorot-normalised", "xavier"), ("glorot-standard", "standard")):
        theory = mean_field(Network(5, p.width // 2, "tanh", initialiser))
        layers = [
            Network(1, p.width // 2, "tanh", initialiser, input_rms=float(level))
            for level in np.exp(theory.log_signal[:4])
        ]
        values = [[np.exp(log_singular_values(layer, seed)) for layer in layers] for seed in seeds(p)]
        slopes = np.exp(2 * np.diff(theory.log_gradient)[:4])  # 1/χ of each layer
        found[key] = mean([np.mean(value) for value in values], None) | {
            "instead": mean([np.sqrt(np.mean(np.square(value))) for value in values], np.sqrt(np.mean(1 / slopes)))
        }

    losses, predicted = np.zeros(p.seeds), 0.0
    for filters, count in ((64, 1), (128, 2), (256, 2), (512, 4)):
        fan = 9 * filters
        network = Network(1, fan, "relu", weight_variance=1e-4 * fan)
        squares = [np.exp(2 * propagate(network, p.networks, seed).log_gradient[:, 0]).mean() for seed in seeds(p)]
        losses -= 0.5 * count * np.log(squares)
        predicted += 0.5 * count * math.log(2e4 / fan)
    found["he-vgg"] = mean(np.exp(losses), math.exp(predicted))

    slopes = []
    for seed in seeds(p):  # the same random numbers for both
        above, below = (
            propagate(Network(1, p.wide, "selu", "lecun", input_rms=math.sqrt(q)), p.networks, seed)
            for q in (1.05, 0.95)
        )
        slopes.append(np.mean(np.exp(2 * above.log_signal[:, 1]) - np.exp(2 * below.log_signal[:, 1])) / 0.1)
    found["klambauer-contraction"] = mean(slopes, mean_field(Network(1, 64, "selu", "lecun")).chi_q)
    return found


def formulas(p):
    found = {}
    xavier = Network(30, p.wide, "relu", "xavier")
    squares = [np.exp(2 * propagate(xavier, p.networks, seed).log_gradient[:, 0]).mean() for seed in seeds(p)]
    found["he-xavier"] = mean(np.sqrt(squares), 2.0**-15)

    pair = Network(16, p.wide, "tanh", weight_variance=1.0, bias_variance=0.05, batch_size=2)
    apart = [np.log(1 - propagate(pair, p.pairs, seed).correlation).mean(axis=0) for seed in seeds(p)]
    found["schoenholz-depth"] = mean([10 / (x[6] - x[16]) for x in apart], mean_field(pair).xi_c)

    orthogonal = Network(4, p.width // 2, "relu", "orthogonal", weight_variance=2.0)
    squares = np.exp([2 * log_singular_values(orthogonal, seed) for seed in seeds(p)])
    theory = predict_spectrum(orthogonal)
    found["pennington-variance"] = mean(
        squares.var(axis=1) / squares.mean(axis=1) ** 2, theory.variance / theory.mean**2
    )

    square = Network(100, 100, "relu", "he")
    spreads = [(2 * propagate(square, 16 * p.networks, seed).log_gradient[:, 0]).var(ddof=1) for seed in seeds(p)]
    found["hanin-variance"] = mean(spreads, 4 * log_norms(square).log_gradient_variance[0])

    for key, name in (("yang-relu", "relu"), ("yang-linear", "linear")):
        network = Network(24, p.wide, name, "he", normalisation="batch", batch_size=16)
        theory = mean_field(network).log_gradient
        flows = [propagate(network, p.batches, seed).log_gradient for seed in seeds(p)]
        rates = [np.exp(2 * (flow[:, 5] - flow[:, 19]).mean() / 14) for flow in flows]
        found[key] = mean(rates, math.exp(2 * (theory[5] - theory[19]) / 14))

    alike = {
        "balduzzi-batch": (
            Network(4, p.wide, "relu", "he", normalisation="batch_inference", batch_size=p.batch_size),
            p.batches,
        ),
        "balduzzi-plain": (Network(5, p.wide, "relu", "he", batch_size=2), p.pairs),
    }
    for key, (network, count) in alike.items():
        flows = [propagate(network, count, seed, loss_gradient="shared") for seed in seeds(p)]
        theory = mean_field(network)
        found[key] = mean([f.gradient_correlation[:, 0].mean() for f in flows], theory.gradient_correlation[0])

    depths = np.array([32, 64, 128])  # the power is that of great depth
    for key, position in (("xiong-pre", "pre"), ("xiong-post", "post")):
        last, theory = [], []
        for depth in depths:
            network = Network(
                int(depth),
                p.width,
                "relu",
                "he",
                normalisation="layer",
                norm_position=position,
                residual="preactivation",
            )
            # a pre-LN network ends with a norm, which divides the gradient by the scale of the sum
            expected = mean_field(network)
            flows = [propagate(network, 4 * p.batches, seed) for seed in seeds(p)]
            last.append([(f.log_weight_gradient[:, -1] - f.log_signal[:, -1]).mean() for f in flows])
            theory.append(expected.log_weight_gradient[-1] - expected.log_signal[-1])
        found[key] = mean(slope(np.log(depths), np.array(last).T), round(float(slope(np.log(depths), theory)), 6))
    return found


def slope(x, y):
    """Of the straight line through (x, y) by least squares, along the last axis of y."""
    centred = x - x.mean()
    return (centred * y).sum(axis=-1) / (centred**2).sum()


def kernels(p):
    """What is printed of networks, by the kernels."""
    found = {}
    pixels = math.sqrt(0.1307**2 + 0.3081**2)  # mean and standard deviation of MNIST
    for key, hidden in (("nielsen-four", 4), ("nielsen-three", 3)):
        network = Network(
            hidden + 1, 30, "sigmoid", weight_variance=1.0, bias_variance=1.0, input_width=784, input_rms=pixels
        )
        deltas = [log_delta(propagate(network, p.draws, seed)) for seed in seeds(p)]
        theory = mean_field(network)
        predicted = theory.log_weight_gradient - theory.log_signal[:-1] - 0.5 * np.log([784] + [30] * hidden)
        found[key] = draws(
            [np.exp(delta[:, hidden - 1] - delta[:, 0]) for delta in deltas],
            math.exp(predicted[hidden - 1] - predicted[0]),
        )

    course = {
        "deepshare-linear": (31, "linear", 256.0),
        "deepshare-scaled": (100, "linear", 1.0),
        "deepshare-tanh": (100, "tanh", 1.0),
        "deepshare-tanh-gain": (100, "tanh", 25 / 9),
        "deepshare-relu-gain": (100, "relu", 25 / 9),
        "deepshare-relu-he": (100, "relu", 2.0),
    }
    for key, (depth, name, variance) in course.items():
        network = Network(depth, 256, name, weight_variance=variance, batch_size=16)
        found[key] = of_flows(p, network, p.slow_draws, deviation(network, depth))

    stanford = {"cs231n-small": (5, 0.05), "cs231n-large": (10, 500.0), "cs231n-xavier": (10, 1.0)}
    for key, (depth, variance) in stanford.items():
        network = Network(depth, 500, "tanh", weight_variance=variance, batch_size=p.inputs)
        found[key] = of_flows(p, network, p.slow_draws, deviation(network, depth))

    network = Network(401, 100, "selu", "lecun", batch_size=p.inputs)
    flows, theory = [propagate(network, p.slow_draws, seed) for seed in seeds(p)], mean_field(network)
    for layer in (100, 400):  # counted from 0
        found[f"geron-selu-{layer}"] = draws(
            [over_inputs(flow.log_signal[:, layer + 1], flow.correlation[:, layer + 1]) for flow in flows],
            over_inputs(theory.log_signal[layer + 1], theory.correlation[layer + 1]),
        )

    for key, depth, name, variance in (
        ("pytorch-selu-signal", 91, "selu", 9 / 16),
        ("pytorch-tanh-signal", 10, "tanh", 25 / 9),
    ):
        network = Network(depth, 1000, name, weight_variance=variance, batch_size=p.inputs // 2)
        found[key] = of_flows(p, network, p.slow_draws, deviation(network, depth))

    fashion = math.sqrt(0.020**2 + 1.011**2)  # mean and standard deviation that the post prints of its inputs
    for key, (named, built) in {
        "initialisation-post-small": ((784e-4, 1e-4), (784.0, 1.0)),
        "initialisation-post-fan": ((1.0, 0.0), (784 / 512, 0.0)),
    }.items():
        found[key], found[key]["instead"] = (
            of_flows(
                p,
                Network(
                    1, 512, "linear", weight_variance=weights, bias_variance=biases, input_width=784, input_rms=fashion
                ),
                p.draws,
                lambda log_signal: np.exp(2 * log_signal[:, 1]),
            )
            for weights, biases in (named, built)
        )

    network = Network(1, 512, "relu", "normal")
    values = []
    for seed in seeds(p):
        generator = np.random.default_rng([p.seed, seed])
        squares = np.exp(2 * propagate(network, p.draws * p.average, seed).log_signal[:, 1])
        squares *= generator.chisquare(512, squares.size) / 512  # their input is not of one length
        values.append(squares.reshape(p.draws, p.average).mean(axis=1))
    found["fastai-relu"] = draws(values, 256.0)

    found["brauer-sigmoid"] = factor_of_default(p, "sigmoid")
    found["brauer-relabelled"] = factor_of_default(p, "sigmoid") | {"instead": factor_of_default(p, "relu")}
    return found


def over_inputs(log_signal, correlation):
    """The standard deviation of a unit over 500 inputs: of their mean square the share that the inputs do not have in common."""
    return np.exp(log_signal) * np.sqrt((1 - correlation) * 499 / 500)


def factor_of_default(p, name):
    """The factor per layer of 20 layers of width 100 with PyTorch's default, weights' gradients 19 to 14."""
    network = Network(20, 100, name, weight_variance=1 / 3, bias_variance=1 / 300)
    theory = mean_field(network).log_weight_gradient
    weights = [propagate(network, p.draws, seed).log_weight_gradient for seed in seeds(p)]
    return draws([np.exp((w[:, 13] - w[:, 18]) / 5) for w in weights], math.exp((theory[13] - theory[18]) / 5))


def matrices(p):
    """What is printed of explicit matrices, by explicit matrices."""
    found = {}
    growth = 0.5 * (math.log(2) + special.digamma(2.0))  # E ln |Wu| for a 4 × 4 matrix of N(0, 1) and a unit vector
    largest = draws([largest_entries(p, seed) for seed in seeds(p)], math.exp(101 * growth))
    found["d2l-product"] = found["course-product"] = largest

    dead = np.array([[dead_shares(p, seed, trial) for trial in range(p.slow_draws)] for seed in seeds(p)])
    for key, layer in (("uva-layer-5", 5), ("uva-layer-9", 9)):
        found[key] = draws(100 * dead[:, :, layer - 1], None)

    again = np.array([[repeated(p, seed, trial) for trial in range(p.slow_draws)] for seed in seeds(p)])
    limit = math.log(float(np.finfo(np.float32).max)) / math.log(math.sqrt(512))
    found["fastai-overflow"] = draws(again[:, :, 0], limit)
    found["fastai-scaled"] = draws(again[:, :, 1], 1.0)

    found["pytorch-selu-gradient"] = draws(
        [[summed_gradient(p, seed, trial) for trial in range(p.slow_draws)] for seed in seeds(p)], None
    )
    for name in ("sigmoid", "tanh", "relu"):
        value = activation(name).value
        found[f"gain-{name}"] = draws(
            [[gain(p, value, seed, trial) for trial in range(p.slow_draws)] for seed in seeds(p)],
            (value(GRID) ** 2 @ NORMAL - (value(GRID) @ NORMAL) ** 2) ** -0.5,
        )
    for key, shortcuts in (("raschka-plain", False), ("raschka-shortcuts", True)):
        found[key] = draws([first_over_last(p, seed, shortcuts) for seed in seeds(p)], None)
    return found


def largest_entries(p, seed):
    """Of products of 101 matrices, 4 × 4."""
    generator = np.random.default_rng([p.seed, seed])
    product = np.broadcast_to(np.eye(4), (p.draws, 4, 4))
    for _ in range(101):
        product = product @ generator.standard_normal((p.draws, 4, 4))
    return np.abs(product).max(axis=(1, 2))


def dead_shares(p, seed, trial):
    """For each layer of the tutorial's network, the share of units that are 0 for all the digits."""
    from sklearn.datasets import load_digits  # slow to import, and not needed by the drawings

    pixels = load_digits().data
    inputs = ((pixels - pixels.mean()) / pixels.std()).astype(np.float32)
    return [float(layer.mean()) for layer in pattern(UNITS, inputs, "default", p.slow_draws * seed + trial)]


def repeated(p, seed, trial):
    """(the multiplication x ← Ax at which float32 overflows, the deviation of x after a hundred x ← Ax/√512)."""
    generator = np.random.default_rng([p.seed, seed, trial])
    matrix = generator.standard_normal((512, 512), dtype=np.float32)
    x = generator.standard_normal(512, dtype=np.float32)
    y, count = x, 0
    with np.errstate(over="ignore", invalid="ignore"):
        while np.isfinite(x).all():
            x, count = matrix @ x, count + 1
    for _ in range(100):
        y = matrix @ y / np.float32(math.sqrt(512))
    return count - 1, float(y.std())  # they count from 0


def summed_gradient(p, seed, trial):
    """The mean |∂ Σh₁₁/∂x| of eleven layers of SELU with gain ¾: all entries of ∂E/∂h₁₁ are 1, not random."""
    generator = np.random.default_rng([p.seed, seed, trial])
    selu, scale = activation("selu"), np.float32(0.75 / math.sqrt(1000))
    h, layers = generator.standard_normal((1000, 4), dtype=np.float32), []
    for _ in range(11):
        weights = scale * generator.standard_normal((1000, 1000), dtype=np.float32)
        z = weights @ h
        h = selu.value(z).astype(np.float32)
        layers.append((weights, selu.slope(z).astype(np.float32)))
    gradient = np.ones_like(h)
    for weights, slopes in reversed(layers):
        gradient = weights.T @ (slopes * gradient)
    return float(np.abs(gradient).mean())


def gain(p, value, seed, trial):
    """The deviation of numbers from N(0, 1) over that of their φ."""
    x = np.random.default_rng([p.seed, seed, trial]).standard_normal(p.sample)
    return x.std() / value(x).std()


def first_over_last(p, seed, shortcuts):
    """The mean |∂E/∂W₁| over the mean |∂E/∂W₅| of the book's five layers; the loss's scale cancels."""
    generator, gelu, bound = np.random.default_rng([p.seed, seed]), activation("gelu"), 1 / math.sqrt(3)
    x = np.broadcast_to(np.array([1.0, 0.0, -1.0]), (p.draws, 3))
    inputs, weights, slopes = [], [], []
    for size in (3, 3, 3, 3, 1):
        matrix = generator.uniform(-bound, bound, (p.draws, size, 3))
        z = np.einsum("tij,tj->ti", matrix, x) + generator.uniform(-bound, bound, (p.draws, size))
        inputs.append(x)
        weights.append(matrix)
        slopes.append(gelu.slope(z))
        x = gelu.value(z) + (x if shortcuts and size == 3 else 0)
    gradient, means = np.ones((p.draws, 1)), []
    for x, matrix, slope_of in zip(inputs[::-1], weights[::-1], slopes[::-1], strict=True):
        delta = gradient * slope_of
        means.append(np.abs(delta).mean(axis=1) * np.abs(x).mean(axis=1))
        straight = gradient if shortcuts and delta.shape[1] == 3 else 0
        gradient = np.einsum("tij,ti->tj", matrix, delta) + straight
    return means[-1] / means[0]


def beside(p):
    """What the sentences around the printed numbers say, measured."""
    found = {}
    for width in (p.width, p.wide, 2 * p.wide):
        selu = Network(100, width, "selu", "lecun")
        flows, theory = [propagate(selu, p.networks // 4, seed) for seed in seeds(p)], mean_field(selu)
        found[f"selu_factor_{width}"] = mean(
            [np.exp(f.log_gradient[:, 0].mean() / 100) for f in flows], theory.chi_1**0.5
        )
        found[f"selu_square_{width}"] = mean(
            [np.exp(2 * f.log_signal[:, 99]).mean() for f in flows], float(theory.variance[99])
        )
    for width, size in ((p.narrow, 1.0), (2 * p.wide, 1.0), (2 * p.wide, p.small_input)):
        network = Network(400, width, "tanh", "xavier", input_rms=size)
        theory = mean_field(network).variance
        flows = [propagate(network, p.networks // 4, seed).log_signal for seed in seeds(p)]
        squares = [np.exp(2 * flow).mean(axis=0) for flow in flows]
        found[f"tanh_left_{width}_{size:g}".replace(".", "_")] = mean(
            [square[399] / square[99] for square in squares], float(theory[399] / theory[99])
        )
    tanh = Network(400, p.wide, "tanh", "xavier")
    flows, theory = [propagate(tanh, p.networks // 4, seed).log_signal for seed in seeds(p)], mean_field(tanh)
    for depth in (100, 200, 400):
        found[f"tanh_variance_{depth}"] = mean(
            [np.exp(2 * flow[:, depth - 1]).mean() for flow in flows], float(theory.variance[depth - 1])
        )
    options = {"normalisation": "batch_inference", "batch_size": p.batch_size}
    for width in (p.width // 2, p.width):
        for key, residual in (("normed", None), ("skips", "preactivation")):
            network = Network(8, width, "relu", "he", residual=residual, **options)
            flows = [propagate(network, p.batches, seed, loss_gradient="shared") for seed in seeds(p)]
            theory = mean_field(network)
            found[f"{key}_correlation_{width}"] = mean(
                [f.gradient_correlation[:, 0].mean() for f in flows], theory.gradient_correlation[0]
            )
            found[f"{key}_gradient_{width}"] = mean(
                [np.exp(f.log_gradient[:, 0].mean()) for f in flows], math.exp(theory.log_gradient[0])
            )
    plain = Network(30, p.wide, "relu", "he", batch_size=p.batch_size)
    single, average = [], []
    for seed in seeds(p):
        flow = propagate(plain, 2 * p.batches, seed, loss_gradient="shared")
        squares = np.exp(2 * flow.log_gradient[:, 0])
        left = (1 + (plain.batch_size - 1) * flow.gradient_correlation[:, 0]) / plain.batch_size
        single.append(math.sqrt(squares.mean()))
        average.append(math.sqrt((squares * left).mean()))  # |mean|² is this share of the mean square
    theory = mean_field(plain)
    share = (1 + (plain.batch_size - 1) * theory.gradient_correlation[0]) / plain.batch_size
    found["single"] = mean(single, math.exp(theory.log_gradient[0]))
    found["average"] = mean(average, math.exp(theory.log_gradient[0]) * math.sqrt(share))
    return found


# Compared


def overlap(one, other):
    return one[0] <= other[1] and other[0] <= one[1]


def inside(result, key):
    """Do some of the values that round to theirs lie in our interval of the network that is named?"""
    entry = result["entries"][key]
    return overlap(PRINTED[key].interval, (entry["low"], entry["high"]))


def explained(result, key):
    """Theirs is outside; but another network that can be named has it or, of a formula, our theory for this one is inside."""
    entry = result["entries"][key]
    if inside(result, key):
        return False
    if KIND[key] == "formula":
        return entry["low"] <= entry["predicted"] <= entry["high"]
    return "instead" in entry and overlap(PRINTED[key].interval, (entry["instead"]["low"], entry["instead"]["high"]))


def stands(result, key):
    return inside(result, key) or explained(result, key)


def chance(entry):
    """That an honest number falls outside: a new draw outside the range of ours, or a true mean outside its interval."""
    return 2 / (entry["draws"] + 1) if "draws" in entry else 1 - LEVEL


def false_alarms(result, keys):
    return sum(chance(result["entries"][key]) for key in keys)


def count(result, keys, is_so):
    return sum(is_so(result, key) for key in keys)


def place(entry, interval):
    """Where their interval lies in ours, on a scale on which ours goes from -1 to 1; of quantities above 0 the logarithm."""
    ends = np.array([entry["low"], entry["high"], *interval])
    if (ends > 0).all():
        ends = np.log(ends)
    return (ends[2:] - ends[:2].mean()) / ((ends[1] - ends[0]) / 2)


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


def ours(entry):
    text = f"{written(entry['measured'])}, from {written(entry['low'])} to {written(entry['high'])}"
    return text + (f"<br>({entry['draws']:,} draws)" if "draws" in entry else "")


def verdict(result, key):
    entry = result["entries"][key]
    if inside(result, key):
        return "inside"
    if not explained(result, key):
        return "**outside**"
    if KIND[key] == "formula":
        return "**outside**; the theory for this network is inside"
    return f"**outside**; inside for: {PRINTED[key].instead}, {ours(entry['instead'])}"


def figure(result):
    drawing, axes = new_figure(7.2, 10.5)
    colours = dict(zip(KINDS, ramp(3), strict=True))
    limit = 2.2
    axes.axvspan(-1, 1, color=MUTED, alpha=0.15, linewidth=0)
    for row, (key, printed) in enumerate(PRINTED.items()):
        entry, colour = result["entries"][key], colours[KIND[key]]
        low, high = np.clip(place(entry, printed.interval), -limit, limit)
        axes.plot([low, high], [row, row], color=colour, linewidth=2.5, solid_capstyle="round")
        axes.plot((low + high) / 2, row, color=colour, marker="o", linestyle="none", markersize=5)
        if "instead" in entry and not inside(result, key):
            low, high = np.clip(place(entry["instead"], printed.interval), -limit, limit)
            axes.plot(
                (low + high) / 2, row, color=colour, marker="o", markerfacecolor="none", linestyle="none", markersize=7
            )
    axes.set_yticks(range(len(PRINTED)), list(PRINTED))
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.invert_yaxis()
    axes.set(
        xlim=(-limit - 0.1, limit + 0.1),
        xticks=[-1, 0, 1],
        xticklabels=["our lowest", "middle", "our highest"],
        ylim=(len(PRINTED) - 0.4, -0.6),
    )
    labels = {"printout": "a printed draw", "paper": "a number in a paper", "formula": "a formula"}
    handles = [
        Line2D([], [], color=colours[kind], marker="o", linewidth=2.5, label=label) for kind, label in labels.items()
    ]
    handles.append(
        Line2D([], [], color=INK, marker="o", markerfacecolor="none", linestyle="none", label="for another network")
    )
    axes.legend(handles=handles, ncols=4, loc="lower left", bbox_to_anchor=(-0.3, 1.0))
    return drawing


def caption(result):
    return (
        "Each row is a number that others printed. The grey band is ours: of a printed draw the range of all our draws, of a paper "
        f"or a formula the {100 * LEVEL:g} % interval of our mean. A bar is the values that round to the printed digits, clipped at "
        "the edges. An open circle says where the number lies in the band of another network, which the table names."
    )


def alt(result):
    texts = []
    for kind, name in (("printout", "printouts"), ("paper", "numbers in papers"), ("formula", "formulas")):
        outside = [key for key in KINDS[kind] if not inside(result, key)]
        texts.append(
            f"{len(KINDS[kind]) - len(outside)} of {len(KINDS[kind])} {name} are inside, not {', '.join(outside) or 'none'}"
        )
    return f"Of what others printed, {'; '.join(texts)}."


def table(result):
    rows = [["Name", "Setting", "What", "Theirs", "Theory", "Ours", "Theirs in ours"]]
    for key, printed in PRINTED.items():
        entry = result["entries"][key]
        rows.append(
            [
                f'<a id="museum-{key}"></a>`{key}`, {KIND[key]}<br>{printed.source}',
                printed.setting,
                printed.quantity,
                written(printed.value),
                written(entry["predicted"]),
                ours(entry),
                verdict(result, key),
            ]
        )
    return rows


def data(result):
    fields = ("predicted", "measured", "low", "high", "least", "most", "draws")
    rows = [["name", "kind", "source", "setting", "quantity", "theirs", "theirs_low", "theirs_high"]]
    rows[0] += [*fields, "chance_outside", "inside", "instead", "instead_low", "instead_high"]
    for key, printed in PRINTED.items():
        entry = result["entries"][key]
        other = entry.get("instead", {})
        rows.append(
            [
                key,
                KIND[key],
                printed.source,
                printed.setting,
                printed.quantity,
                printed.value,
                *printed.interval,
                *(entry.get(field, "") for field in fields),
                chance(entry),
                inside(result, key),
                printed.instead,
                other.get("low", ""),
                other.get("high", ""),
            ]
        )
    return rows


def numbers(result):
    found = {"all": len(PRINTED), "level": 100 * LEVEL, "false_alarms": false_alarms(result, PRINTED)}
    for kind, members in KINDS.items():
        found[f"{kind}s"] = len(members)
        found[f"{kind}s_inside"] = count(result, members, inside)
        found[f"{kind}s_explained"] = count(result, members, explained)
        found[f"{kind}s_false_alarms"] = false_alarms(result, members)
    for key, printed in PRINTED.items():
        entry, name = result["entries"][key], key.replace("-", "_")
        found[f"{name}_theirs"] = printed.value
        found |= {f"{name}_theirs_low": printed.interval[0], f"{name}_theirs_high": printed.interval[1]}
        for prefix, part in ((name, entry), (f"{name}_instead", entry.get("instead", {}))):
            found |= {f"{prefix}_{field}": value for field, value in part.items() if isinstance(value, float | int)}
    for name, entry in result.items():
        if name != "entries":
            found |= {name: entry["measured"], f"{name}_predicted": entry["predicted"]}
    return found | {"selu_hundred": result["selu_factor_512"]["measured"] ** 100}


def between(name):
    return lambda r: f"{r[name]['measured']:.4g}, {r[name]['low']:.4g} to {r[name]['high']:.4g}"


def said(kind):
    keys = KINDS[kind]
    return lambda r: (
        f"{count(r, keys, inside)} of {len(keys)} inside, {count(r, keys, explained)} explained, "
        f"{len(keys) - count(r, keys, stands)} left"
    )


def expected(kind):
    return lambda r: f"{len(KINDS[kind])} of {len(KINDS[kind])}; {false_alarms(r, KINDS[kind]):.2g} outside by chance"


def all_stand(kind):
    return lambda r: all(stands(r, key) for key in KINDS[kind])


def rounds_to(entry, digits):
    """Does the whole interval of our mean round to these digits?"""
    low, high = rounded_to(digits)
    return low <= entry["low"] and entry["high"] <= high


PAGE = "verify/museum.md"
CLAIMS = [
    Claim(
        "printouts-agree",
        "Each number that a notebook, a post or a book printed lies within the range of our draws, of the network that is named beside "
        "it or of the one that its code built instead.",
        "books, courses, posts, forums and notebooks",
        expected("printout"),
        said("printout"),
        "holds with a condition",
        all_stand("printout"),
        PAGE,
    ),
    Claim(
        "paper-numbers-agree",
        "The numbers that three papers print agree with ours within our error, if the average of Glorot and Bengio is a root of a mean "
        "square.",
        "papers of 2010, 2015 and 2017",
        expected("paper"),
        said("paper"),
        "holds with a condition",
        lambda r: (
            all_stand("paper")(r)
            and all(
                overlap(
                    PAPERS[key].interval, (r["entries"][key]["instead"]["low"], r["entries"][key]["instead"]["high"])
                )
                for key in ("glorot-normalised", "glorot-standard")
            )
        ),
        PAGE,
    ),
    Claim(
        "formulas-agree",
        "Where a paper's formula misses our mean, the theory for that width and that norm does not.",
        "papers with a formula or a power",
        expected("formula"),
        said("formula"),
        "holds with a condition",
        all_stand("formula"),
        PAGE,
    ),
    Claim(
        "selu-gradient-grows",
        "SELU keeps the size of the signal and not that of the gradient, which from width 256 on grows by three to four per cent per "
        "layer.",
        "Klambauer et al. 2017, abstract: vanishing and exploding gradients are impossible",
        lambda r: f"× {r['selu_factor_512']['predicted']:.4f} per layer",
        lambda r: f"× {between('selu_factor_512')(r)} per layer",
        "holds with a condition",
        lambda r: all(
            1.03 < r[f"selu_factor_{w}"]["low"]
            and r[f"selu_factor_{w}"]["high"] < 1.04
            and rounds_to(r[f"selu_square_{w}"], "1")
            for w in (256, 512, 1024)
        ),
        PAGE,
    ),
    Claim(
        "tanh-never-settles",
        "The variance of a tanh network with Xavier initialisation does not settle: from layer 100 to layer 400 it falls to about a "
        "quarter in wide networks, and to less in narrower ones.",
        "belief: with Xavier initialisation tanh settles at a variance of 0.25",
        lambda r: " → ".join(f"{r[f'tanh_variance_{d}']['predicted']:.5f}" for d in (100, 200, 400)),
        lambda r: " → ".join(f"{r[f'tanh_variance_{d}']['measured']:.5f}" for d in (100, 200, 400)),
        "false as stated",
        lambda r: (
            # theory for infinite width, from large and small inputs; and the widest networks measured
            all(
                abs(r[f"tanh_left_1024_{size}"]["predicted"] - 0.25) < 0.015
                and 0.2 < r[f"tanh_left_1024_{size}"]["low"] < r[f"tanh_left_1024_{size}"]["high"] < 0.3
                for size in ("1", "0_3")
            )
            and r["tanh_left_64_1"]["high"] < 0.2
            and r["tanh_variance_400"]["high"] < r["tanh_variance_200"]["low"] < r["tanh_variance_100"]["low"]
        ),
        PAGE,
    ),
    Claim(
        "skips-keep-gradients-alike",
        "Without skips batch normalisation does not let gradients vanish; they grow, here threefold in eight layers. The gradients of "
        "two inputs keep less than a hundredth of their likeness, with skips more than a quarter.",
        "He et al. 2016, section 4.1: plain networks with batch normalisation are unlikely to suffer from vanishing gradients",
        lambda r: (
            f"correlation {r['normed_correlation_256']['predicted']:.4f} plain, "
            f"{r['skips_correlation_256']['predicted']:.3f} with skips"
        ),
        lambda r: f"{between('normed_correlation_256')(r)} plain, {between('skips_correlation_256')(r)} with skips",
        "holds with a condition",
        lambda r: all(
            rounds_to(r[f"normed_gradient_{w}"], "3")
            and r[f"normed_correlation_{w}"]["high"] < 0.01
            and r[f"skips_correlation_{w}"]["low"] > 0.25
            # and each mean is that of theory
            and all(
                r[f"{key}_{w}"]["low"] <= r[f"{key}_{w}"]["predicted"] <= r[f"{key}_{w}"]["high"]
                for key in ("normed_gradient", "normed_correlation", "skips_correlation")
            )
            for w in (128, 256)
        ),
        PAGE,
    ),
    Claim(
        "averages-cancel",
        "The norm of a gradient that is averaged over inputs mixes cancellation with vanishing: through thirty ReLU layers with He "
        "initialisation an input's gradient keeps its mean square, and the average over 64 orthogonal inputs with one gradient at the "
        "top loses more than three quarters of its size.",
        "practice: plotting the norm of the averaged gradient",
        lambda r: f"single × {r['single']['predicted']:.3f}, average × {r['average']['predicted']:.3f}",
        lambda r: f"single × {between('single')(r)}, average × {between('average')(r)}",
        "holds with a condition",
        lambda r: r["single"]["low"] <= 1 <= r["single"]["high"] and r["average"]["high"] < 0.25,
        PAGE,
    ),
]
