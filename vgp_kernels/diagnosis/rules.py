"""The rules by which a report becomes a diagnosis; written once, for Python and for the page.

scripts/site/rules.py translates this file to JavaScript, so it keeps to a small part of Python: functions, `if`, `for`, `while`,
lists, dictionaries with text as keys, f-strings without formats, and the functions of `plain.py`. The translator refuses all else.
The order of `find` is the order of the diagnosis: the first that is sick is the answer, the others are listed beneath it.
No level of the gradients decides, but for underflow: all of them may be multiplied by a constant and the answer stays. Of the loss, of
outputs at their ends and of the number of inputs the size counts.
"""

import math

from vgp_kernels.diagnosis.kinds import CODE, KINDS
from vgp_kernels.diagnosis.plain import (
    as_float,
    figures,
    is_alphabetical,
    is_dict,
    is_finite,
    is_list,
    is_number,
    is_text,
    naturally_sorted,
    pattern,
)

VERSION = 1  # of the report
ENOUGH = 6  # comparable layers, for a rate
SMALLEST = {"float16": 5.97e-8, "bfloat16": 9.2e-41, "float32": 1.5e-45, "float64": 5e-324}
FLAT = ["sign", "round", "floor", "ceil", "trunc", "heaviside", "argmax"]  # functions with slope 0
BOUNDED = ["sigmoid", "tanh", "hardtanh", "hardsigmoid", "softsign", "relu6"]
CUTTING = ["relu", "relu6", "threshold", "hardtanh", "hardshrink", "softshrink"]  # their units can be off
WEIGHTED = ["linear", "conv"]
NUMBERS = {
    "parameters": ["weight", "gradient", "update"],
    "layers": [
        "rms",
        "zeros",
        "dead",
        "saturated",
        "deviation",
        "nonfinite",
        "slope",
        "inputs",
        "gradient",
        "gradient_nonfinite",
    ],
}


# Reading


def read(value):
    """The report with every field in its place, or {"error": a sentence}."""
    if is_list(value):
        return read_list(value)
    if not is_dict(value) or not (is_list(value.get("parameters")) or is_list(value.get("layers"))):
        return {"error": "This is JSON, but not a report: a report is a list of layers, or has a list of “parameters”."}
    version = value.get("version")
    if version is None:
        version = VERSION
    if not is_number(version) or version != VERSION:
        return {
            "error": f"This report has a version that is not known here; known is version {VERSION}. Record it again."
        }
    report = {"form": "report", "error": "", "sorted": False}
    for key in ["loss", "classes", "step", "scale"]:
        report[key] = read_number(value.get(key))
        if report[key] == "bad":
            return {"error": f"“{key}” should be a number."}
    for key in ["framework", "mode", "autocast"]:
        report[key] = read_text(value.get(key), "")
    report["notes"] = []
    notes = value.get("notes")
    if is_list(notes):
        for note in notes[:20]:
            report["notes"].append(read_text(note, ""))
    read_rows(report, value, "parameters")
    read_rows(report, value, "layers")
    read_time(report, value)
    if report["error"] == "" and len(report["parameters"]) == 0 and len(report["layers"]) == 0:
        return {"error": "The report is empty: no parameter and no layer was recorded."}
    return report


def read_rows(report, value, part):
    rows = value.get(part)
    report[part] = []
    if not is_list(rows):
        return
    for index, row in enumerate(rows):
        if not is_dict(row):
            report["error"] = f"Entry {index + 1} of “{part}” is not an object with a name and numbers."
            return
        clean = read_layer(row, index) if part == "layers" else read_parameter(row, index)
        for key in NUMBERS[part]:
            if clean[key] == "bad":
                report["error"] = f"Entry {index + 1} of “{part}”: “{key}” should be a number or null."
                return
        if part == "parameters" and clean["weight"] is None:
            report["error"] = f"Entry {index + 1} of “parameters” needs “weight”, a norm."
            return
        report[part].append(clean)


def read_parameter(row, index):
    return {
        "name": read_text(row.get("name"), f"{index + 1}"),
        "index": index,
        "weight": read_number(row.get("weight")),
        "gradient": read_number(row.get("gradient")),
        "update": read_number(row.get("update")),
        "dtype": read_text(row.get("dtype"), ""),
        "trainable": row.get("trainable") is not False,
        "shape": read_shape(row.get("shape")),
    }


def read_layer(row, index):
    return {
        "name": read_text(row.get("name"), f"{index + 1}"),
        "index": index,
        "kind": read_text(row.get("kind"), ""),
        "function": read_text(row.get("function"), ""),
        "into": read_text(row.get("into"), ""),
        "rms": read_number(row.get("rms")),
        "zeros": read_number(row.get("zeros")),
        "dead": read_number(row.get("dead")),
        "saturated": read_number(row.get("saturated")),
        "deviation": read_number(row.get("deviation")),
        "nonfinite": read_number(row.get("nonfinite")),
        "slope": read_number(row.get("slope")),
        "inputs": read_number(row.get("inputs")),
        "gradient": read_number(row.get("gradient")),
        "gradient_nonfinite": read_number(row.get("gradient_nonfinite")),
        "shape": read_shape(row.get("shape")),
    }


def read_shape(shape):
    sizes = []
    if is_list(shape):
        for size in shape[:8]:
            if is_number(size) and size >= 0:
                sizes.append(as_float(size))
    return sizes


def read_time(report, value):
    report["time"] = []
    series = value.get("time")
    if not is_list(series):
        return
    for index, row in enumerate(series):
        if not is_dict(row) or not is_list(row.get("gradient")):
            report["error"] = f"Entry {index + 1} of “time” needs a list “gradient”."
            return
        norms = []
        for norm in row.get("gradient"):
            number = read_number(norm)
            if number == "bad":
                report["error"] = f"Entry {index + 1} of “time” has something that is not a number."
                return
            norms.append(number)
        report["time"].append({"name": read_text(row.get("name"), f"{index + 1}"), "gradient": norms})


