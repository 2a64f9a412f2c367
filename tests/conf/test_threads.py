"""Threads that wait sleep: what GNU OpenMP was told when a command loads torch."""

import os
import subprocess
import sys

import pytest
from helpers.printed_commands import ROOT

# `python -c` with each command's function, then torch as the first trial would load it
LOADS = "; import torch; torch.ones(2).sum()"
COMMANDS = {
    "sweep": "from sweeps.command import main; from sweeps.threshold import SWEEP; "
    "main(SWEEP, ['--steps'])",
    "all": "from sweeps.engine.run_all import main; main(['--steps'])",
    "trial": "from lightning_modules.training.run import main; main(['missing.yaml'])",
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="OpenMP of another kind")
@pytest.mark.parametrize("policy", [None, "active"])
@pytest.mark.parametrize("command", COMMANDS)
def test_threads_wait_passively_unless_the_user_says_otherwise(command, policy):
    environment = {**os.environ, "OMP_DISPLAY_ENV": "true"}
    environment.pop("OMP_WAIT_POLICY", None)
    if policy:
        environment["OMP_WAIT_POLICY"] = policy
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS[command] + LOADS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"OMP_WAIT_POLICY = '{(policy or 'passive').upper()}'" in done.stderr
