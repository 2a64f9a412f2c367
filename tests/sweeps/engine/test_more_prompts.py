"""A finished trial gets more prompts: its result is replaced as a whole, in its folder, the queue
and MLflow, and nothing is lost when that is stopped at any moment."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.extending import Extending, measure
from helpers.memory_mlflow import MemoryMlflow
from helpers.sweep_states import CELLS, SWEEP, states, trials

from conf import load as conf
from lightning_modules.tracking.store import client
from lightning_modules.training.remeasure import PENDING
from reports.measuring import REPLACING
from sweeps.engine import bookkeeping, prompts, remeasure
from sweeps.engine import driver as driving
from sweeps.engine.create import create_study
from sweeps.engine.resolve import resolve

Command = Callable[..., int]


@pytest.fixture
def extending() -> Extending:
    return Extending()


@pytest.fixture
def command(output: Path, trainer: Any, reports: Any, extending: Extending) -> Command:
    from sweeps.command import main

    trainer.change = lambda config, metrics: measure(config)
    train = extending.train(trainer)

    def run(*words: str) -> int:
        return main(SWEEP, [f"output={output}", "seeds=1", *words], train=train)

    return run


def seed_runs(output: Path) -> list[Any]:
    store: Any = client(f"sqlite:///{(output / 'mlflow.db').resolve()}")
    return [run for run in store.search_runs(["1"]) if run.data.tags["role"] == "seed"]


def results(output: Path) -> list[int]:
    paths = sorted(output.glob("threshold/trials/*/result.json"))
    return [json.loads(path.read_text())["prompts"] for path in paths]


def test_finished_trials_are_extended_and_counted_once(
    command: Command, extending: Extending, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("evaluation.prompts=56") == 0
    runs = {run.info.run_id: run.info.end_time for run in seed_runs(output)}
    assert command("evaluation.prompts=112", "--plan") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "4 finished trials get 56 more prompts of each split (56 so far)" in said
    assert command("evaluation.prompts=112") == 0
    assert [more for *_, more in extending.ran] == [False] * 4 + [True] * 4
    assert [path.name for path in output.iterdir() if path.is_dir()].count("threshold") == 1
    assert not list(output.glob("threshold-*")), "it is the same study"
    assert results(output) == [112] * 4 and not list(output.rglob(PENDING))
    after = seed_runs(output)
    assert {run.info.run_id: run.info.end_time for run in after} == runs, "the runs are the same"
    assert all(run.data.metrics["eval/success"] == 0.112 for run in after)
    assert not any(REPLACING in run.data.tags for run in after)
    told = [t.user_attrs for t in trials(output)]
    assert [facts["prompts"] for facts in told] == [56] * 4 + [112] * 4
    assert [facts["kind"] for facts in told[4:]] == ["extended"] * 4
    assert [facts["seconds"] for facts in told[4:]] == [0.25] * 4, "what it took to add them"
    # And nothing is done twice
    capsys.readouterr()
    assert command("evaluation.prompts=112") == 0 and len(extending.ran) == 8
    assert states(output) == {"COMPLETE": 8}


def listed(output: Path) -> list[str]:
    path = output / "images" / "threshold.jsonl"
    return [json.loads(line)["image"] for line in path.read_text().splitlines()]


def test_more_prompts_may_only_be_drawn(
    command: Command, extending: Extending, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more, draw = "evaluation.prompts=112", "evaluation.draw_only=true"
    assert command("evaluation.prompts=56") == 0
    before, ran = seed_runs(output), len(extending.ran)
    assert command(more, draw, "--plan") == 0
    assert "56 more prompts of each split (56 so far)" in " ".join(capsys.readouterr().out.split())
    assert command(more, draw) == 0
    assert len(extending.ran) == ran + 4, "each is drawn once"
    assert results(output) == [56] * 4 and not list(output.rglob(PENDING))
    assert len(set(listed(output))) == 8
    after = [(run.info, run.data.metrics, run.data.tags) for run in seed_runs(output)]
    assert after == [(run.info, run.data.metrics, run.data.tags) for run in before]
    capsys.readouterr()
    for words, said in (
        (["evaluation.prompts=56"], "4 of 4 done;"),
        ([more], "0 of 4 done, 4 only drawn;"),
        (["evaluation.prompts=224"], "0 of 4 done;"),
    ):
        assert command(*words, "--plan") == 0
        assert said in " ".join(capsys.readouterr().out.split()), words
    assert command(more) == 0 and results(output) == [112] * 4
    assert len(seed_runs(output)) == 4
    assert all(run.data.metrics["eval/success"] == 0.112 for run in seed_runs(output))
    assert command(more, "--plan") == 0
    assert "4 of 4 done;" in " ".join(capsys.readouterr().out.split())
    assert command(more, draw) == 0 and len(extending.ran) == ran + 8
    assert command("evaluation.prompts=224", "--plan") == 0
    assert "0 of 4 done;" in capsys.readouterr().out, "nothing is drawn of what is asked for now"


def test_of_fewer_prompts_drawn_more_are_not(
    command: Command, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("evaluation.prompts=56", "evaluation.draw_only=true") == 0
    capsys.readouterr()
    for count, said in ((56, "0 of 4 done, 4 only drawn;"), (112, "0 of 4 done;")):
        assert command(f"evaluation.prompts={count}", "--plan") == 0
        assert said in " ".join(capsys.readouterr().out.split())
    assert command("evaluation.prompts=112") == 0 and results(output) == [112] * 4


def test_fewer_prompts_than_there_are_change_nothing(
    command: Command, extending: Extending, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("evaluation.prompts=112") == 0
    assert command("evaluation.prompts=56") == 0
    assert len(extending.ran) == 4 and results(output) == [112] * 4
    assert "more prompts" not in capsys.readouterr().out
    # New seeds are of what is asked for, and the table says that they differ
    assert command("evaluation.prompts=56", "seeds=2") == 0
    assert sorted(results(output)) == [56] * 4 + [112] * 4
    assert "trials have 56 to 112 prompts" in " ".join(capsys.readouterr().out.split())


def test_all_prompts_are_more_than_any_number_but_only_once(
    command: Command, extending: Extending, output: Path
) -> None:
    assert command("evaluation.prompts=56") == 0
    assert command("evaluation.prompts=null") == 0
    assert len(extending.ran) == 8 and results(output) == [512] * 4
    assert command("evaluation.prompts=null") == 0 and command("evaluation.prompts=500") == 0
    assert len(extending.ran) == 8


STOPS = ["begin", "pending", "adopt", "log_batch", "delete_tag", "discard", "note", "complete"]


@pytest.mark.parametrize("stop", STOPS)
def test_stopped_at_any_moment_the_old_or_the_new_result_is_there(
    command: Command,
    extending: Extending,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: str,
) -> None:
    from sweeps.engine.queue import TrialQueue

    assert command("evaluation.prompts=56") == 0
    runs = {run.info.run_id for run in seed_runs(output)}

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if stop in ("adopt", "discard"):
            patch.setattr(remeasure, stop, interrupt)
        elif stop in ("log_batch", "delete_tag"):
            patch.setattr(MemoryMlflow, stop, interrupt)
        elif stop in ("note", "complete"):
            patch.setattr(TrialQueue, stop, interrupt)
        else:
            extending.stop_after = stop
        assert command("evaluation.prompts=112") == 130
    extending.stop_after = ""
    assert set(results(output)) <= {56, 112}
    ran = len(extending.ran)
    # Whoever asks for fewer finds whole results, and ends what was begun
    assert command("evaluation.prompts=56") == 0
    assert len(extending.ran) == ran and not list(output.rglob(PENDING))
    counts = dict(zip(sorted(output.glob("threshold/trials/*")), results(output), strict=True))
    assert sorted(counts.values()) == ([56] * 4 if stop == "begin" else [56] * 3 + [112])
    for run in seed_runs(output):
        assert run.info.run_id in runs and REPLACING not in run.data.tags
        assert run.info.status == "FINISHED"
    values = sorted(run.data.metrics["eval/success"] for run in seed_runs(output))
    assert values == sorted(count / 1000 for count in counts.values())
    assert command("evaluation.prompts=112") == 0
    assert results(output) == [112] * 4 and len(seed_runs(output)) == 4
    done = {t.user_attrs["cell"]: t.user_attrs["prompts"] for t in trials(output) if t.values}
    assert done == dict.fromkeys(CELLS, 112)


def test_an_extension_that_fails_leaves_the_trial_as_it_was(
    command: Command,
    trainer: Any,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command("evaluation.prompts=56") == 0

    def spoil(result: Any, name: str) -> float:
        raise bookkeeping.ResultError("success is not a number")

    with monkeypatch.context() as patch:
        patch.setattr(bookkeeping, "metric_of", spoil)
        assert command("evaluation.prompts=112", "retries=1") == 1
    assert "success is not a number" in capsys.readouterr().err
    assert results(output) == [56] * 4 and not list(output.rglob(PENDING))
    assert len(seed_runs(output)) == 4
    assert all(run.info.status == "FINISHED" for run in seed_runs(output))
    assert command("evaluation.prompts=112") == 0 and results(output) == [112] * 4


def test_what_other_code_made_gets_no_more_prompts(
    command: Command,
    extending: Extending,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command("evaluation.prompts=56") == 0
    monkeypatch.setattr(prompts, "made_by", lambda config: {"code": "other"})
    assert command("evaluation.prompts=112") == 0 and len(extending.ran) == 4


def test_a_plan_can_be_asked_for_more_of_some_trials(
    command: Command, extending: Extending, output: Path, trainer: Any, reports: Any
) -> None:
    from sweeps.engine.display import make_console, make_display
    from sweeps.engine.eta import EtaEstimator
    from sweeps.engine.executors.local import LocalExecutor
    from sweeps.engine.slots import InlineSlot

    assert command("evaluation.prompts=56") == 0
    words = [f"output={output}", "seeds=2", "evaluation.prompts=56"]
    request = resolve(SWEEP, conf.load(words, SWEEP.preset), words)
    plan = create_study(request)
    try:
        first, waiting = (CELLS[1], 0), (CELLS[2], 1)
        with pytest.raises(ValueError, match="data.eval_images=512"):
            prompts.ask_for_prompts(plan, {first: 900})
        prompts.ask_for_prompts(plan, {first: 84, waiting: 200})
        assert prompts.queue_extensions(plan) == [first] and prompts.queue_extensions(plan) == []
        assert first not in plan.done()
        with make_display(make_console(), EtaEstimator(), 3, {}, 5) as display:
            slot = InlineSlot(extending.train(trainer))
            driving.Driver(plan, LocalExecutor([slot]), display).run()
        assert set(plan.planned) == plan.done()
        asked = {
            (t.user_attrs["cell"], t.user_attrs["seed"]): t.user_attrs["prompts"]
            for t in plan.queue.trials("COMPLETE")
        }
        assert asked == dict.fromkeys(plan.planned, 56) | {first: 84, waiting: 200}
    finally:
        plan.close()


def test_a_search_is_of_one_number_of_prompts(command: Command, output: Path) -> None:
    words = ("mode=search", "candidates=1")
    assert command("evaluation.prompts=56", *words) == 0
    assert command("evaluation.prompts=112", *words) == 0
    names = sorted(path.parent.name for path in output.glob("*/study.journal"))
    assert len(names) == 2 and re.fullmatch("threshold-search-.*", names[1])
