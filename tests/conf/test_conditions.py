"""Which settings are read where, and which are searched on a logarithmic scale."""

from __future__ import annotations

from typing import Any

import pytest

from conf import load as conf
from conf.conditions import check_read, deciding_keys, why_unread
from conf.describe import describe
from conf.schema import Run
from conf.spec import data_sets, methods

SETTINGS = describe(Run).settings
SEPARATE = {"method": "separate_enhance"}


@pytest.mark.parametrize(
    ("words", "key", "why"),
    [
        ({}, "method.gate.threshold", ""),
        ({"method.gate.mode": "topk"}, "method.gate.threshold", "method.gate.mode=topk"),
        ({"method.gate.mode": "soft"}, "method.gate.threshold", "method.gate.mode=soft"),
        ({}, "method.gate.keep", "method.gate.mode=hard"),
        ({"method.gate.mode": "topk"}, "method.gate.keep", ""),
        ({}, "method.masks.lambda_m", "method.name=maskattn"),
        ({"method": "mcgm"}, "method.masks.lambda_m", ""),
        (
            {"method": "separate_enhance", "method.separate.kernel": 1},
            "method.separate.sigma",
            "method.separate.kernel=1",
        ),
        # What decides on it is itself not read
        (
            {"method.gate.supervision": "masks"},
            "method.gate.supervision_density",
            "method.gate.supervision=masks",
        ),
        ({}, "trainer.lr", ""),
        ({}, "recipe", ""),
        # What a method reads of another one's section
        ({}, "method.separate.kernel", "method.gate.supervision=none"),
        ({"method.gate.supervision": "separate_enhance"}, "method.separate.kernel", ""),
        (
            {"method.gate.supervision": "separate_enhance"},
            "method.separate.inputs",
            "method.name=maskattn",
        ),
        (SEPARATE, "method.weights.text_encoder", "method.name=separate_enhance"),
        (SEPARATE, "method.weights.rank", ""),
        # What steers is read by every method that learns, where it steers
        ({}, "method.attention_guidance.losses", ""),
        ({}, "method.attention_guidance.side", "method.attention_guidance.losses={}"),
        (
            {"method": "mcgm", "method.attention_guidance.losses": {"enhance": 1.0}},
            "method.attention_guidance.side",
            "",
        ),
        ({"method": "untouched"}, "method.attention_guidance.losses", "method.name=untouched"),
        ({"method": "attention_guidance"}, "method.attention_guidance.side", ""),
        (
            {"method": "attention_guidance"},
            "method.attention_guidance.refinements",
            "method.attention_guidance.thresholds={}",
        ),
        ({"method": "attention_guidance"}, "trainer.lr", "method.name=attention_guidance"),
        ({"method": "attention_guidance"}, "init_seed", "method.name=attention_guidance"),
        (SEPARATE, "method.separate.heads", ""),
        (
            {**SEPARATE, "method.separate.control": "denoising"},
            "method.separate.heads",
            "method.separate.control=denoising",
        ),
        (
            {"method": "mcgm", "method.masks.encoder": "merged"},
            "method.masks.lambda_m",
            "method.masks.encoder=merged",
        ),
        # On captions there are no placeholders, and weights are trained all the same
        ({"method": "mcgm"}, "method.subjects.token_lr", "data=shapes"),
        ({"method": "mcgm"}, "method.weights.rank", ""),
        ({"method": "mcgm", "data": "scene", "data.root": "auto"}, "method.subjects.token_lr", ""),
        (
            {
                "method": "break_a_scene",
                "data": "scene",
                "data.root": "auto",
                "method.subjects.schedule": "tokens_only",
            },
            "method.weights.rank",
            "method.subjects.schedule=tokens_only",
        ),
        # Beside the method
        ({}, "data.detokenise", "data=shapes"),
        ({"data": "flickr30k", "data.root": "/x"}, "data.detokenise", ""),
        ({}, "data.joins", "data.concepts=[]"),
        ({"data.concepts": ["cat", "dog"]}, "data.joins", ""),
        ({"data": "scene", "data.root": "auto"}, "data.subjects", ""),
        ({"data": "scene", "data.root": "/x"}, "data.subjects", "data=scene"),
        ({}, "backbone.revision", "backbone.path=embedded"),
        ({"backbone.path": "/models/sd"}, "backbone.revision", "backbone.path=/models/sd"),
        ({"backbone.path": "someone/sd"}, "backbone.revision", ""),
        ({}, "evaluation.color_classifier", "evaluation.detector=judge"),
        (
            {"evaluation.detector": "seen.jsonl"},
            "evaluation.color_classifier",
            "evaluation.detector=seen.jsonl",
        ),
        ({"evaluation.detector": "someone/detr"}, "evaluation.color_classifier", ""),
        (
            {"evaluation.extractor": "none"},
            "evaluation.precision_recall_k",
            "evaluation.extractor=none",
        ),
        ({"evaluation.follow_masks": True}, "evaluation.masks", "method.name=maskattn"),
        ({"method": "mcgm", "evaluation.follow_masks": True}, "evaluation.masks", ""),
        ({"evaluation.prompts": 0}, "evaluation.steps", "evaluation.prompts=0"),
        ({"method": "untouched"}, "trainer.lr", "method.name=untouched"),
        ({"method": "untouched"}, "trainer.devices", ""),
        ({"method": "untouched"}, "timestep_seed", "method.name=untouched"),
        ({**SEPARATE, "method.separate.test_time": 2}, "trainer.lr", ""),
    ],
)
def test_a_setting_is_unread_by_another(words: dict[str, Any], key: str, why: str) -> None:
    assert why_unread(conf.replace(Run(), words), key) == why


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ({"method.gate.supervision": "oracle"}, "trainer.lr"),
        ({**SEPARATE, "method.separate.test_time": 2}, "trainer.steps"),
    ],
)
def test_a_method_that_trains_nothing_says_by_which_setting(
    words: dict[str, Any], key: str
) -> None:
    why = why_unread(conf.replace(Run(), words), key)
    name, value = list(words.items())[-1]
    assert f"{name}={value}" in why


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        ({"method.gate.keep": 0.3}, "method.gate.mode=topk"),
        ({"method.masks.lambda_m": 3.0}, "method=mcgm"),
        ({"method.separate.tokens": "last"}, "method=separate_enhance"),
        ({"method": "mcgm", "method.subjects.token_lr": 0.1}, "data=scene"),
        ({"data.split_by": "all"}, "data=flickr30k"),
        ({**SEPARATE, "method.separate.kernel": 1, "method.separate.sigma": 2.0}, "not 1"),
    ],
)
def test_what_nothing_reads_is_refused_with_its_value_and_where_it_is_read(
    words: dict[str, Any], cure: str
) -> None:
    key, value = list(words.items())[-1]
    with pytest.raises(ValueError, match=rf"{key}={value} with .*: nothing reads it") as refused:
        check_read([conf.replace(Run(), words)], [key])
    assert cure in str(refused.value)