def read_list(rows):
    """The form without a version: a list of {name, weight, gradient}."""
    if len(rows) == 0:
        return {"error": "The list is empty: no layer was recorded. Is there a matrix that is trained?"}
    report = {
        "form": "list",
        "error": "",
        "sorted": False,
        "loss": None,
        "classes": None,
        "step": None,
        "scale": None,
        "framework": "",
        "mode": "",
        "autocast": "",
        "notes": [],
        "layers": [],
        "time": [],
    }
    for index, row in enumerate(rows):
        if not is_dict(row) or not ("weight" in row and "gradient" in row):
            return {"error": f"Entry {index + 1} needs “weight” and “gradient”, two norms."}
    read_rows(report, {"parameters": rows}, "parameters")
    if report["error"] != "":
        return report
    rows = report["parameters"]
    for row in rows:
        row["shape"] = [0, 0]  # this form holds matrices only
        row["dtype"] = ""
        row["trainable"] = True
    if is_alphabetical(rows):
        natural = naturally_sorted(rows)
        if not same_order(rows, natural):
            report["parameters"] = natural
            report["sorted"] = True
    return report


def same_order(rows, others):
    for index, row in enumerate(rows):
        if row["index"] != others[index]["index"]:
            return False
    return True


def read_number(value):
    """The number, None, or "bad". Numbers that are not finite may be text, since JSON has none."""
    if value is None:
        return None
    if is_number(value):
        return as_float(value)
    if is_text(value) and len(value) < 12:
        word = value.lower()
        if word == "nan" or word == "-nan":
            return math.nan
        if word == "inf" or word == "infinity" or word == "+inf" or word == "+infinity":
            return math.inf
        if word == "-inf" or word == "-infinity":
            return -math.inf
    return "bad"


def read_text(value, instead):
    if is_text(value) and len(value) > 0:
        return value[:200]
    return instead


# Words


def listed(names):
    if len(names) <= 6:
        return ", ".join(names)
    return f"{', '.join(names[:3])}, … {', '.join(names[-2:])} ({len(names)} in all)"


def names_of(rows):
    names = []
    for row in rows:
        names.append(row["name"])
    return names


def times(factor):
    return f"×{figures(factor)}"


def finding(kind, layers, evidence, certainty, why):
    return {"kind": kind, "layers": layers, "evidence": evidence, "certainty": certainty, "why": why}


# Numbers


def median(values):
    ordered = sorted(values)
    half = len(ordered) // 2
    if len(ordered) % 2 == 1:
        return ordered[half]
    return (ordered[half - 1] + ordered[half]) / 2


def thinned(values):
    """At most 200 points (index, value): medians of equal stretches, so that a line through 100,000 layers takes no time."""
    stretch = 1
    while len(values) > 200 * stretch:
        stretch = stretch * 2
    points = []
    for start in range(0, len(values), stretch):
        part = values[start : start + stretch]
        points.append([start + (len(part) - 1) / 2, median(part)])
    return points


def line(values):
    """The line through (0, v₀), (1, v₁) … by the median of all pairs' slopes (Theil and Sen).

    {"slope", "offset", "fit": share of the variation explained, without the worst tenth, "low", "high": bounds of the slope}.
    """
    points = thinned(values)
    slopes = []
    for i, a in enumerate(points):
        for b in points[i + 1 :]:
            slopes.append((b[1] - a[1]) / (b[0] - a[0]))
    slope = median(slopes)
    offsets = []
    for point in points:
        offsets.append(point[1] - slope * point[0])
    offset = median(offsets)
    misses = []
    centre = 0.0
    middle = 0.0
    for point in points:
        misses.append((point[1] - offset - slope * point[0]) ** 2)
        centre = centre + point[1] / len(points)
        middle = middle + point[0] / len(points)
    misses = sorted(misses)
    kept = len(points) - len(points) // 10
    missed = 0.0
    for miss in misses[:kept]:
        missed = missed + miss / kept
    spread = 0.0
    width = 0.0
    for point in points:
        spread = spread + (point[1] - centre) ** 2 / len(points)
        width = width + (point[0] - middle) ** 2
    error = math.sqrt(missed * len(points) / max(len(points) - 2, 1) / width)
    return {
        "slope": slope,
        "offset": offset,
        "fit": 1.0 if spread == 0 else max(0.0, 1 - missed / spread),
        "miss": math.sqrt(missed),
        "low": slope - 2 * error,
        "high": slope + 2 * error,
    }


def extent(values):
    return max(values) - min(values)


