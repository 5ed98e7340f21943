"""What tests of several files ask for."""

import os

import pytest

from vgp_kernels.targets import gpu as cuda


@pytest.fixture(scope="session")
def toolkit():
    """numba-cuda with the parts of the CUDA toolkit, which is in the lock for Linux only."""
    if not cuda.INSTALLED:
        tell = pytest.fail if os.environ.get("VGP_REQUIRE_CUDA_TOOLKIT") == "1" else pytest.skip
        tell("needs numba-cuda: pip install 'numba-cuda[cu13]<0.31' 'numpy<2.5' (Linux, Windows)")


@pytest.fixture(scope="session")
def playwright():
    """Of which there may be only one in a process."""
    from playwright.sync_api import sync_playwright  # not where only frameworks are tested

    with sync_playwright() as started:
        yield started
