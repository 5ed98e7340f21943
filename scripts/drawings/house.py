"""The folders of the package, and what they import from: drawn from the imports, so that it cannot be out of date."""

import house
from drawing import SIGNAL, arrow, box, sheet
from style import MUTED

READS = ()
SEES = house.files()


def places(phone):
    """{place: ((x, y), width)}, in inches."""
    width, found = (3.7 if phone else 7.0), {}
    for row, names in enumerate(reversed(house.ROWS)):
        room = (width - 0.1) / len(names)
        for column, name in enumerate(names):
            found[name] = (0.05 + room * (column + 0.5), 0.4 + 0.95 * row), min(room - 0.08, 2.2)
    return found


def draw(phone):
    figure, axes = sheet(phone, 4.7)
    found = places(phone)
    short = (
        {"transformer": "trans-\nformer", "recurrent": "recur-\nrent", "classifier": "class-\nifier"} if phone else {}
    )
    for name, ((x, y), width) in found.items():
        box(
            axes,
            x,
            y,
            short.get(name, name).replace("what describes a", "what describes\na") if phone else name,
            width,
            0.44,
        )
    for above, below in sorted(house.arrows()):
        (x, y), (to_x, to_y) = found[above][0], found[below][0]
        near = house.ROWS_OF[above] + 1 == house.ROWS_OF[below]
        arrow(axes, (x, y - 0.23), (to_x, to_y + 0.24), SIGNAL if near else MUTED, 1.2 if near else 0.6)
    return figure


def alt():
    rows = "; ".join(f"{i}. {', '.join(names)}" for i, names in enumerate(house.ROWS, 1))
    return f"The folders of the package in {len(house.ROWS)} rows, from above: {rows}. All arrows, from what imports, go down."


def caption():
    return "Each arrow is an import; to the row below they are coloured. None goes up, and none to the side."
