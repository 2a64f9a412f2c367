"""Trials as Ray tasks, on a cluster of two nodes that are processes of this machine."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.driving import alive, behave, ran, until
from helpers.sweep_states import SWEEP, everything, finished, states

from conf import load as conf
from sweeps.command import main
from sweeps.engine.errors import LaunchError
from sweeps.engine.executors.base import make_executor
from sweeps.engine.executors.ray import _pack, _unpack

PROGRAM = (str(Path(__file__).parents[1] / "trial_program.py"),)
WORDS = ["executor=ray", "seeds=1"]
# Ray's nodes start in seconds or, on a busy machine, not in time
ASKED = pytest.mark.skipif("TEST_RAY" not in os.environ, reason="runs where TEST_RAY is set")


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LaunchError, match=r"needs Ray; .*\[ray\]"):
        make_executor(conf.load(["executor=ray"]))


def test_a_folder_travels_whole(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "samples").mkdir(parents=True)
    (source / "samples" / "0.png").write_bytes(b"image")
    (source / "result.json").write_text("{}")
    _unpack(_pack(source), target)
    assert (target / "result.json").read_text() == "{}"
    assert (target / "samples" / "0.png").read_bytes() == b"image"
    _unpack(b"", tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head with one core; nodes are added by the tests."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # Else no GPUs can be pretended
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def run(output: Path, cluster: Any, *words: str) -> int:
    return main(
        SWEEP, [f"output={output}", f"ray.address={cluster.address}", *WORDS, *words], None, PROGRAM
    )


@ASKED
@pytest.mark.slow
@pytest.mark.usefixtures("reports")
def test_a_node_that_is_lost_has_its_trials_given_out_again(
    output: Path, mlflow: Any, cluster: Any, capsys: Any
) -> None:
    from ray._private import worker

    nodes = [cluster.add_node(num_cpus=2, num_gpus=2) for _ in range(2)]
    (output / "hold").touch()

    def lose() -> None:
        until(lambda: len(ran(output)) == 4)
        # Ray refuses to remove the node that the driver is connected to, and disconnects it
        connected = worker.global_worker.node._raylet_socket_name
        node = next(node for node in nodes if node._raylet_socket_name != connected)
        cluster.remove_node(node, allow_graceful=False)
        (output / "hold").unlink()

    thread = threading.Thread(target=lose)
    thread.start()
    assert run(output, cluster, "retries=0") == 0
    thread.join()
    assert finished(mlflow) == everything(1) and states(output)["COMPLETE"] == 4
    tries = Counter(trial for trial, *_ in ran(output))
    assert len(tries) == 4 and {1, 2} >= {*tries.values()} > {1}, tries
    assert {visible for _, _, visible, _ in ran(output)} == {"0", "1"}
    printed = capsys.readouterr().out
    assert "on ray: training" in printed and "was lost" in printed and "failed" not in printed
    assert not alive(output)


@ASKED
@pytest.mark.slow
@pytest.mark.usefixtures("reports")
def test_a_trial_that_fails_and_one_too_large(
    output: Path, mlflow: Any, cluster: Any, capsys: Any
) -> None:
    behave(output, **{"0.4-0": "lost disk"})
    assert run(output, cluster, "trainer.accelerator=cpu", "ray.shared=false") == 0
    assert finished(mlflow) == everything(1) and states(output) == {"COMPLETE": 4, "FAIL": 1}
    assert "failed (try 1 of 2): OSError: [Errno 5]" in capsys.readouterr().out
    assert run(output, cluster, "seeds=2", f"ray.cpus={os.cpu_count()}00") == 2
    assert "a trial needs" in capsys.readouterr().err
