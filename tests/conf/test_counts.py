"""Counted nouns in messages, and a look through the tree for those that say "1 trials"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf.describe import show_count
from reports import prose

ROOT = Path(__file__).parents[2]
PACKAGES = ("conf", "losses", "datamodules", "lightning_modules", "sweeps", "reports")
# Behind a value: a plural, perhaps with another word or two before it, " seeds", " init words"
BEHIND = re.compile(r" ((?:[a-z-]+ ){0,2}?)([a-z-]{2,}s|[A-Z]{2,}s)\b")
# With one of these between, the plural is not what was counted: " of choices", " is no class"
BETWEEN = set(
    ["are", "as", "at", "between", "is", "of", "on", "out", "over", "that", "these", "with"]
)
# Ends like a plural
VERBS = {
    *("acts", "allows", "asks", "as", "belongs", "besides", "changes", "chooses", "compares"),
    *("defines", "describes", "differs", "does", "draws", "excludes", "expects", "falls", "fits"),
    *("gives", "has", "holds", "includes", "is", "its", "knows", "lacks", "leaves", "lies"),
    "limits",
    *(
        "looks",
        "makes",
        "matters",
        "means",
        "minus",
        "names",
        "needs",
        "predicts",
        "reads",
        "says",
        "shows",
        "stands",
    ),
    *("starts", "states", "takes", "tells", "this", "trains", "uses", "varies", "wants", "was"),
    "writes",
}
# Values by file, as they stand there, that are never 1 where they are said, or are no count
NEVER_ONE = {
    "conf/method/separate_enhance.py": {"batch", "data.objects"},
    "conf/method/reward_finetune.py": {"WORLD_SIDE"},
    "lightning_modules/metrics/judge_reward.py": {"SIZE"},
    "reports/rewards.py": {"measure"},
    "conf/spec.py": {"n"},  # 1 or more objects
    "datamodules/formats/coco_layouts.py": {"DEPTH"},
    "datamodules/formats/entities.py": {"high"},
    "datamodules/formats/flickr.py": {"height"},
    "datamodules/formats/flickr_layouts.py": {"DEPTH"},
    "datamodules/formats/lack.py": {"source"},
    "datamodules/formats/mask_files.py": {"colors", "others"},
    "datamodules/formats/reader.py": {"len(paths)", "self.min_phrases"},
    "datamodules/formats/scene_folder.py": {"images[''].name", "sizes[0]", "sizes[1]"},
    "datamodules/inspection.py": {"kind", "different", "h2"},
    "datamodules/loading.py": {"world", "accumulate"},
    "lightning_modules/attention/heatmaps.py": {"method.resolution"},
    "datamodules/prompts.py": {"self.min_phrases"},
    "datamodules/shapes/scene.py": {"subjects"},
    "datamodules/shapes/placing.py": {"SIZE"},
    "datamodules/shapes/scenes.py": {"n", "count", "MOST"},
    "datamodules/shards.py": {"count"},
    "lightning_modules/attention/capture.py": {"' and '.join(map(str, heads))"},
    "lightning_modules/attention/hooks.py": {"pixels"},
    "lightning_modules/backbone/acceleration.py": {"ratio"},
    "lightning_modules/backbone/backbone.py": {"step"},
    "lightning_modules/backbone/configs.py": {"step"},
    "lightning_modules/backbone/families/stable_diffusion_xl.py": {"SIZES"},
    "lightning_modules/backbone/sampling.py": {"name"},
    "lightning_modules/backbone/schedules.py": {"type(self.scheduler).__name__"},
    "lightning_modules/embedded/grade.py": {"images", "IMAGES", "steps"},
    "lightning_modules/evaluation/images.py": {"side"},
    "lightning_modules/evaluation/plan.py": {"backbone.text.length"},
    "lightning_modules/methods/adapter_file.py": {"own * backbone.vae_scale_factor", "LARGEST"},
    "lightning_modules/metrics/alignment.py": {"len(templates)"},
    "lightning_modules/metrics/benchmarks.py": {"benchmark.prompts"},
    "lightning_modules/metrics/functional.py": {"what"},
    "lightning_modules/networks/placeholder_tokens.py": {"found"},
    "lightning_modules/tracking/mlflow.py": {"size - 2 * half"},
    "lightning_modules/tracking/provenance.py": {"len(text)"},
    "lightning_modules/training/checks.py": {"accumulate"},
    "lightning_modules/training/distributed.py": {"world"},
    "lightning_modules/training/run.py": {"backbone.text.length"},
    "sweeps/engine/driver.py": {"len(self._reasons)"},
    "sweeps/engine/path.py": {"2 ** len(self.changes)"},
    "sweeps/engine/screen.py": {"runs", "count", "2 ** count", "FEWEST", "MOST_FACTORS"},
    "sweeps/engine/checks.py": {"config.seed", "config.prune"},
    "sweeps/engine/designs.py": {"'cell gets' if kept == 1 else 'cells get'"},
    "sweeps/engine/power.py": {"own", "planned"},
    "sweeps/engine/prompts.py": {"counts[-1]"},
    "sweeps/engine/stopping.py": {"word", "config.mode"},
    "reports/answer/looks.py": {"looks['looks']", "planned"},
    "reports/figures/groups.py": {"metric.label", "FEWEST"},
    "reports/lucky.py": {"found.cells"},
    "reports/variances.py": {"noun", "width", "cost", "images", "name_image(images)"},
    "sweeps/engine/slots.py": {"processes", "self.processes"},
    "reports/answer/ablation.py": {"len(better)"},
    "reports/answer/conclusion.py": {"high", "len(verdicts.untouched)"},
    "reports/answer/explain.py": {"fewest"},
    "reports/answer/rule.py": {
        *("count", "len(pooled.pool)", "len(pooled.seeds)", "many"),
        "prose.lower(factor.label)",
    },
    "reports/answer/words.py": {"MOST_PROMPTS", "MOST_SEEDS"},
    "reports/answer/factors.py": {"math.prod(levels)", "_number(design.order + 1)"},
    "reports/compare/content.py": {"count"},
    "reports/content.py": {"DRAWS"},
    "reports/figures/cases.py": {"len(cases.seeds)", "n"},
    "reports/figures/heatmap.py": {"len(wide)"},
    "reports/figures/style.py": {"prose.join_range(counts)"},
    "reports/provenance.py": {"number", "len(trials)", "samples"},
    "reports/statistics/cell_table.py": {"sorted(lengths)", "table.shape[2]"},
    "reports/statistics/factorial.py": {"len(shape)"},
    "reports/statistics/fractions.py": {"MOST_FACTORS"},
    "reports/statistics/pooled.py": {"len(table.cells)"},
    "reports/user_study/words.py": {"people", "n", "share.n", "prose.show(share.effective, 0)"},
    "conf/defaults.py": {"named"},
}


@pytest.mark.parametrize(("n", "text"), [(0, "0 trials"), (1, "1 trial"), (1350, "1,350 trials")])
def test_one_is_singular(n: int, text: str) -> None:
    assert show_count(n, "trial") == text


@pytest.mark.parametrize(("n", "text"), [(1, "1 entry"), (2, "2 entries")])
def test_a_plural_of_its_own_can_be_given(n: int, text: str) -> None:
    assert show_count(n, "entry", "entries") == text


def fixed_plurals(source: str) -> Iterator[tuple[int, str, str]]:
    """Line, value and words of each f-string that counts with a plural whatever the number."""
    for node in ast.walk(ast.parse(source)):
        parts = node.values if isinstance(node, ast.JoinedStr) else []
        for value, text in zip(parts, parts[1:], strict=False):
            if not isinstance(value, ast.FormattedValue) or not isinstance(text, ast.Constant):
                continue
            what, found = ast.unparse(value.value), BEHIND.match(str(text.value))
            if found is None or "show_count(" in what or "prose.count(" in what:
                continue
            is_plural = what.startswith("len(") or found[2] not in VERBS
            if is_plural and not BETWEEN & set(found[1].split()):
                yield value.lineno, what, found[0]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('f"{len(a)} images but {len(b)} names"', ["len(a)", "len(b)"]),
        ('f"{n} init words"', ["n"]),
        ("f\"{show_count(n, 'image')} of {k}\"", []),
        ('f"{name} is no class of {n} kinds of its"', ["n"]),
    ],
)
def test_the_look_finds_fixed_plurals(code: str, found: list[str]) -> None:
    assert [what for _, what, _ in fixed_plurals(code)] == found


def test_no_message_counts_with_a_fixed_plural() -> None:
    wrong = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            wrong += [
                f"{name}:{line}: {{{what}}}{words}"
                for line, what, words in fixed_plurals(path.read_text(encoding="utf-8"))
                if what not in NEVER_ONE.get(name, ())
            ]
    assert not wrong, "count with show_count (prose.count in reports), or say why it is never 1"


@pytest.mark.parametrize("count", [show_count, prose.count])
def test_both_helpers_agree(count) -> None:  # type: ignore[no-untyped-def]
    assert [count(n, "seed") for n in (0, 1, 2)] == ["0 seeds", "1 seed", "2 seeds"]
