"""Searches over the fake trainer: what is proposed, what is kept of it, what is dropped, and that it goes on after whatever happened."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers.sweep_states import runs

from conf.schema import Run

Command = Callable[..., int]
NAME = "threshold-search"
SMALL = ("mode=search", "candidates=4", "seeds=2")


def candidates(output: Path, name: str = NAME) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(output / name / "study.journal"))
    )
    return optuna.load_study(study_name=f"{name}.candidates", storage=storage).trials


def proposed(trainer: Any) -> set[float]:
    return {
        config.method.gate.threshold for config in trainer.ran if config.method.name == "maskattn"
    } - {0.5}


def test_a_search_measures_candidates_beside_backbone_and_baseline(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, capsys: pytest.CaptureFixture
) -> None:
    assert sweep(*SMALL) == 0
    tried = proposed(trainer)
    assert len(tried) == 4 and all(0.4 <= value <= 0.6 for value in tried), (
        "between the lowest and the highest level"
    )
    assert len(trainer.ran) == 2 * (4 + 2) and max(Counter(trainer.names).values()) == 1
    told = candidates(output)
    assert [trial.state.name for trial in told] == ["COMPLETE"] * 5, (
        "the baseline's value is told to the sampler, too"
    )
    for trial in told:
        threshold = trial.user_attrs.get("values", {}).get("method.gate.threshold", 0.5)
        assert trial.values == [pytest.approx(threshold + 0.005)], "the mean over seeds"
        assert threshold == pytest.approx(trial.params["method.gate.threshold"], rel=1e-3)
    best = max(*tried, 0.5)
    out = capsys.readouterr().out
    assert f"threshold={best}: success {best + 0.005:.3f}" in out.replace(" (baseline)", "")
    command = re.search(
        r"python -m sweeps.threshold output=\S+ mode=list 'cells=(.*?)' seed=2 seeds=3", out
    )
    assert command and json.loads(command[1]) == [f"threshold={best}"]
    cells = {run.data.tags["cell"]: run.data.tags for run in runs(mlflow, "cell", NAME)}
    assert (
        len(cells) == 6
        and cells[f"threshold={best}"]["front"] == "true"
        and cells["threshold=0.5"]["front"] == "false"
    )
    assert not (output / "threshold").exists(), "a search is a study of its own"


def test_a_search_goes_on_and_can_be_made_larger(
    sweep: Command, trainer: Any, output: Path
) -> None:
    def stop(config: Run, count: int) -> None:
        if count == 8:
            raise KeyboardInterrupt

    trainer.before = stop
    assert sweep(*SMALL) == 130
    trainer.before = lambda config, count: None
    assert sweep(*SMALL) == 0
    assert len(trainer.ran) == 13 and len(proposed(trainer)) == 4
    assert sweep("mode=search", "candidates=6", "seeds=2") == 0
    assert len(trainer.ran) == 17 and len(proposed(trainer)) == 6
    assert sweep("mode=search", "candidates=6", "seeds=2") == 0 and len(trainer.ran) == 17


def test_the_same_seed_proposes_the_same_also_after_a_stop(
    sweep: Command, trainer: Any, tmp_path: Path, output: Path
) -> None:
    sweep(*SMALL, "sampler=random")
    whole = proposed(trainer)
    trainer.ran.clear()

    def stop(config: Run, count: int) -> None:
        if count == 7:
            raise KeyboardInterrupt

    trainer.before = stop
    sweep(*SMALL, "sampler=random", "evaluation.steps=9")
    trainer.before = lambda config, count: None
    sweep(*SMALL, "sampler=random", "evaluation.steps=9")
    assert proposed(trainer) == whole
    trainer.ran.clear()
    sweep(*SMALL, "sampler=random", "evaluation.steps=10", "sampler_seed=1")
    assert len(proposed(trainer)) == 4 and not proposed(trainer) & whole


def test_several_objectives_end_in_a_pareto_front(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, capsys: pytest.CaptureFixture
) -> None:
    # success rises with the threshold, and so does the FID
    trainer.change = lambda config, metrics: {**metrics, "eval/fid": 100 * metrics["eval/success"]}
    assert sweep(*SMALL, "objectives=[success,fid]", "sampler=nsga2") == 0
    out = capsys.readouterr().out
    front = out[out.index("Pareto front of success and fid:") :].split("Chosen among")[0]
    assert front.count("threshold=") == 5 and "threshold=0.5 (baseline)" in front
    assert Counter(run.data.tags["front"] for run in runs(mlflow, "cell", NAME)) == {
        "true": 5,
        "false": 1,
    }


def test_hopeless_candidates_are_dropped_after_some_seeds(
    sweep: Command, trainer: Any, output: Path
) -> None:
    trainer.change = lambda config, metrics: {
        **metrics,
        "eval/success": -abs(config.method.gate.threshold - 0.5) + 0.001 * config.seed,
    }
    assert sweep("mode=search", "candidates=6", "seeds=8", "prune=seeds", "sampler=random") == 0
    ends = Counter(trial.state.name for trial in candidates(output))
    assert ends["PRUNED"] >= 1 and ends["PRUNED"] + ends["COMPLETE"] == 7
    pruned = [trial for trial in candidates(output) if trial.state.name == "PRUNED"]
    for trial in pruned:
        threshold = trial.user_attrs["values"]["method.gate.threshold"]
        assert 2 <= sum(config.method.gate.threshold == threshold for config in trainer.ran) < 8


def test_a_training_that_is_no_match_is_asked_to_end(
    sweep: Command, trainer: Any, output: Path, mlflow: Any
) -> None:
    folders: list[Path] = []

    def run(config: Run, folder: Path, tracking: Any, progress: Any) -> dict[str, Any]:
        # what a training does: it tells its loss, and ends where it is asked to
        (folder / "losses.txt").write_text(f"10 {1 - config.method.gate.threshold:.4f}\n")
        progress("training: step 11/20, loss 0.5000, 0.10 s a step, 1 s left", 0.3)
        if (folder / "prune").exists():
            folders.append(folder)
            return {"pruned": True, "metrics": {}}
        return trainer(config, folder, tracking, progress)

    from helpers.sweep_states import SWEEP

    from sweeps.run import main

    words = [
        f"output={output}",
        "mode=search",
        "candidates=8",
        "seeds=2",
        "prune=training",
        "sampler=random",
    ]
    assert main(SWEEP, words, trainer=run) == 0
    ends = Counter(trial.state.name for trial in candidates(output))
    assert ends["PRUNED"] == len(folders) >= 1 and sum(ends.values()) == 9
    assert not any((folder / "prune").exists() for folder in folders)
    pruned = [run for run in runs(mlflow, "seed", NAME) if run.data.tags.get("error") == "pruned"]
    assert len(pruned) == len(folders)


def test_a_candidate_that_fails_for_good_does_not_stop_the_search(
    sweep: Command, trainer: Any, output: Path
) -> None:
    def fail(config: Run, count: int) -> None:
        if (
            config.method.name == "maskattn"
            and config.method.gate.threshold != 0.5
            and len(proposed(trainer)) == 2
        ):
            raise RuntimeError("diverged")

    trainer.before = fail
    assert sweep(*SMALL, "retries=0") == 1
    assert Counter(trial.state.name for trial in candidates(output)) == {"COMPLETE": 4, "FAIL": 1}


def test_the_report_of_a_search_knows_its_levels_and_warns(output: Path, trainer: Any) -> None:
    from helpers.sweep_states import SWEEP

    from sweeps.run import main

    assert main(SWEEP, [f"output={output}", *SMALL], trainer=trainer) == 0
    shown = json.loads((output / NAME / "report.json").read_text())
    assert "chosen on these very seeds" in shown["warning"] and "Unfinished" not in shown["warning"]
    assert len(shown["front"][1]["rows"]) == 6


def test_failed_candidates_are_replaced_at_the_next_start(
    sweep: Command, trainer: Any, output: Path
) -> None:
    def fail(config: Run, count: int) -> None:
        if (
            config.method.name == "maskattn"
            and config.method.gate.threshold != 0.5
            and len(proposed(trainer)) > 2
        ):
            raise RuntimeError("no space left on device")

    trainer.before = fail
    assert sweep(*SMALL, "retries=0") == 1
    assert Counter(trial.state.name for trial in candidates(output)) == {"COMPLETE": 3, "FAIL": 2}
    trainer.before = lambda config, count: None
    assert sweep(*SMALL, "retries=0") == 0
    assert Counter(trial.state.name for trial in candidates(output)) == {"COMPLETE": 5, "FAIL": 2}


def test_a_baseline_that_lacks_an_objective_does_not_stop_the_search(
    sweep: Command, trainer: Any, output: Path
) -> None:
    trainer.change = lambda config, known: (
        known | ({"eval/fid": float("nan")} if config.method.gate.threshold == 0.5 else {})
    )
    assert sweep(*SMALL, "objectives=[success,fid]") == 0
    assert Counter(trial.state.name for trial in candidates(output)) == {"COMPLETE": 4}, (
        "the sampler is not told the baseline"
    )


def test_the_command_that_confirms_holds_no_password(
    output: Path, trainer: Any, reports: list[str]
) -> None:
    from sweeps.engine.search import _public

    assert (
        _public("storage=postgresql://me:secret@host/db") == "storage=postgresql://host/db"
        and _public("seeds=2") == "seeds=2"
    )
