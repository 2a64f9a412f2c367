"""Searches over the fake trainer: what is proposed, kept and dropped, and that they go on."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.printed_commands import check_printed
from helpers.sweep_states import SWEEP, runs, trials

from conf.schema import Run
from sweeps.command import main
from sweeps.engine.search import _hide_password

Command = Callable[..., int]
NAME = "threshold-search"
SMALL = ("mode=search", "candidates=3", "seeds=2")
RANDOM = ("mode=search", "candidates=3", "seeds=1", "sampler=random")


def candidates(output: Path) -> list[Any]:
    return trials(output, NAME, f"{NAME}.candidates")


def ends(output: Path) -> Counter[str]:
    return Counter(trial.state.name for trial in candidates(output))


def thresholds(trainer: Any) -> set[float]:
    """The proposed ones."""
    trained = [config for config in trainer.ran if config.method.name == "maskattn"]
    return {config.method.gate.threshold for config in trained} - {0.5}


def nothing(config: Run, count: int) -> None:
    """Every trial goes well."""


def stop_at(number: int) -> Callable[[Run, int], None]:
    def stop(config: Run, count: int) -> None:
        if count == number:
            raise KeyboardInterrupt

    return stop


def test_a_search_measures_candidates_beside_backbone_and_control(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, capsys: pytest.CaptureFixture
) -> None:
    assert sweep(*SMALL) == 0
    tried = thresholds(trainer)
    assert len(tried) == 3 and all(0.4 <= value <= 0.6 for value in tried)
    assert len(trainer.ran) == 2 * (3 + 2) and max(Counter(trainer.names).values()) == 1
    assert ends(output) == {"COMPLETE": 4}, "the control's value is told to the sampler, too"
    for trial in candidates(output):
        threshold = trial.user_attrs.get("values", {}).get("method.gate.threshold", 0.5)
        assert trial.values == [pytest.approx(threshold + 0.005)], "the mean over seeds"
        assert threshold == pytest.approx(trial.params["method.gate.threshold"], rel=1e-3)
    best = max(*tried, 0.5)
    printed = capsys.readouterr().out
    assert f"threshold={best}: success {best + 0.005:.3f}" in printed.replace(" (control)", "")
    pattern = r"python -m sweeps.threshold output=\S+ mode=list 'cells=(.*?)' seed=2 seeds=3"
    command = re.search(pattern, printed)
    check_printed(command[0] if command else printed)
    assert command and json.loads(command[1]) == [f"threshold={best}"]
    cells = {run.data.tags["cell"]: run.data.tags for run in runs(mlflow, "cell", NAME)}
    assert len(cells) == 5 and cells[f"threshold={best}"]["front"] == "true"
    assert cells["threshold=0.5"]["front"] == "false"
    assert not (output / "threshold").exists(), "a search is a study of its own"


def test_a_search_goes_on_and_can_be_made_larger(
    sweep: Command, trainer: Any, output: Path
) -> None:
    trainer.before = stop_at(7)
    assert sweep(*SMALL) == 130
    trainer.before = nothing
    assert sweep(*SMALL) == 0
    assert len(trainer.ran) == 11 and len(thresholds(trainer)) == 3
    larger = ("mode=search", "candidates=4", "seeds=2")
    assert sweep(*larger) == 0 and sweep(*larger) == 0
    assert len(trainer.ran) == 13 and len(thresholds(trainer)) == 4


def test_the_same_seed_proposes_the_same_also_after_a_stop(sweep: Command, trainer: Any) -> None:
    def search(*words: str) -> set[float]:
        trainer.ran.clear()
        sweep(*RANDOM, *words)
        return thresholds(trainer)

    whole = search()
    trainer.before = stop_at(4)
    begun = search("evaluation.steps=9")
    trainer.before = nothing
    assert begun | search("evaluation.steps=9") == whole
    others = search("evaluation.steps=10", "sampler_seed=1")
    assert len(others) == 3 and not others & whole


def test_several_objectives_end_in_a_pareto_front(
    sweep: Command, trainer: Any, mlflow: Any, capsys: pytest.CaptureFixture
) -> None:
    # Success rises with the threshold, and so does the FID
    trainer.change = lambda config, known: {**known, "eval/fid": 100 * known["eval/success"]}
    assert sweep(*SMALL, "objectives=[success,fid]", "sampler=nsga2") == 0
    printed = capsys.readouterr().out
    front = printed[printed.index("Pareto front of success and fid:") :].split("Selected among")[0]
    assert front.count("threshold=") == 4 and "threshold=0.5 (control)" in front
    marks = Counter(run.data.tags["front"] for run in runs(mlflow, "cell", NAME))
    assert marks == {"true": 4, "false": 1}


def test_hopeless_candidates_are_dropped_after_some_seeds(
    sweep: Command, trainer: Any, output: Path
) -> None:
    def change(config: Run, known: dict[str, float]) -> dict[str, float]:
        distance = abs(config.method.gate.threshold - 0.5)
        return {**known, "eval/success": -distance + 0.001 * config.seed}

    trainer.change = change
    words = ("candidates=4", "seeds=6", "prune=seeds", "sampler=random")
    assert sweep("mode=search", *words) == 0
    assert ends(output)["PRUNED"] >= 1 and sum(ends(output).values()) == 5
    for trial in candidates(output):
        if trial.state.name == "PRUNED":
            value = trial.user_attrs["values"]["method.gate.threshold"]
            count = sum(config.method.gate.threshold == value for config in trainer.ran)
            assert 2 <= count < 6


def test_a_training_that_is_no_match_is_asked_to_end(
    output: Path, trainer: Any, mlflow: Any, reports: list[str]
) -> None:
    folders: list[Path] = []

    def train(config: Run, folder: Path, tracking: Any, progress: Any) -> dict[str, Any]:
        # What a training does: it reports its loss, and ends if it is asked to
        (folder / "losses.txt").write_text(f"10 {1 - config.method.gate.threshold:.4f}\n")
        progress("training: step 11/20, loss 0.5000, 0.10 s a step, 1 s left", 0.3)
        if (folder / "prune").exists():
            folders.append(folder)
            return {"pruned": True, "metrics": {}}
        return trainer(config, folder, tracking, progress)

    words = [f"output={output}", "mode=search", "candidates=6", "seeds=1"]
    assert main(SWEEP, [*words, "prune=training", "sampler=random"], train=train) == 0
    assert ends(output)["PRUNED"] == len(folders) >= 1 and sum(ends(output).values()) == 7
    assert not any((folder / "prune").exists() for folder in folders)
    before: list[float] = []  # Thresholds that trained to the end; the higher, the smaller the loss
    for trial in candidates(output):
        value = trial.user_attrs.get("values", {}).get("method.gate.threshold")
        if trial.state.name == "PRUNED":
            assert value < statistics.median(before)
        elif value is not None:
            before.append(value)
    errors = [run.data.tags.get("error") for run in runs(mlflow, "seed", NAME)]
    assert errors.count("pruned") == len(folders)


def test_failed_candidates_do_not_stop_the_search_and_are_replaced_at_the_next_start(
    sweep: Command, trainer: Any, output: Path
) -> None:
    def fail(config: Run, count: int) -> None:
        proposed = config.method.name == "maskattn" and config.method.gate.threshold != 0.5
        if proposed and len(thresholds(trainer)) > 1:
            raise RuntimeError("diverged")

    trainer.before = fail
    assert sweep(*RANDOM, "retries=0") == 1
    assert ends(output) == {"COMPLETE": 2, "FAIL": 2}
    trainer.before = nothing
    assert sweep(*RANDOM, "retries=0") == 0
    assert ends(output) == {"COMPLETE": 4, "FAIL": 2}


def test_a_control_that_lacks_an_objective_does_not_stop_the_search(
    sweep: Command, trainer: Any, output: Path
) -> None:
    def change(config: Run, known: dict[str, float]) -> dict[str, float]:
        is_control = config.method.gate.threshold == 0.5
        return known | ({"eval/fid": float("nan")} if is_control else {})

    trainer.change = change
    assert sweep(*RANDOM, "objectives=[success,fid]") == 0
    assert ends(output) == {"COMPLETE": 3}, "the sampler is not told of the control"


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_candidate_without_an_objective_is_named_and_never_the_best(
    sweep: Command, trainer: Any, output: Path, value: str, capsys: Any
) -> None:
    def change(config: Run, known: dict[str, float]) -> dict[str, float]:
        proposed = config.method.name == "maskattn" and config.method.gate.threshold != 0.5
        return known | ({"eval/fid": float(value)} if proposed else {})

    trainer.change = change
    sweep(*RANDOM, "objectives=[success,fid]")
    assert "COMPLETE" not in ends(output) or ends(output)["COMPLETE"] == 1  # The control alone
    assert "has no value of fid: not ranked" in capsys.readouterr().out


@pytest.mark.slow
def test_the_report_of_a_search_knows_its_levels_and_warns(output: Path, trainer: Any) -> None:
    assert main(SWEEP, [f"output={output}", *SMALL], train=trainer) == 0
    report = json.loads((output / NAME / "report.json").read_text())
    assert "on these very seeds" in report["warning"]
    assert "Unfinished" not in report["warning"] and len(report["front"][1]["rows"]) == 5


def test_the_command_that_confirms_holds_no_password() -> None:
    url = "tracking_uri=postgresql://me:secret@host/db"
    assert _hide_password(url) == "tracking_uri=postgresql://host/db"
    assert _hide_password("seeds=2") == "seeds=2"


def test_a_search_whose_journal_was_lost_knows_its_candidates(
    sweep: Command, trainer: Any, output: Path
) -> None:
    assert sweep(*RANDOM) == 0
    before = candidates(output)
    ran = len(trainer.ran)
    (output / NAME / "study.journal").unlink()
    assert sweep(*RANDOM) == 0 and len(trainer.ran) == ran
    after = candidates(output)
    key = "method.gate.threshold"
    assert {(t.params[key], t.value, t.state) for t in after} == {
        (t.params[key], t.value, t.state) for t in before
    }
    assert sweep(*RANDOM, "candidates=4") == 0 and len(trainer.ran) == ran + 1
