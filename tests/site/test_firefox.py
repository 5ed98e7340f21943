"""The instruments in Firefox: what tests/test_instruments.py asks of Chromium, its bodies run again.

Playwright drives the system's Firefox by WebDriver BiDi, which needs neither a patched browser nor geckodriver.
"""

import pytest
from test_instruments import (  # noqa: F401  # tests and fixtures: pytest finds them by their names
    data,
    demo,
    page,
    program,
    test_biases_and_skips_exclude_each_other,
    test_chain_multiplies_pythons_weights_and_slopes,
    test_dragging_the_point_moves_the_sliders,
    test_forget_gate_forgets_as_the_sigmoid_says,
    test_instruments_measure_what_propagate_measures,
    test_instruments_start_after_instant_navigation,
    test_instruments_work_from_a_file,
    test_number_formats_are_stepped_as_in_python,
    test_phase_diagram_says_what_mean_field_says,
    test_width_shows_the_median_of_propagate,
)


@pytest.fixture(scope="module")
def browser(request):
    path = program("Firefox", "firefox-esr", "firefox")
    firefox = request.getfixturevalue("playwright").firefox.launch(channel="moz-firefox", executable_path=path)
    yield firefox
    firefox.close()