def shape_of(values):
    """How log₁₀ of a positive quantity runs over comparable layers, input first: what it looks like, and where.

    {"look": "few" | "outlier" | "valley" | "step" | "line" | "unclear" | "level", "at": index, …}; `total` is the factor by
    which the quantity changes from the last layer to the first, `factor` the same for one layer.
    """
    count = len(values)
    if count < ENOUGH:
        return {"look": "few", "at": 0}
    fitted = line(values)
    result = {
        "look": "level",
        "at": 0,
        "factor": power(-fitted["slope"]),
        "total": power(-fitted["slope"] * (count - 1)),
        "low": power(-fitted["high"] * (count - 1)),
        "high": power(-fitted["low"] * (count - 1)),
        "fit": fitted["fit"],
        "miss": fitted["miss"],
        "slope": fitted["slope"],
    }
    lone = outlier(values)
    if lone["at"] >= 0:
        result["look"] = "outlier"
        result["at"] = lone["at"]
        result["size"] = lone["size"]
        return result
    bottom = 0
    for index, value in enumerate(values):
        if value < values[bottom]:
            bottom = index
    if 2 <= bottom < count - 2:
        fall = median(values[: max(2, bottom // 3)]) - values[bottom]
        rise = median(values[min(count - 2, count - (count - bottom) // 3) :]) - values[bottom]
        ends = median(values[: max(2, bottom // 3)]) - median(values[min(count - 2, count - (count - bottom) // 3) :])
        if fall > 1 and rise > 1 and abs(ends) < 0.7 * min(fall, rise) + 0.5:
            result["look"] = "valley"
            result["at"] = bottom
            return result
    jump = step(values)
    if jump["at"] > 0:
        result["look"] = "step"
        result["at"] = jump["at"]
        result["size"] = jump["size"]
        return result
    if abs(fitted["slope"]) * (count - 1) > 0.7:
        result["look"] = "line" if fitted["fit"] > 0.75 else "unclear"
    elif extent(values) > 3:
        result["look"] = "unclear"
    return result


def power(decades):
    return 10 ** max(-300.0, min(300.0, decades))


def outlier(values):
    """One layer far from both neighbours, which agree: {"at": index or -1, "size": decades}."""
    found = {"at": -1, "size": 0.0}
    for index in range(1, len(values) - 1):
        before = values[index - 1]
        after = values[index + 1]
        size = values[index] - (before + after) / 2
        if abs(size) < 2 or abs(size) < 5 * abs(after - before) or abs(size) < abs(found["size"]):
            continue
        others = []
        for other in range(max(1, index - 6), min(len(values), index + 7)):
            if other != index and other != index + 1:
                others.append(abs(values[other] - values[other - 1]))
        if abs(size) > 8 * median(others):
            found = {"at": index, "size": size}
    return found


def step(values):
    """A jump between two stretches that are level: {"at": first index after it or 0, "size": decades}."""
    found = {"at": 0, "size": 0.0}
    for index in range(2, len(values) - 1):
        size = values[index] - values[index - 1]
        if abs(size) > abs(found["size"]):
            found = {"at": index, "size": size}
    if found["at"] == 0:
        return found
    below = values[: found["at"]]
    above = values[found["at"] :]
    if abs(found["size"]) > 1 and abs(found["size"]) > 3 * max(extent(below), extent(above)):
        return found
    return {"at": 0, "size": 0.0}


# Which layers are looked at


def usable(value):
    """Recorded, finite and above 0."""
    return value is not None and is_finite(value) and value > 0


def hidden(report):
    """The layers whose ∂E/∂h can be compared, in the order of the calls: {"rows", "kind", "source"}.

    Blocks where there are six of them, else the largest group of weighted layers of one kind and role, else all of one kind.
    """
    best = {"rows": [], "kind": "", "source": "gradient at each layer's output"}
    groups = {}
    order = []
    last = -1
    for index, row in enumerate(report["layers"]):
        if row["kind"] in WEIGHTED:
            last = index
    for index, row in enumerate(report["layers"]):
        kind = row["kind"]
        if index == last or row["gradient"] is None or not (kind == "block" or kind in WEIGHTED):
            continue
        for key in [f"{kind} {pattern(row['name'])}", f"{kind}"]:
            key = f"group {key}"
            if key not in groups:
                groups[key] = {"rows": [], "kind": kind, "source": best["source"], "rank": 0}
                order.append(key)
            groups[key]["rows"].append(row)
    for wanted in ["block", "role", "kind"]:
        for key in order:
            group = groups[key]
            everything = groups[f"group {group['kind']}"]["rows"]
            is_kind = key == f"group {group['kind']}"
            is_block = group["kind"] == "block"
            fits = is_block and not is_kind
            if wanted == "role":
                fits = not is_block and not is_kind and len(group["rows"]) < 0.7 * len(everything)
            elif wanted == "kind":
                fits = is_kind and not is_block
            enough = len(group["rows"]) >= ENOUGH or wanted == "kind"
            if fits and enough and len(group["rows"]) > len(best["rows"]):
                best = group
        if len(best["rows"]) >= ENOUGH:
            return best
    return best


def matrices(report):
    found = []
    for row in report["parameters"]:
        if row["trainable"] and len(row["shape"]) > 1:
            found.append(row)
    return found


def is_output(report, index):
    """No weighted layer comes after this one."""
    for row in report["layers"][index + 1 :]:
        if row["kind"] in WEIGHTED or row["kind"] == "recurrent":
            return False
    return True


def operation(report, names):
    """The first recorded function with one of these names."""
    for row in report["layers"]:
        if row["function"] in names:
            return row
    return None


# The rules, in their order


def forward(report, found):
    """Whether a value that is not finite arises going forward, and where first."""
    previous = None
    for row in report["layers"]:
        if row["nonfinite"] is not None and row["nonfinite"] > 0:
            evidence = [["values that are not finite", row["nonfinite"]]]
            if row["kind"] == "input":
                found.append(
                    finding(
                        "nonfinite_input",
                        [row["name"]],
                        evidence,
                        "certain",
                        "The data have them before the first layer.",
                    )
                )
                return True
            if previous is not None and previous["rms"] is not None:
                evidence.append([f"size (rms) just before, at {previous['name']}", previous["rms"]])
            what = f" It is the function {row['function']}." if row["function"] != "" else ""
            found.append(
                finding(
                    "nonfinite_signal",
                    [row["name"]],
                    evidence,
                    "certain",
                    f"Going forward, this is the first output with NaN or infinite values; all before it are finite.{what}",
                )
            )
            return True
        if row["rms"] is not None:
            previous = row
    return False


def nonfinite(report, found):
    bad = []
    for row in report["parameters"]:
        if not is_finite(row["weight"]):
            bad.append(row)
    if len(bad) > 0:
        found.append(
            finding(
                "nonfinite_weights",
                names_of(bad),
                [["parameters that are not finite", len(bad)], ["of", len(report["parameters"])]],
                "certain",
                "The weights themselves are not finite before this pass: an earlier step made them so.",
            )
        )
        return
    finite_loss = report["loss"] is not None and is_finite(report["loss"])
    if not finite_loss and forward(report, found):
        return
    loss_is_bad = report["loss"] is not None and not is_finite(report["loss"])
    if loss_is_bad and len(report["layers"]) > 0:
        found.append(
            finding(
                "nonfinite_loss",
                ["the loss"],
                [["loss", report["loss"]]],
                "certain",
                "All recorded outputs are finite and the loss is not: it arises in the loss itself.",
            )
        )
        return
    bad = []
    good = 0
    for row in report["parameters"]:
        if row["gradient"] is not None and row["trainable"]:
            if is_finite(row["gradient"]):
                good = good + 1
            else:
                bad.append(row)
    entry = None
    for row in report["layers"]:
        if row["gradient_nonfinite"] is not None and row["gradient_nonfinite"] > 0:
            entry = row
    if len(bad) == 0 and entry is None:
        forward(report, found)
        return
    evidence = [["parameters with a gradient that is not finite", len(bad)], ["with a finite gradient", good]]
    if entry is not None:
        into = f", in what takes it: {entry['into']}" if entry["into"] != "" else ""
        if report["loss"] is not None:
            evidence.append(["loss, which is finite", report["loss"]])
        found.append(
            finding(
                "nonfinite_gradient",
                [entry["name"]],
                evidence,
                "certain",
                f"Going back from the loss, the gradient is finite until it reaches the output of this layer{into}.",
            )
        )
        return
    if good == 0:
        why = "Every gradient is NaN or infinite, so it comes from the loss or from above the last layer listed."
        found.append(finding("nonfinite_everywhere", ["the loss"], evidence, "likely", why))
        return
    top = bad[len(bad) - 1]
    found.append(
        finding(
            "nonfinite_gradient",
            [top["name"]],
            evidence,
            "likely",
            "Going back from the loss, this is the first parameter without a finite gradient; it enters here or just above.",
        )
    )


def unconnected(report, found):
    trained = []
    missing = []
    frozen = 0
    for row in report["parameters"]:
        if not row["trainable"]:
            frozen = frozen + 1
            continue
        trained.append(row)
        if row["gradient"] is None:
            missing.append(row)
    if len(trained) == 0 and frozen > 0:
        found.append(
            finding("all_frozen", [], [["frozen parameters", frozen]], "certain", "No parameter asks for a gradient.")
        )
        return
    if len(missing) == 0:
        missing_rows(report, found)
        return
    evidence = [["parameters without a gradient", len(missing)], ["of", len(trained)], ["frozen, not counted", frozen]]
    cut = operation(report, ["detach", "no_grad", "item", "numpy"])
    flat = operation(report, ["argmax"])
    reason = "The loss does not depend on them as far as automatic differentiation can see."
    if cut is not None:
        reason = f"{reason} A call of {cut['function']} was seen in {cut['name']}."
    elif flat is not None:
        reason = f"{reason} A call of argmax was seen in {flat['name']}; whole numbers pass no gradient."
    first_is_missing = trained[0]["gradient"] is None
    if first_is_missing or len(missing) * 2 > len(trained):
        found.append(finding("not_connected", names_of(missing), evidence, "certain", reason))
    else:
        found.append(
            finding(
                "unused",
                names_of(missing),
                evidence,
                "certain",
                f"{reason} The layers before and after them have a gradient: a part that this pass did not use, or a branch cut off.",
            )
        )


def first_count(name):
    """The first whole number in the name, or -1."""
    digits = ""
    for character in name + " ":
        if "0" <= character <= "9":
            digits = digits + character
        elif digits != "":
            value = 0
            for digit in digits[:6]:
                value = value * 10 + "0123456789".find(digit)
            return value
    return -1


def missing_rows(report, found):
    """Lists without a version left out what had no gradient: names that start late are a sign of it."""
    if report["form"] != "list":
        return
    rows = report["parameters"]
    first = rows[0]
    start = first_count(first["name"])
    follows = True
    numbers = []
    for row in rows[:1000]:
        number = first_count(row["name"])
        if number >= 0 and pattern(row["name"]) == pattern(first["name"]):
            numbers.append(number)
    for index in range(1, len(numbers)):
        follows = follows and 0 <= numbers[index] - numbers[index - 1] <= 1
    if start > 1 and len(numbers) > 2 and follows:
        found.append(
            finding(
                "rows_missing",
                [f"all before {first['name']}"],
                [["number in the first name", start], ["rows listed", len(rows)]],
                "likely",
                "The names count from here on without a gap, so the earlier ones exist; a list without a version leaves out whatever has no gradient.",
            )
        )
    elif len(rows) == 1:
        found.append(
            finding(
                "rows_missing",
                [f"all but {first['name']}"],
                [["rows listed", 1]],
                "possible",
                "A list without a version leaves out whatever has no gradient. If the network has more matrices, they are not connected to the loss.",
            )
        )


def zeros(report, found):
    rows = []
    for row in report["parameters"]:
        if row["trainable"] and row["gradient"] is not None:
            rows.append(row)
    zero = []
    empty = []
    for row in rows:
        if row["gradient"] == 0:
            zero.append(row)
        if row["weight"] == 0 and not ("bias" in row["name"].lower() or "beta" in row["name"].lower()):
            empty.append(row)
    if len(zero) == 0:
        return
    evidence = [["parameters with a gradient of exactly 0", len(zero)], ["of", len(rows)]]
    flat = operation(report, FLAT)
    single = operation(report, ["softmax_of_one"])
    if len(zero) == len(rows):
        if single is not None:
            why = f"{single['name']} takes the softmax over one number, which is 1 whatever that number is."
            found.append(finding("constant_output", [single["name"]], evidence, "certain", why))
        elif len(empty) > 0 and len(empty) * 2 > count_matrices(rows):
            found.append(
                finding(
                    "zero_weights",
                    names_of(empty),
                    evidence,
                    "certain",
                    "The weights are exactly 0, and so is all that passes through them.",
                )
            )
        elif flat is not None:
            why = f"The function {flat['function']} stands in the path, at {flat['name']}: its slope is 0 everywhere."
            found.append(finding("zero_slope", [flat["name"]], evidence, "certain", why))
        elif dead_at(report) is not None:
            off = dead_at(report)
            why = "All units of this layer are 0 for every input of the batch."
            found.append(finding("dead_layer", [off["name"]], evidence, "certain", why))
        elif report["loss"] == 0:
            found.append(
                finding(
                    "zero_loss",
                    [],
                    evidence,
                    "certain",
                    "The loss is exactly 0: nothing is left to learn from this batch.",
                )
            )
        elif saturated_output(report) is not None:
            end = saturated_output(report)
            evidence.append(["share of outputs at the ends", end["saturated"]])
            found.append(
                finding(
                    "saturated_output",
                    [end["name"]],
                    evidence,
                    "likely",
                    "The bounded output is at its ends, where its slope is 0.",
                )
            )
        else:
            why = "Every gradient is exactly 0, so the loss does not change with any weight: a saturated or constant output (a softmax over one number), a function of slope 0, or a second derivative of ReLU. These numbers do not say which."
            found.append(finding("zero_everywhere", ["the output or the loss"], evidence, "certain", why))
        return
    # by design: gates that start at 0 hold back their own branch and nothing else
    waiting = []
    for row in empty:
        if row["gradient"] > 0:
            waiting.append(row)
    lowest = rows[0]
    for row in rows:
        if row["gradient"] > 0:
            lowest = row
            break
    arrives_below = False
    for row in zero:
        if row["index"] > lowest["index"] and lowest["weight"] > 0:
            arrives_below = True
    adapters = 0
    for row in zero:
        if "lora_a" in row["name"].lower():
            adapters = adapters + 1
    if len(waiting) > 0 and (arrives_below or adapters > 0 or (len(waiting) > 1 and interleaved(zero, waiting))):
        evidence.append(["parameters that are 0 and have a gradient", len(waiting)])
        found.append(
            finding(
                "zero_by_design",
                names_of(waiting),
                evidence,
                "certain" if adapters > 0 else "likely",
                "A part that starts at 0 (LoRA’s B, the gate of adaLN-zero, ReZero’s factor, the last scale of a branch) lets no gradient into what lies behind it, while its own gradient is not 0: after one step it opens.",
            )
        )
        return
    prefix = []
    for row in rows:
        if row["gradient"] != 0:
            break
        prefix.append(row)
    if len(prefix) > 0:
        top = prefix[len(prefix) - 1]
        for row in empty:
            if row["index"] >= top["index"] or row["gradient"] == 0:
                found.append(
                    finding(
                        "zero_weights",
                        [row["name"]],
                        evidence,
                        "certain",
                        "All weights of this layer are 0, so no gradient passes below it.",
                    )
                )
                return
        off = dead_at(report)
        if off is not None:
            why = "All its units are 0 for every input of the batch, so their slope is 0 and nothing below it gets a gradient."
            found.append(finding("dead_layer", [off["name"]], evidence, "certain", why))
            return
        if flat is not None:
            why = f"The function {flat['function']} stands in the path, at {flat['name']}: its slope is 0 everywhere, and no gradient passes below it."
            found.append(finding("zero_slope", [flat["name"]], evidence, "certain", why))
            return
        if underflow(report, rows, prefix, found):
            return
        why = "From this layer down every gradient is exactly 0, and nothing above leads there: a layer whose units are all off, or a function of slope 0 (sign, round) in the path. These numbers do not say which."
        found.append(finding("zero_below", [top["name"]], evidence, "certain", why))
        return
    matrix = []
    for row in zero:
        if len(row["shape"]) != 1:
            matrix.append(row)
    if len(matrix) > 0:
        found.append(
            finding(
                "zero_branch",
                names_of(matrix),
                evidence,
                "possible",
                "The gradient is 0 here and not below: a branch that this batch does not use, units that are all off, or attention over one token or fully saturated.",
            )
        )


def count_matrices(rows):
    count = 0
    for row in rows:
        if len(row["shape"]) != 1:
            count = count + 1
    return count


def interleaved(zero, waiting):
    """Each group of zeros ends at a waiting parameter: no long stretch of zeros below one of them."""
    before = 0
    for row in zero:
        if row["index"] < waiting[0]["index"]:
            before = before + 1
    return len(zero) <= len(waiting) * 2 and before <= 2


def dead_at(report):
    """The first layer, in the order of calls, whose units are all 0 for all inputs: those above it may be off for lack of a signal."""
    for row in report["layers"]:
        if row["function"] in CUTTING and row["dead"] is not None and row["dead"] == 1:
            return row
    return None


def underflow(report, rows, prefix, found):
    """The gradient falls evenly, then is exactly 0: it has left the number format."""
    values = []
    for row in rows[len(prefix) :]:
        if len(row["shape"]) != 1 and usable(row["gradient"]):
            values.append(math.log10(row["gradient"]))
    format_name = report["autocast"] if report["autocast"] != "" else prefix[0]["dtype"]
    inner = values[:-1]
    if len(inner) < 4:
        return False
    fitted = line(inner)
    if fitted["slope"] < 0.1 or fitted["fit"] < 0.6:
        return False
    evidence = [
        ["parameters with a gradient of exactly 0", len(prefix)],
        ["factor per layer above them", power(-fitted["slope"])],
        ["smallest norm above them", power(values[0])],
    ]
    certainty = "likely"
    if format_name in SMALLEST:
        evidence.append([f"smallest number of {format_name}", SMALLEST[format_name]])
        # a norm is the root of a sum over thousands of entries; half of the way to the smallest number is near
        if values[0] > math.log10(SMALLEST[format_name]) + 4:
            return False
    found.append(
        finding(
            "underflow",
            names_of(prefix),
            evidence,
            certainty,
            "The gradient falls by an even factor from layer to layer, and then it is exactly 0: too small for the number format.",
        )
    )
    return True


def saturated_output(report):
    for index, row in enumerate(report["layers"]):
        if row["function"] in BOUNDED and is_output(report, index):
            if row["saturated"] is not None and row["saturated"] > 0.5:
                return row
    return None


def signal(report, found):
    """What happens on the way up: size, whether it is still about the input, units that are off or at their ends."""
    twice = operation(report, ["softmax"])
    if twice is not None and twice["into"] == "cross_entropy":
        found.append(
            finding(
                "softmax_twice",
                [twice["name"]],
                [],
                "certain",
                "The output of a softmax goes into a cross-entropy that takes the softmax again.",
            )
        )
    rows = []
    for row in report["layers"]:
        if row["kind"] in WEIGHTED and usable(row["rms"]):
            rows.append(row)
    if len(rows) > 3:
        sizes = []
        for row in rows[:-1]:
            sizes.append(math.log10(row["rms"]))
        grown = sizes[len(sizes) - 1] - sizes[0]
        fit = line(sizes)
        steady = fit["fit"] > 0.6
        evidence = [
            [f"size (rms) at {rows[0]['name']}", rows[0]["rms"]],
            [f"at {rows[len(rows) - 2]['name']}", rows[len(rows) - 2]["rms"]],
            ["factor per layer, going up", power(fit["slope"])],
        ]
        if steady and grown < -1.5:
            why = "Each layer makes the signal smaller, so that little of the input is left at the top."
            found.append(finding("signal_dies", names_of(rows[1:-1]), evidence, "certain", why))
        elif steady and grown > 2:
            why = "Each layer makes the signal larger; with more depth or a larger step it overflows."
            found.append(finding("signal_grows", names_of(rows[1:-1]), evidence, "certain", why))
    first = None
    for row in report["layers"]:
        if row["kind"] in WEIGHTED and row["deviation"] is not None and is_finite(row["deviation"]):
            if first is None:
                first = row
            elif row["deviation"] < 0.001 and first["deviation"] > 30 * row["deviation"]:
                found.append(
                    finding(
                        "input_lost",
                        [row["name"]],
                        [
                            [f"difference between inputs, at {first['name']}", first["deviation"]],
                            ["here", row["deviation"]],
                        ],
                        "certain",
                        "From this layer on all inputs of the batch give nearly the same values: relative to its size the signal hardly depends on the input.",
                    )
                )
                break
    off = []
    share = 0.0
    ends = []
    most = 0.0
    for index, row in enumerate(report["layers"]):
        many = row["inputs"] is not None and row["inputs"] >= 16
        if row["function"] in CUTTING and many and row["dead"] is not None and row["dead"] >= 0.7:
            off.append(row)
            share = max(share, row["dead"])
        if row["function"] in BOUNDED and row["function"] not in CUTTING and not is_output(report, index):
            if row["saturated"] is not None and row["saturated"] >= 0.5:
                ends.append(row)
                most = max(most, row["saturated"])
    if len(off) > 0:
        found.append(
            finding(
                "dead_units",
                names_of(off),
                [["largest share of units that are 0 for every input", share], ["layers", len(off)]],
                "certain",
                "Most units of these layers are off for every input of the batch and learn nothing.",
            )
        )
    if len(ends) > 0:
        found.append(
            finding(
                "saturated",
                names_of(ends),
                [["largest share of values at the ends of the activation", most], ["layers", len(ends)]],
                "certain",
                "Most values lie where the activation is flat, so its slope is near 0.",
            )
        )
    end = saturated_output(report)
    untrained_loss = report["loss"] is not None and report["loss"] > 0.7
    if end is not None and (end["function"] != "sigmoid" or untrained_loss):
        found.append(
            finding(
                "saturated_output",
                [end["name"]],
                [["share of outputs at the ends", end["saturated"]]],
                "likely",
                "Most outputs lie at the ends of the bounded function, where its slope is near 0: they can hardly be changed.",
            )
        )
    top = None
    for row in report["layers"]:
        if row["kind"] in WEIGHTED:
            top = row
    at_start = report["step"] is not None and report["step"] == 0
    if top is not None and report["classes"] is not None and report["classes"] > 1 and usable(top["rms"]) and at_start:
        if top["rms"] > 4:
            evidence = [
                ["size (rms) of the outputs before the softmax", top["rms"]],
                ["ln C, the loss of a guess", math.log(report["classes"])],
            ]
            if report["loss"] is not None:
                evidence.append(["loss", report["loss"]])
            found.append(
                finding(
                    "output_scale",
                    [top["name"]],
                    evidence,
                    "certain",
                    "Before the first step a classifier should be unsure, with outputs smaller than 1 and a loss near ln C.",
                )
            )


def over_time(report, found):
    """∂E/∂h_t of a recurrent layer, t first to last."""
    for row in report["time"]:
        norms = row["gradient"]
        if len(norms) < ENOUGH:
            continue
        values = []
        gone = 0
        for norm in norms:
            if norm is None or norm == 0:
                gone = gone + 1
            elif is_finite(norm) and norm > 0:
                values.append(math.log10(norm))
        if len(values) < 3:
            continue
        fit = line(values)
        total = power(-fit["slope"] * (len(norms) - 1))
        factor = power(-fit["slope"])
        evidence = [
            ["factor per time step, going back", factor],
            ["in all", total],
            ["time steps", len(norms)],
            ["steps with a gradient of exactly 0", gone],
        ]
        sure = "certain" if fit["fit"] > 0.8 else "likely"
        if (total < 0.001 and fit["fit"] > 0.5) or (gone * 4 > len(norms) and fit["slope"] > 0):
            why = "The gradient shrinks from step to step on its way back in time: what came long ago is not learned."
            found.append(finding("vanishing_in_time", [row["name"]], evidence, sure, why))
        elif total > 1000 and fit["fit"] > 0.5:
            why = "The gradient grows from step to step on its way back in time."
            found.append(finding("exploding_in_time", [row["name"]], evidence, sure, why))


def slope(report, found):
    """How ∂E/∂h runs over the layers; where it was not recorded, |∂W|/|W|, which mixes in widths and sharing."""
    group = hidden(report)
    rows = []
    values = []
    if len(group["rows"]) == 0 and len(report["time"]) > 0:
        report["slope_seen"] = []
        return
    if len(group["rows"]) > 0:
        measured_at = "outputs"
        for row in group["rows"]:
            if usable(row["gradient"]):
                rows.append(row)
                values.append(math.log10(row["gradient"]))
    else:
        measured_at = "weights"
        if recurrent_rows(report):
            found.append(
                finding(
                    "recurrent_rows",
                    [],
                    [["rows", len(report["parameters"])]],
                    "certain",
                    "These are the weights of a recurrent network. Its depth is time, and one row holds all time steps; rows are not layers that follow each other.",
                )
            )
            return
        listed_rows = matrices(report)
        if len(listed_rows) > 4:
            listed_rows = listed_rows[1:-1]
        for row in listed_rows:
            if usable(row["gradient"]) and usable(row["weight"]):
                rows.append(row)
                values.append(math.log10(row["gradient"]) - math.log10(row["weight"]))
        # a step that ends the list is where another kind of layer begins, which these rows do not tell
        jump = step(values)
        if abs(jump["size"]) < 2 and jump["at"] >= max(ENOUGH, len(values) // 2):
            rows = rows[: jump["at"]]
            values = values[: jump["at"]]
    names = names_of(rows)
    look = shape_of(values)
    source = "gradient at the layers’ outputs" if measured_at == "outputs" else "gradient over weight"
    if look["look"] == "few":
        few(report, found, rows, values, measured_at)
        return
    extra = 0 if measured_at == "outputs" else 2 if len(matrices(report)) > 4 else 0
    total = power(-look["slope"] * (len(values) - 1 + extra))
    evidence = [
        ["factor per layer, going back", look["factor"]],
        ["in all, from the last layer to the first", total],
        ["layers compared", len(values)],
        ["share of the variation that a line explains", look["fit"]],
        [f"read from: {source}", None],
    ]
    trusted = "certain" if measured_at == "outputs" and look["fit"] > 0.9 else "likely"
    caution = (
        "" if measured_at == "outputs" else " It is read from weights, which mixes in widths, sharing and cancellation."
    )
    if look["look"] == "outlier":
        found.append(
            finding(
                "outlier",
                [names[look["at"]]],
                [["against its neighbours", power(look["size"])], ["layers compared", len(values)]],
                trusted if measured_at == "outputs" else "likely",
                f"One layer lies far from its neighbours on both sides, which agree with each other.{caution}",
            )
        )
        return
    if look["look"] == "valley":
        found.append(
            finding(
                "bypass",
                [names[look["at"]]],
                [
                    ["lowest, against the highest", power(values[look["at"]] - max(values))],
                    ["layers compared", len(values)],
                ],
                "likely",
                f"The gradient is large at both ends and small in the middle: something bypasses the middle, as the skips of a U-Net do, or the rows are not in the order of the calls.{caution}",
            )
        )
        return
    if look["look"] == "step":
        found.append(
            finding(
                "step",
                [names[look["at"] - 1], names[look["at"]]],
                [["below the step, against above it", power(-look["size"])], ["layers compared", len(values)]],
                "likely",
                f"The gradient is level above and level below, and changes at once between these two.{caution}",
            )
        )
        return
    limit = 0.1 if measured_at == "outputs" else 0.05
    # batch norm and ReLU grow by 1.2 a layer: a factor of 20 is what sixteen of them have, and train with
    most = 100 if measured_at != "outputs" else 30 if has_norm(report) else 10
    add_theory(report, group["rows"], evidence)
    if look["look"] == "line" and total <= limit and look["high"] < 0.3:
        why = f"Layer by layer the gradient shrinks by an even factor on its way down; what counts is what is left in all.{caution}"
        found.append(finding("vanishing", names, evidence, trusted, why))
    elif look["look"] == "line" and total >= most and look["low"] > most / 4:
        why = f"Layer by layer the gradient grows on its way down; what counts is the factor in all.{caution}"
        found.append(finding("exploding", names, evidence, trusted, why))
    elif look["look"] == "unclear":
        found.append(
            finding(
                "unclear",
                [],
                evidence,
                "certain",
                f"The points lie on no line, so a factor per layer would mean nothing.{caution}",
            )
        )
    else:
        if measured_at == "outputs":
            report["slope_seen"] = evidence
        else:
            found.append(
                finding(
                    "level",
                    [],
                    evidence,
                    "certain",
                    f"No slope that would matter from one layer to the next.{caution} A level line is seen as well where signal and gradient vanish together, where the output is saturated or mis-scaled, and in health.",
                )
            )


def has_norm(report):
    for row in report["layers"]:
        if row["kind"] == "norm":
            return True
    return False


def recurrent_rows(report):
    for row in report["parameters"]:
        name = row["name"].lower()
        if "weight_hh" in name or "recurrent_kernel" in name:
            return True
    return False


def few(report, found, rows, values, measured_at):
    """Too few layers for a rate. Where ∂E/∂h was recorded, what is left of it in all is a fact all the same."""
    if measured_at == "outputs" and len(values) > 0:
        falls = len(values) > 2
        grows = len(values) > 2
        for index in range(1, len(values)):
            falls = falls and values[index] > values[index - 1]
            grows = grows and values[index] < values[index - 1]
        total = power(values[0] - values[len(values) - 1])
        evidence = [["in all, from the last layer to the first", total], ["layers compared", len(values)]]
        add_theory(report, rows, evidence)
        if falls and total < 0.01:
            why = "Few layers, but ∂E/∂h was recorded and falls at each of them."
            found.append(finding("vanishing", names_of(rows), evidence, "likely", why))
            return
        if grows and total > 100:
            why = "Few layers, but ∂E/∂h was recorded and grows at each of them."
            found.append(finding("exploding", names_of(rows), evidence, "likely", why))
            return
        if 0.01 <= total <= 100:
            report["slope_seen"] = evidence
            return
    found.append(
        finding(
            "too_few",
            names_of(rows),
            [["layers compared", len(values)], ["needed for a rate", ENOUGH]],
            "certain",
            "A factor per layer needs at least six layers of the same kind, the first and the last apart.",
        )
    )


def framework_of(report):
    """Whose names and shapes these are, and in whose words code is given: "PyTorch", also where it is not said, "Keras" or "JAX"."""
    name = report["framework"].lower()
    if "keras" in name:  # before JAX: "Keras 3 on jax"
        return "Keras"
    return "JAX" if "jax" in name or "flax" in name else "PyTorch"


def owner_of(name):
    """The name without its last part: the layer "body/dense" of the parameter "body/dense/kernel"."""
    end = 0
    at = 0
    for character in name:
        if character == "." or character == "/":
            end = at
        at = at + 1
    return name[:end]


def matrices_by_layer(report):
    """{"of " + a layer's name: its one matrix}; a layer with several has none here.

    A layer has the name of its parameters without their last part; in JAX a matrix that has no layer round it is one itself.
    """
    found = {}
    for row in report["parameters"]:
        if len(row["shape"]) < 2 or not usable(row["weight"]):
            continue
        found[f"of {row['name']}"] = row
        key = f"of {owner_of(row['name'])}"
        found[key] = None if key in found else row
    return found


def outputs_of(matrix, layer, framework):
    """How many units the matrix leads to: PyTorch's has them first, the kernels of Keras and JAX last.

    Transposed convolutions and matrices of one's own may have them beside that place: the layer's output tells.
    """
    shape = matrix["shape"]
    usual = shape[0] if framework == "PyTorch" else shape[len(shape) - 1]
    other = shape[1] if framework == "PyTorch" else shape[len(shape) - 2]
    return other if other in layer["shape"] and usual not in layer["shape"] else usual


def add_theory(report, rows, evidence):
    """What the weights and the recorded slopes of the activations predict: ½ log(|W|²/n_out · mean φ′²), averaged.

    `report["predicted"]` then holds what they predict of ∂E/∂h at each layer, as log₁₀, from the last of the rows down.
    For independent weights E|Wᵀδ|² = |W|²|δ|²/n_out, and a unit of the layer below passes on φ′ of it.
    """
    if len(rows) < 3 or len(rows) > 2000:
        return
    framework = framework_of(report)
    matrix_of = matrices_by_layer(report)
    slope_of = {}
    before = {}
    after = ""
    for row in report["layers"]:
        if row["kind"] in WEIGHTED:
            before[f"of {row['name']}"] = after
            after = row["name"]
        elif row["kind"] == "norm" or row["kind"] == "block" or row["kind"] == "attention":
            return  # a norm, a skip or attention: another theory
        elif row["kind"] == "activation" and usable(row["slope"]):
            slope_of[f"of {after}"] = row["slope"]
    count = 0
    weights = 0.0
    slopes = 0.0
    last = rows[len(rows) - 1]
    level = math.log10(last["gradient"])
    predicted = {}
    predicted[f"of {last['name']}"] = level
    for down in range(1, len(rows)):
        index = len(rows) - down
        row = rows[index]
        key = f"of {row['name']}"
        below = f"of {rows[index - 1]['name']}"
        if before[key] == rows[index - 1]["name"] and key in matrix_of and below in slope_of:
            matrix = matrix_of[key]
            if matrix is not None:
                units = max(outputs_of(matrix, row, framework), 1.0)
                weights = weights + math.log10(matrix["weight"]) - math.log10(units) / 2
                slopes = slopes + math.log10(slope_of[below]) / 2
                count = count + 1
                if count == down:  # an unbroken path from the last layer down
                    predicted[below] = level + weights + slopes
    if count < 2 or count < len(rows) - 2:
        return
    report["predicted"] = predicted
    evidence.append(["predicted factor per layer", power((weights + slopes) / count)])
    evidence.append(["of it, the weights", power(weights / count)])
    evidence.append(["of it, the activation’s slope", power(slopes / count)])


# The answer


def find(report):
    found = []
    nonfinite(report, found)
    if len(found) > 0:
        return found
    unconnected(report, found)
    zeros(report, found)
    signal(report, found)
    over_time(report, found)
    slope(report, found)
    return ordered(found)


def ordered(found):
    """Sick before odd by design before what cannot be told; a lost input comes after the slope that explains it.

    Where the gradient vanishes, differences between inputs die by the same factors on the way up: one illness, and the slope
    names it. So do a signal that dies before gradients underflow, and outputs that are large because all grows.
    """
    names = []
    for item in found:
        names.append(item["kind"])
    result = []
    for wanted in ["sick", "note", "unknown"]:
        late = []
        if wanted == "unknown" and len(result) > 0 and KINDS[result[0]["kind"]]["verdict"] == "sick":
            break
        for item in found:
            if KINDS[item["kind"]]["verdict"] == wanted:
                kind = item["kind"]
                if kind == "input_lost" and "vanishing" in names:
                    late.append(item)
                elif kind == "zero_below" and "signal_dies" in names:
                    late.append(item)
                elif kind == "output_scale" and ("exploding_in_time" in names or "exploding" in names):
                    late.append(item)
                else:
                    result.append(item)
        for item in late:
            result.append(item)
    return result


def decide(value):
    """The diagnosis of a parsed report."""
    report = read(value)
    if report["error"] != "":
        return unreadable(report["error"])
    report["slope_seen"] = None
    report["predicted"] = {}
    found = find(report)
    recorded = 0
    for row in report["layers"]:
        if row["gradient"] is not None and row["rms"] is not None:
            recorded = recorded + 1
    if len(found) == 0:
        if recorded > 0:
            evidence = [["layers recorded", recorded]]
            if report["slope_seen"] is not None:
                for item in report["slope_seen"]:
                    evidence.append(item)
            found.append(
                finding(
                    "nothing_found",
                    [],
                    evidence,
                    "likely",
                    "Signal and gradient were recorded at each layer, and both arrive.",
                )
            )
        else:
            found.append(finding("too_few", [], [["layers recorded", recorded]], "certain", "Too little was recorded."))
    framework = framework_of(report)
    answer = complete(found[0], framework)
    answer["also"] = []
    for item in found[1:]:
        answer["also"].append(complete(item, framework))
    answer["form"] = report["form"]
    answer["error"] = ""
    answer["rows"] = drawn(report)
    answer["time"] = report["time"]
    answer["remarks"] = remarks(report)
    return answer


def unreadable(sentence):
    answer = complete(finding("unreadable", [], [], "certain", sentence), "")
    answer["error"] = sentence
    answer["also"] = []
    answer["rows"] = []
    answer["time"] = []
    answer["remarks"] = []
    answer["form"] = ""
    return answer


def complete(item, framework):
    """The finding with its words, and code for the framework."""
    kind = KINDS[item["kind"]]
    evidence = []
    for pair in item["evidence"]:
        number = pair[1]
        evidence.append({"label": pair[0], "value": "" if number is None else figures(number)})
    return {
        "kind": item["kind"],
        "verdict": kind["verdict"],
        "title": kind["title"],
        "layers": item["layers"],
        "where": listed(item["layers"]),
        "evidence": evidence,
        "certainty": item["certainty"],
        "why": item["why"],
        "change": kind["change"],
        "code": "" if kind["code"] == "" else CODE[kind["code"]][framework],
        "next": kind["next"],
        "page": kind["page"],
    }


def remarks(report):
    """What should be known about the reading itself."""
    result = []
    if report["sorted"]:
        result.append("The names stood in the order of the alphabet, with 10 before 2; they were sorted as one counts.")
    if report["form"] == "list":
        result.append(
            "This is a list of weights and gradients. It does not show the signal, or what is saturated or dead."
        )
        tiny = 0
        rows = 0
        for row in report["parameters"]:
            if usable(row["gradient"]):
                rows = rows + 1
                if row["gradient"] < 1e-6:
                    tiny = tiny + 1
        if rows > 1 and tiny == rows:
            result.append(
                "All gradients are below 10⁻⁶. If the loss is not scaled down, this is how a signal that dies on its way up looks: do the outputs still depend on the input?"
            )
    if report["scale"] is not None and report["scale"] != 1:
        result.append(
            f"The loss was multiplied by {figures(report['scale'])} by a gradient scaler; slopes do not change by it."
        )
    if report["mode"] == "eval":
        result.append("The network was in eval mode: dropout and batch norm act otherwise than in training.")
    for note in report["notes"]:
        result.append(note)
    return result


def drawn(report):
    """What the picture shows: a row per layer, with log₁₀ of gradient and signal where they are finite and above 0, and of the prediction."""
    result = []
    chosen = []
    for row in report["layers"]:
        if (row["kind"] in WEIGHTED or row["kind"] == "block") and row["gradient"] is not None:
            chosen.append(row)
    if len(chosen) > 1:
        for row in some(chosen):
            level = report["predicted"].get(f"of {row['name']}")
            if level is not None and not is_finite(level):
                level = None
            foretold = "" if level is None else f", predicted gradient {figures(power(level))}"
            result.append(
                {
                    "name": row["name"],
                    "kind": row["kind"],
                    "gradient": decades(row["gradient"]),
                    "signal": decades(row["rms"]),
                    "predicted": level,
                    "text": f"gradient {words(row['gradient'])}, signal {words(row['rms'])}{foretold}",
                }
            )
        return result
    chosen = []
    for row in report["parameters"]:
        if len(row["shape"]) != 1:
            chosen.append(row)
    for row in some(chosen):
        ratio = None
        if usable(row["gradient"]) and usable(row["weight"]):
            ratio = math.log10(row["gradient"]) - math.log10(row["weight"])
        result.append(
            {
                "name": row["name"],
                "kind": "weight",
                "gradient": ratio,
                "signal": None,
                "predicted": None,
                "text": f"gradient {words(row['gradient'])}, weight {words(row['weight'])}",
            }
        )
    return result


def some(rows):
    """At most 600 of them, evenly spread: more points than pixels tell nothing."""
    stride = 1
    while len(rows) > 600 * stride:
        stride = stride + 1
    if stride == 1:
        return rows
    kept = []
    for index in range(0, len(rows), stride):
        kept.append(rows[index])
    return kept


def decades(value):
    return math.log10(value) if usable(value) else None


def words(value):
    return "none" if value is None else figures(value)
