"""When the numbers die: products of many factors in the number formats that networks are trained in.

Every step is a real multiplication rounded to nearest, ties to even, in the format; nothing is estimated.
"""

import bisect
import math
from dataclasses import dataclass

MOST_STEPS = 1_000_000


@dataclass(frozen=True)
class NumberFormat:
    """A binary floating-point format of IEEE 754's kind."""

    name: str
    label: str
    precision: int  # bits of the significand, the leading one among them
    smallest_exponent: int  # 2 to this is the smallest normal number
    largest_exponent: int  # numbers from 2 to this plus 1 overflow

    @property
    def smallest_normal(self) -> float:
        return math.ldexp(1.0, self.smallest_exponent)

    @property
    def smallest_subnormal(self) -> float:
        return math.ldexp(1.0, self.smallest_exponent - self.precision + 1)

    @property
    def largest(self) -> float:
        return math.ldexp(2.0 - math.ldexp(1.0, 1 - self.precision), self.largest_exponent)

    @property
    def unit_roundoff(self) -> float:
        """Half the distance from 1 to the next number: the largest relative error of one rounding."""
        return math.ldexp(1.0, -self.precision)

    def round(self, x: float, flush: bool = False) -> float:
        """The number of the format nearest to x, ties to even; with `flush`, subnormal results become 0.

        A result is flushed if it is subnormal after rounding.
        """
        if x == 0 or not math.isfinite(x):
            return x
        _, exponent = math.frexp(x)  # |x| in [2^(exponent - 1), 2^exponent)
        if exponent > self.largest_exponent + 1:
            return math.copysign(math.inf, x)
        lowest = max(exponent - self.precision, self.smallest_exponent - self.precision + 1)
        rounded = math.ldexp(round(math.ldexp(x, -lowest)), lowest)  # Python's round: exact, ties to even
        if abs(rounded) > self.largest:
            return math.copysign(math.inf, x)
        return math.copysign(0.0, x) if flush and abs(rounded) < self.smallest_normal else rounded

    def product(self, x: float, y: float, flush: bool = False) -> float:
        """xy for x and y of the format, rounded once."""
        if self.precision <= 26:  # the product of two significands is exact in float64, and so is its exponent here
            return self.round(x * y, flush)
        exact = x * y  # float64 itself
        return math.copysign(0.0, exact) if flush and abs(exact) < self.smallest_normal else exact


NUMBER_FORMATS: dict[str, NumberFormat] = {
    format.name: format
    for format in (
        NumberFormat("fp16", "fp16 (half)", 11, -14, 15),
        NumberFormat("bf16", "bfloat16", 8, -126, 127),
        NumberFormat("fp32", "fp32 (single)", 24, -126, 127),
        NumberFormat("fp64", "fp64 (double)", 53, -1022, 1023),
    )
}


def number_format(name: str) -> NumberFormat:
    """The format of this name; raises ValueError if it is unknown."""
    if name not in NUMBER_FORMATS:
        raise ValueError(f"unknown number format {name!r}; known: {', '.join(NUMBER_FORMATS)}")
    return NUMBER_FORMATS[name]


@dataclass(frozen=True)
class Horizon:
    """Where x ← rx, starting from x = 1, ends."""

    depth: int | None
    """The first step whose result is 0; None if there is none."""
    stall: int | None
    """The first step that leaves x as it is, above 0; None if there is none."""
    subnormal: int | None
    """The first step whose result is below the smallest normal number (0 among them); None if there is none."""


def horizon(name: str, ratio: float, flush: bool = False) -> Horizon:
    """Multiply by the ratio, itself rounded to the format, until the result is 0 or no longer changes.

    With gradual underflow a ratio above ½ never reaches 0: the last subnormal numbers round back to themselves. Raises
    ValueError if the ratio is not between 0 and 1, or so close to 1 that it takes millions of steps.
    """
    if not 0 < ratio < 1:
        raise ValueError(f"ratio must be above 0 and below 1, not {ratio!r}")
    form = number_format(name)
    steps = (form.precision - form.smallest_exponent) * math.log(2) / -math.log(ratio)
    if steps > MOST_STEPS:
        raise ValueError(
            f"with ratio {ratio!r} it takes {steps:.2g} steps to the end, more than {MOST_STEPS}; take a smaller one"
        )
    factor, x, step, subnormal = form.round(ratio, flush), 1.0, 0, None
    while True:
        step += 1
        after = form.product(x, factor, flush)
        if subnormal is None and after < form.smallest_normal:
            subnormal = step
        if after == 0:
            return Horizon(step, None, subnormal)
        if after == x:
            return Horizon(None, step, subnormal)
        x = after


def horizon_by_logarithm(name: str, ratio: float) -> int:
    """⌈k ln 2/(-ln r)⌉, 2^{-k} half the smallest subnormal number: exact for ratios that are powers of ½, a guide below ½."""
    form = number_format(name)
    halves = form.precision - form.smallest_exponent  # r^n ≤ 2^-halves rounds to 0, ties to even
    return math.ceil(halves * math.log(2) / -math.log(ratio) - 1e-9)


def lost_update(name: str, ratio: float, learning_rate: float, weight: float = 1.0) -> int:
    """The first depth n at which the update η rⁿ no longer changes the weight: w - η rⁿ rounds to w.

    rⁿ itself is carried exactly: this comes before underflow, whatever the gradient's own format.
    """
    if not 0 < ratio < 1 or not learning_rate > 0 or not weight > 0:
        raise ValueError(
            f"ratio must be above 0 and below 1, learning_rate and weight above 0, not {ratio!r}, {learning_rate!r}, {weight!r}"
        )
    form = number_format(name)
    w = form.round(weight)

    def is_lost(n: int) -> bool:
        return form.round(w - form.round(learning_rate * ratio**n)) == w

    if not is_lost(MOST_STEPS):
        raise ValueError(f"the update survives {MOST_STEPS} layers of ratio {ratio!r}; take a smaller one")
    return bisect.bisect_left(range(MOST_STEPS), True, key=is_lost)  # what is smaller is lost as well
