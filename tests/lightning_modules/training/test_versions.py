"""Which code measured: what changes its digest, and what does not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from conf import load as conf
from conf.schema import Run
from lightning_modules.training import keys, versions

METRICS, EVALUATION = "lightning_modules/metrics", "lightning_modules/evaluation"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's sources, in another folder."""
    root = tmp_path_factory.mktemp("project")
    for package in keys.PACKAGES:
        ignore = shutil.ignore_patterns("assets", "__pycache__")
        shutil.copytree(keys.PROJECT / package, root / package, ignore=ignore)
    return root


def changed(project: Path, file: str, edit: tuple[str, str], config: Run) -> set[str]:
    """Which parts of what measures, and of what makes, are others while a file is edited."""

    def digests() -> dict[str, str]:
        keys._code.cache_clear()
        keys.code_version.cache_clear()
        made = versions.made_by(config, project)["code_parts"]
        return made | versions.measuring_parts(config, project)

    before, path = digests(), project / file
    text = path.read_text(encoding="utf-8")
    edited, count = re.subn(*edit, text, count=1, flags=re.M)
    assert count, f"{edit[0]} is not in {file}"
    path.write_text(edited, encoding="utf-8")
    try:
        after = digests()
    finally:
        path.write_text(text, encoding="utf-8")
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("file", "edit", "expected"),
    [
        # A formula of one metric
        (f"{METRICS}/judge.py", (r"len\(self\.scores\)", "1"), {"judge"}),
        (f"{METRICS}/functional.py", (r"\Z", "x = 1\n"), {"distribution"}),
        # What all metrics are made with
        (f"{EVALUATION}/evaluate.py", ("CHUNK, len", "CHUNK + 1, len"), {"judge", "distribution"}),
        # What looks at the method
        (f"{EVALUATION}/diagnostics.py", ("SIDE = 16", "SIDE = 8"), {"diagnostics"}),
        # A metric that these settings do not measure
        (f"{METRICS}/mask_adherence.py", (r"\Z", "x = 1\n"), set()),
        # Words alone
        (f"{METRICS}/judge.py", ('^"""', '"""Other words. '), set()),
        # What draws, and measures nothing
        ("lightning_modules/backbone/sampling.py", (r"\Z", "x = 1\n"), {"sampling"}),
    ],
)
def test_a_change_is_one_of_those_who_measure_with_it(
    project: Path, file: str, edit: tuple[str, str], expected: set[str]
) -> None:
    assert changed(project, file, edit, Run()) - {"training", "method maskattn"} == expected


def test_a_changed_metric_changes_no_key(project: Path) -> None:
    def codes() -> list[str]:
        keys._code.cache_clear()
        keys.code_version.cache_clear()
        return [keys.training_code(Run(), project), keys.sampling_code(Run(), project)]

    before, path = codes(), project / METRICS / "judge.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("len(self.scores)", "1"), encoding="utf-8")
    assert codes() == before
    path.write_text(text, encoding="utf-8")


def test_a_metric_of_ones_own_counts_by_its_file(project: Path) -> None:
    config = Run(evaluate_with={"evaluation.follow_masks": True})
    file = f"{METRICS}/mask_adherence.py"
    assert changed(project, file, (r"\Z", "x = 1\n"), config) == {"mask_adherence"}


def test_methods_and_data_do_not_change_what_measures() -> None:
    other = conf.replace(Run(), {"method.name": "mcgm", "data.name": "flickr30k"})
    assert versions.measuring_code(other) == versions.measuring_code(Run())
    assert versions.made_by(other)["code"] != versions.made_by(Run())["code"]
    assert versions.measuring_parts(conf.replace(Run(), {"evaluation.prompts": 0})) == {}


def test_a_result_says_what_measured_each_value() -> None:
    measured = versions.measured_by(Run(), {"fid": "distribution"})
    assert (
        measured["code"] == versions.measuring_code(Run()) == versions.join_parts(measured["parts"])
    )
    assert versions.measures_otherwise(measured, Run()) == set()
    measured["parts"]["judge"]["code"] = "another"
    assert versions.measures_otherwise(measured, Run()) == {"judge"}
    assert versions.measures_otherwise(None, Run()) == {"judge", "distribution", "diagnostics"}