def test_what_one_of_several_trials_reads_is_read() -> None:
    runs = [conf.replace(Run(), {"method": name}) for name in ("maskattn", "mcgm")]
    check_read(runs, ["method.masks.lambda_m", "method.gate.bias"])
    with pytest.raises(ValueError, match=r"method\.separate\.scale"):
        check_read(runs, ["method.masks.lambda_m", "method.separate.scale"])


def test_what_methods_and_data_sets_declare_are_settings() -> None:
    for method in methods().values():
        assert {*method.unread, *method.reads_alone, *method.learns_with} <= SETTINGS.keys()
        for start, conditions in method.read_if.items():
            assert any(key.startswith(start) for key in SETTINGS)
            for name, values in conditions.items():
                kinds = {data.kind for data in data_sets().values()}
                setting = SETTINGS.get(name)
                assert all(setting.allows(v) if setting else v in kinds for v in values), name
    for data in data_sets().values():
        known = {*SETTINGS, *describe(Run).nodes}
        assert {f"data.{name}" for name in data.unread(Run())} <= known


def test_what_is_read_after_training_alone_is_read() -> None:
    config = conf.replace(Run(), {"method.gate.mode": "topk"})
    config.evaluate_with = {"method.gate.mode": "hard"}
    assert why_unread(config, "method.gate.threshold") == ""


def test_conditions_name_settings_and_values_that_there_are() -> None:
    count = 0
    for key, setting in SETTINGS.items():
        for name, values in [*setting.only_if.items(), *setting.unless.items()]:
            if name == "data.kind":
                assert "data.name" in deciding_keys(key)
                continue
            other = SETTINGS[name if "." in name else f"{key.rpartition('.')[0]}.{name}"]
            assert other.name in [k.rpartition(".")[2] for k in deciding_keys(key)]
            assert values and all(other.allows(value) for value in values), (key, name)
            count += 1
    assert count > 10


def test_rates_and_weights_are_logarithmic_and_nothing_else() -> None:
    def is_rate_or_weight(name: str) -> bool:
        known = ("lr", "weight_decay", "lambda_m", "step_size", "beta")
        return name in known or name.endswith(("_weight", "_lr"))

    for key, setting in SETTINGS.items():
        numeric = setting.kind in (int, float)
        assert setting.log == (numeric and is_rate_or_weight(setting.name)), key
        if setting.log:
            assert {*setting.limits} & {"minimum", "above"} and min(setting.limits.values()) == 0
