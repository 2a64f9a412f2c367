#!/usr/bin/env bash
# Optuna 5.0.0: a finished grid that is opened again runs one more trial, each time.
#
# GridSampler looks whether the grid is done after a trial, not before the first one. A study whose
# cells all have a result, opened again with load_if_exists (a job that the cluster restarts, a script
# run twice), runs one cell once more, at random: a second result for that cell, none for the others.
#
# Expected beforehand: nothing is run, or an error says that the grid is done.
# Seen: 2 cells, 2 trials; after three further starts 5 trials, 3 of them repeats.
# Cure: before optimize(), ask sampler.is_exhausted(study).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q optuna==5.0.0
"$folder/venv/bin/python" - "sqlite:///$folder/study.db" <<'PYTHON'
import sys

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
counts = []
for _ in range(4):
    sampler = optuna.samplers.GridSampler({"x": [1, 2]})
    study = optuna.create_study(
        study_name="grid", storage=sys.argv[1], load_if_exists=True, sampler=sampler
    )
    done = sampler.is_exhausted(study)
    study.optimize(lambda trial: float(trial.suggest_categorical("x", [1, 2])))
    counts.append(len(study.trials))
    print("exhausted before:", done, "| cells of the trials:", [t.params["x"] for t in study.trials])
    assert done == (len(counts) > 1)
assert counts == [2, 3, 4, 5], counts
print("as stated")
PYTHON
