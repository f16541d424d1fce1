"""How OpenMP's threads wait: set before torch is loaded, the user's own setting first, and no result changes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.functional as F

from ptarmigan.core.openmp import SPINS, ShortWaits, bound_spinning


@pytest.mark.parametrize(
    ("variables", "loaded", "spins"),
    [
        ({}, False, SPINS),
        ({}, True, None),
        ({"GOMP_SPINCOUNT": "7"}, False, "7"),
        ({"OMP_WAIT_POLICY": "active"}, False, None),
        ({"OMP_NUM_THREADS": "1"}, False, SPINS),
    ],
)
def test_spinning_is_bounded_unless_the_user_says_how_threads_wait(
    variables: dict[str, str], loaded: bool, spins: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if not loaded:
        monkeypatch.delitem(sys.modules, "torch")
    bound_spinning()
    assert os.environ.get("GOMP_SPINCOUNT") == spins


def test_importing_the_package_bounds_spinning_and_loads_no_torch() -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import ptarmigan, os, sys; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [SPINS, "False"]


def test_short_waits_are_switched_on_and_off_and_change_no_bit() -> None:
    torch.set_num_threads(2)
    image = torch.randn(8, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(8, 8, 3, 3, generator=torch.Generator().manual_seed(1))
    before, waits = threading.active_count(), ShortWaits()
    expected = F.conv2d(image, weight)
    for on in (True, True, False, False, True):
        waits.switch(on)
        assert threading.active_count() == before + on
        assert torch.equal(F.conv2d(image, weight), expected)
    waits.switch(False)
    assert threading.active_count() == before
