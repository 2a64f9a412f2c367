"""A sweep on a real SLURM of one node, where its programs are installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_sweep_on_a_real_slurm() -> None:
    done = subprocess.run([Path(__file__).with_name("slurm.sh")], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
