#!/usr/bin/env bash
# Optuna 5.0.0: choices that compare equal in Python are run as what they are and recorded as another.
#
# A grid over [0, False, 1, True] (or [1, 1.0, 2]) runs every choice once, and the objective sees the
# right one. What the study keeps is the place of the first choice that *equals* it: False is kept as
# 0, True as 1, 1.0 as 1. So study.trials, best_params and trials_dataframe() name a setting that was
# not run; two different trials look like a repeat of one.
#
# Expected beforehand: either all is right, or the grid runs the first of the equal choices twice.
# Seen: objective [1, True, False, 0] in some order, kept [1, 1, 0, 0]; the trial that ran False
# (value 1.0) and the one that ran 0 (value 0.0) both say 0.
# Cure: choices of one type, or text ("0", "False"), turned into values inside the objective.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q optuna==5.0.0
"$folder/venv/bin/python" - <<'PYTHON'
import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)


def grid(choices):
    seen = []

    def objective(trial):
        seen.append(trial.suggest_categorical("x", choices))
        return float([repr(choice) for choice in choices].index(repr(seen[-1])))

    study = optuna.create_study(sampler=optuna.samplers.GridSampler({"x": choices}))
    study.optimize(objective)
    kept = [trial.params["x"] for trial in study.trials]
    print("choices", choices, "| objective saw", seen, "| study kept", kept)
    assert sorted(map(repr, seen)) == sorted(map(repr, choices))
    return dict(zip(map(repr, seen), map(repr, kept), strict=True))


assert grid([0, False, 1, True]) == {"0": "0", "False": "0", "1": "1", "True": "1"}
assert grid([1, 1.0, 2]) == {"1": "1", "1.0": "1", "2": "2"}
print("as stated")
PYTHON
