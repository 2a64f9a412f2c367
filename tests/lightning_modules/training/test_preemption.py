"""A signal ends a training after the step that it is in: it goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from conf import load as conf
from conf.schema import Run
from lightning_modules.methods.maskattn import MaskAttn
from lightning_modules.training import preemption
from lightning_modules.training import run as train
from lightning_modules.training.preemption import Preempted, noticing_signals, raising_preempted

ROOT = Path(__file__).parents[3]
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# A run of which process 1 gets a signal in the batch that the file ``signal`` numbers
RANKS = """
import os, signal, sys, warnings
from pathlib import Path
sys.path[:0] = [{root!r}]
warnings.filterwarnings("ignore")
from lightning_modules.methods.maskattn import MaskAttn
from lightning_modules.training import run
folder, step, seen = Path(sys.argv[1]).parent, MaskAttn.training_step, []

def signalled(method, batch, index):
    seen.append(index)
    wanted = folder / "signal"
    if os.environ["RANK"] == "1" and wanted.exists() and len(seen) == int(wanted.read_text()):
        wanted.unlink()
        os.kill(os.getpid(), signal.SIGUSR1)
    return step(method, batch, index)

MaskAttn.training_step = signalled
sys.exit(run.main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def same_handlers() -> Any:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


def signalled(monkeypatch: pytest.MonkeyPatch, at: int, number: int) -> list[int]:
    """The batches seen, in the ``at``-th of which this process gets a signal."""
    seen: list[int] = []
    step = MaskAttn.training_step

    def training_step(method: MaskAttn, batch: Any, index: int) -> Any:
        seen.append(index)
        if len(seen) == at:
            os.kill(os.getpid(), number)
        return step(method, batch, index)

    monkeypatch.setattr(MaskAttn, "training_step", training_step)
    return seen


def adapters(output: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(output.glob("adapters/*/adapter.safetensors"))]


def config_of(base: Run, output: Path, **settings: Any) -> Run:
    always = {"seed": 51, "evaluation.prompts": 0, "output": str(output), "trainer.steps": 4}
    return conf.replace(base, always | settings)


@pytest.mark.parametrize(
    ("number", "settings", "at"),
    [
        # In the first of two batches of a step
        (signal.SIGTERM, {"trainer.accumulate": 2}, 5),
        # At a step that has a checkpoint anyway, and with worker processes
        pytest.param(
            signal.SIGUSR1,
            {"data.workers": 2, "trainer.checkpoint_every": 3, "trainer.steps": 6},
            3,
            marks=pytest.mark.slow,
        ),
        pytest.param(signal.SIGTERM, {"data.workers": 2}, 2, marks=pytest.mark.slow),
    ],
)
def test_a_training_goes_on_bit_for_bit_after_a_signal(
    base: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    settings: dict[str, Any],
    at: int,
) -> None:
    whole = config_of(base, tmp_path / "whole", **settings)
    torn = config_of(base, tmp_path / "torn", **settings)
    train.run(whole, tmp_path / "a")
    seen = signalled(monkeypatch, at, number)
    with pytest.raises(Preempted):
        train.run(torn, tmp_path / "b")
    accumulate = settings.get("trainer.accumulate", 1)
    steps = -(-at // accumulate)
    assert len(seen) == steps * accumulate, "the step that it was in is the last"
    assert not adapters(tmp_path / "torn") and not (tmp_path / "b" / "result.json").exists()
    assert list((tmp_path / "torn").glob("adapters/*.checkpoints/last.ckpt"))
    train.run(torn, tmp_path / "b")
    assert len(seen) == torn.trainer.steps * accumulate, "no batch comes twice"
    assert adapters(tmp_path / "torn") == adapters(tmp_path / "whole") != []
    log = (tmp_path / "b" / "log.txt").read_text()
    assert f"step {steps} of {torn.trainer.steps}" in log and f"from step {steps}" in log


def test_a_signal_in_the_last_step_keeps_the_adapter(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(base, tmp_path / "out", **{"trainer.steps": 2})
    seen = signalled(monkeypatch, 2, signal.SIGTERM)
    with pytest.raises(Preempted, match="SIGTERM"):
        train.run(config, tmp_path / "a")
    assert len(adapters(tmp_path / "out")) == 1
    assert not list((tmp_path / "out").glob("adapters/*.checkpoints"))
    train.run(config, tmp_path / "a")
    assert len(seen) == 2 and (tmp_path / "a" / "result.json").exists()


def test_who_handled_the_signal_hears_of_it_after_the_step(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Heard(KeyboardInterrupt):
        pass

    def hear(number: int, frame: Any) -> None:
        raise Heard(len(seen))

    before = signal.signal(signal.SIGTERM, hear)
    try:
        seen = signalled(monkeypatch, 2, signal.SIGTERM)
        with pytest.raises(Heard, match="2"):
            train.run(config_of(base, tmp_path / "out"), tmp_path / "a")
        assert signal.getsignal(signal.SIGTERM) is hear
    finally:
        signal.signal(signal.SIGTERM, before)
    assert list((tmp_path / "out").glob("adapters/*.checkpoints/last.ckpt"))


@pytest.mark.slow
def test_two_processes_end_after_the_same_step_and_go_on_bit_for_bit(
    base: Run, tmp_path: Path
) -> None:
    (tmp_path / "ranks.py").write_text(RANKS.format(root=str(ROOT)))

    def torchrun(folder: str, output: str) -> subprocess.CompletedProcess[str]:
        settings = {"trainer.devices": 2, "trainer.batch": 2, "data.workers": 1}
        config = config_of(base, tmp_path / output, **settings)
        conf.write(config, tmp_path / folder / "run.yaml")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node=2", str(tmp_path / "ranks.py")]
        command += [str(tmp_path / folder / "run.yaml")]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)

    assert torchrun("a", "whole").returncode == 0
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "signal").write_text("2")
    first = torchrun("b", "torn")
    # As the first process says, which got no signal
    assert first.returncode != 0 and "preempted by SIGUSR1; the same command" in first.stderr
    assert "exitcode  : 75" in first.stderr
    assert not adapters(tmp_path / "torn")
    assert torchrun("b", "torn").returncode == 0
    assert "from step 2" in (tmp_path / "b" / "log.txt").read_text()
    assert adapters(tmp_path / "torn") == adapters(tmp_path / "whole") != []


def test_the_command_says_how_it_ended(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def preempted(*args: Any, **kwargs: Any) -> Any:
        with raising_preempted():
            os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(train, "run", preempted)
    conf.write(base, tmp_path / "run.yaml")
    assert train.main([str(tmp_path / "run.yaml")]) == preemption.STATUS == 75
    assert "preempted by SIGUSR1" in capsys.readouterr().err


def test_an_error_of_the_training_comes_before_a_signal() -> None:
    with pytest.raises(ValueError, match="broken"), noticing_signals() as notice:
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice.number == signal.SIGTERM
        raise ValueError("broken")


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with raising_preempted(), noticing_signals() as notice:
            os.kill(os.getpid(), signal.SIGTERM)
        assert not notice.number
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_ask_for_no_signals() -> None:
    raised: list[BaseException] = []

    def work() -> None:
        try:
            with raising_preempted(), noticing_signals():
                pass
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not raised


def test_a_trial_says_that_it_was_preempted_unless_another_process_failed(tmp_path: Path) -> None:
    from lightning_modules.training.progress import FAILED
    from sweeps.engine.worker import run_trial

    conf.write(conf.as_run(conf.load([])), tmp_path / "run.yaml")

    def leave(*_: Any) -> dict[str, Any]:
        raise Preempted(signal.SIGTERM)

    with pytest.raises(SystemExit, match="SIGTERM") as stop:
        run_trial(tmp_path / "run.yaml", None, leave)
    assert stop.value.code == 75 and not (tmp_path / FAILED).exists()
    told = tmp_path / preemption.PREEMPTED
    assert json.loads(told.read_text()) == {"reason": "preempted by SIGTERM"}
    told.unlink()
    (tmp_path / FAILED).write_text('{"reason": "memory"}')
    with pytest.raises(Preempted):
        run_trial(tmp_path / "run.yaml", None, leave)
    assert not told.exists()
