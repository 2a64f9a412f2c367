"""Separate-and-Enhance: its losses on the right maps, what is trained, the controls, adapters,
adaptation to one prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.architectures import build_unet
from helpers.marks import slow
from helpers.training_steps import denoised, draws, loss, run_step, values
from safetensors.torch import load_file

from conf import load as conf
from conf.schema import Method as MethodConfig
from conf.schema import Run, Separate, Trainer, Weights
from datamodules.batch import Batch, Phrase
from datamodules.concepts import ConceptDataset
from datamodules.phrases.tagger import name_objects
from lightning_modules import SeparateEnhance
from lightning_modules.attention import select, sites
from lightning_modules.attention.capture import Capture
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.embedded.pipeline import CONTEXT
from lightning_modules.methods.base import Method
from lightning_modules.networks.trained_weights import TrainedWeights
from lightning_modules.training.checks import check
from lightning_modules.training.run import run
from losses.attention import enhance_loss, separate_loss

NOWHERE = torch.zeros(0, 0, dtype=torch.bool)


def sepen(
    backbone: Backbone,
    part: str = "k",
    rank: int = 0,
    recipe: Trainer | None = None,
    **separate: Any,
) -> SeparateEnhance:
    torch.manual_seed(3)
    config = MethodConfig(
        "separate_enhance", weights=Weights(part, rank), separate=Separate(**separate)
    )
    return SeparateEnhance(backbone, config, recipe or Trainer(steps=4, warmup=0, lr=1e-2), 64)


def prompts() -> Batch:
    """Three objects, two and one."""
    captions = [
        ("a red circle, a blue square and a green ring"),
        "a white cross and an orange square",
        "a cyan diamond",
    ]
    named = [
        ["red circle", "blue square", "green ring"],
        ["white cross", "orange square"],
        ["cyan diamond"],
    ]
    phrases = [
        [
            Phrase(words, text.index(words), text.index(words) + len(words), NOWHERE)
            for words in sample
        ]
        for text, sample in zip(captions, named, strict=True)
    ]
    return Batch([0, 1, 2], captions, phrases=phrases)


def terms(method: SeparateEnhance, batch: Batch | None = None) -> dict[str, float]:
    return values(method, batch or prompts())


def shake(method: SeparateEnhance, size: float = 0.05) -> None:
    with torch.no_grad():
        for parameter in method.weights.parameters():
            parameter += size * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
            )


# --- losses --------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", ["each", "mean"])
def test_losses_are_those_of_the_captured_maps_of_all_samples(embedded: Backbone, heads: str):
    method = sepen(embedded, heads=heads, distillation_weight=0.0, kernel=5, sigma=1.0)
    found, batch = terms(method), prompts()
    step = method.prepare(batch, draws(method))
    tokens = [
        embedded.text.token_indices(text, [p.text for p in named])
        for text, named in zip(batch.captions, batch.phrases or [], strict=True)
    ]
    part = Capture(method.map_sites, tokens, "keep" if heads == "each" else "mean")
    with torch.no_grad(), part.attached(embedded.unet) as capture:
        method.predict(step.noised, step.timesteps, step.text)
    maps, present = capture.maps.mean(), capture.maps.present
    assert maps.dim() == (5 if heads == "each" else 4) and present.sum(1).tolist() == [3, 2, 1]
    assert found["separate"] == pytest.approx(float(separate_loss(maps, present)), rel=1e-4)
    assert found["enhance"] == pytest.approx(float(enhance_loss(maps, present, 5, 1.0)), rel=1e-4)


def test_every_sample_counts(embedded: Backbone):
    method, batch = sepen(embedded, distillation_weight=0.0), prompts()
    assert batch.phrases is not None
    for left_out in range(3):
        fewer = Batch(
            batch.ids,
            batch.captions,
            phrases=[[] if i == left_out else named for i, named in enumerate(batch.phrases)],
        )
        assert terms(method, fewer)["enhance"] < terms(method)["enhance"]


def test_the_total_is_the_weighted_sum(embedded: Backbone):
    method = sepen(embedded, separate_weight=2.0, enhance_weight=0.25, distillation_weight=3.0)
    shake(method)
    total, tensors = run_step(method, prompts())
    logged = {name: float(value) for name, value in tensors.items()}
    wanted = (
        2 * logged["train/separate"] + 0.25 * logged["train/enhance"] + 3 * logged["train/drift"]
    )
    assert float(total.detach()) == pytest.approx(wanted, rel=1e-5) == logged["train/loss"]
    assert logged["train/drift"] > 1e-6


def test_drift_is_zero_at_the_start_and_leaves_the_weights_in_place(embedded: Backbone):
    method = sepen(embedded)
    assert terms(method)["drift"] < 1e-12 and method.weights.is_installed
    shake(method)
    assert terms(method)["drift"] > 1e-6 and method.weights.is_installed


@pytest.mark.parametrize(
    ("which", "wanted"),
    [("phrase", [[2, 3], [6, 7], [10, 11]]), ("last", [[3], [7], [11]]), ("released", [[6], [9]])],
)
def test_tokens_that_stand_for_an_object(embedded: Backbone, which: str, wanted: list[list[int]]):
    assert sepen(embedded, tokens=which)._object_tokens(prompts())[0] == wanted


# --- what is trained ------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["k", "attn2", *slow("q", "v", "kv")])
def test_gradient_reaches_the_chosen_projections_and_nothing_else(embedded: Backbone, part: str):
    method = sepen(embedded, part)
    shake(method)
    loss(method, prompts()).backward()
    own = dict(method.weights.named_parameters())
    assert all(p.grad is not None for p in own.values()) and any(
        float(p.grad.abs().max()) > 0 for p in own.values() if p.grad is not None
    )
    names = {name.split(".attn2.")[1].split(".")[0] for name in own}
    assert (
        names
        == {
            "q": {"to_q"},
            "k": {"to_k"},
            "v": {"to_v"},
            "kv": {"to_k", "to_v"},
            "attn2": {"to_q", "to_k", "to_v", "to_out"},
        }[part]
    )
    mine = set(method.parameters())
    assert not any(
        p.grad is not None
        for module in (embedded.unet, embedded.vae, *embedded.text.encoders)
        for p in module.parameters()
        if p not in mine
    )


@pytest.mark.parametrize("part, rank", [("k", 0), *slow(("kv", 2), ("model", 0))])
def test_a_gradient_taken_early_is_the_same(embedded: Backbone, part: str, rank: int):
    gradients = []
    for precision in ("32-true", "16-mixed"):  # the second takes all at once
        method = sepen(embedded, part, rank, Trainer(steps=4, warmup=0, precision=precision))
        shake(method)
        total, found = run_step(method, prompts())
        assert (
            torch.allclose(
                total,
                found["train/separate"] + 0.5 * found["train/enhance"] + found["train/drift"],
            )
            and float(found["train/drift"]) > 0
        )
        total.backward()
        gradients.append(
            {name: p.grad for name, p in method.weights.named_parameters() if p.grad is not None}
        )
        method.remove()
    early, late = gradients
    assert early.keys() == late.keys() and any(
        float(grad.abs().max()) > 0 for grad in late.values()
    )
    assert all(torch.equal(early[name], grad) for name, grad in late.items())


def test_of_the_maps_nothing_is_kept_when_the_losses_are_computed(embedded: Backbone):
    method = sepen(embedded)
    step = denoised(method, prompts())
    method.losses(step)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        step.maps.mean().sum().backward()


def test_the_counts_of_the_papers_models():
    for name, layers, count in (("sd14", 16, 9_584_640),):
        unet = build_unet(name)
        weights = TrainedWeights(unet, "k", select(sites(unet)))
        assert len(list(weights.parameters())) == layers and count in (
            None,
            weights.parameter_count(),
        )


def test_training_lowers_the_losses(embedded: Backbone):
    method, batch = (
        sepen(embedded, recipe=Trainer(steps=30, warmup=0, lr=2e-2), distillation_weight=0.0),
        prompts(),
    )
    optimizer = torch.optim.Adam(method.weights.parameters(), lr=2e-2)
    before = terms(method)
    for _ in range(8):
        optimizer.zero_grad()
        loss(method, batch).backward()
        optimizer.step()
    after = terms(method)
    assert after["enhance"] < before["enhance"] - 0.01


# --- runs, adapters, controls ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"data.concepts": ["red circle", "blue square", "ring"]},
        {"method.separate.control": "denoising"},
    ],
    ids=str,
)
@pytest.mark.slow
def test_a_run_trains_evaluates_and_measures_maps(base: Run, tmp_path: Path, more: dict[str, Any]):
    config = conf.replace(
        base,
        {
            "method": "separate_enhance",
            "evaluation.attention": True,
            "evaluation.splits": ["heldout", "one"],
            "seed": 11,
            **more,
        },
    )
    result = run(config, tmp_path)
    assert {
        "eval/success_heldout",
        "eval/success_one",
        "eval/map_overlap",
        "eval/map_activation",
    } <= result["metrics"].keys()
    assert result["counts"]["trained_parameters"] > 0
    assert all((tmp_path / name).exists() for name in ("maps.png", "heatmaps.png", "heatmaps.json"))
    assert (
        result["metrics"]["eval/map_overlap"] < 0.5
        and 0 < result["metrics"]["eval/map_activation"] < 1
    )
    table = pd.read_parquet(tmp_path / "scores.parquet")
    assert table.loc[table["split"] == "one", "map_activation"].isna().all()
    for key in ("map_overlap", "map_activation"):
        assert table[key].mean() == pytest.approx(result["metrics"][f"eval/{key}"], abs=1e-6)


def test_the_adapter_holds_the_projections_alone_and_loads_into_a_stock_unet(
    embedded: Backbone, tiny_folder: Path, tmp_path: Path
):
    method = sepen(embedded)
    shake(method, 0.2)
    ours = method.generate(["a red circle and a blue square"], [5], None, 2, 3.0)
    method.save_adapter(tmp_path)
    saved = load_file(tmp_path / "adapter.safetensors")
    assert set(saved) == {f"{site.name}.to_k.weight" for site in select(embedded.sites(64))}
    loaded = Method.load_adapter(tmp_path, Backbone.load(str(tiny_folder)))

    def apart() -> int:
        return int(
            (
                loaded.generate(["a red circle and a blue square"], [5], None, 2, 3.0).int()
                - ours.int()
            )
            .abs()
            .max()
        )

    assert apart() <= 1
    loaded.remove()
    assert apart() > 5, "it can be switched off"
    file = next((tmp_path / "stock").glob("*.safetensors"))
    _, unexpected = loaded.backbone.unet.load_state_dict(load_file(file), strict=False)
    assert not unexpected and apart() <= 1


def test_a_permuted_change_has_the_same_entries_elsewhere(embedded: Backbone):
    method = sepen(embedded)
    start = method.weights.tensors()
    shake(method)
    learnt = {name: tensor - start[name] for name, tensor in method.weights.tensors().items()}
    method.scale_change(1.0, permuted=True)
    for name, tensor in method.weights.tensors().items():
        change = tensor - start[name]
        assert not torch.allclose(change, learnt[name], atol=1e-4)
        assert torch.allclose(
            change.flatten().sort().values, learnt[name].flatten().sort().values, atol=1e-6
        )


def test_a_scale_of_zero_is_the_untouched_backbone(embedded: Backbone):
    method = sepen(embedded)
    start = method.weights.tensors()
    shake(method)
    whole = method.weights.tensors()
    method.scale_change(0.5)
    assert all(
        torch.allclose(t, (start[n] + whole[n]) / 2, atol=1e-6)
        for n, t in method.weights.tensors().items()
    )
    method.scale_change(0.0)
    assert all(torch.equal(t, start[n]) for n, t in method.weights.tensors().items())


def test_adaptation_to_a_prompt_changes_its_image_and_is_undone(embedded: Backbone):
    recipe = Trainer(steps=4, warmup=0, lr=5e-2, batch=2)
    method, texts = (
        sepen(embedded, recipe=recipe, test_time=1),
        ["a red circle and a blue square", "a green ring above a white cross"],
    )
    assert not method.trains
    start = method.weights.tensors()
    both = method.generate([*texts, texts[0]], [1, 2, 1], None, 2, 3.0)
    assert all(
        torch.equal(tensor, start[name]) for name, tensor in method.weights.tensors().items()
    )
    plain = Method.generate(method, texts, [1, 2], None, 2, 3.0)
    assert (
        not torch.equal(both[0], plain[0])
        and not torch.equal(both[1], plain[1])
        and torch.equal(both[0], both[2])
    )
    known = [[Phrase("red circle", 2, 12, NOWHERE)], *map(name_objects, texts[1:])]
    told = method.generate(texts, [1, 2], None, 2, 3.0, objects=known)
    assert method.takes_objects and torch.equal(told[1], both[1])
    assert not torch.equal(told[0], both[0]), "the objects are those that are given"
    alone = method.generate(texts[1:], [2], None, 2, 3.0)
    assert int((alone[0].int() - both[1].int()).abs().max()) <= 2, (
        "no prompt's adaptation reaches another"
    )
    with pytest.raises(
        ValueError, match=("prompt 'above' names nothing to separate or enhance: expected a noun")
    ):
        method.generate(["above"], [0], None, 2, 3.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data.concepts": ["red circle"]},
            (r"data.concepts=\['red circle'\] make no prompt of " r"data.objects=2"),
        ),
        (
            {
                "method.separate.separate_weight": 0,
                "method.separate.enhance_weight": 0,
                "method.separate.distillation_weight": 0,
            },
            "no loss of a weight",
        ),
        (
            {"data.concepts": ["a", "b"], "method.separate.inputs": "images"},
            ("inputs=images, control=none with data.concepts"),
        ),
        (
            {"data.concepts": ["a"], "data.objects": 1, "method.separate.enhance_weight": 0},
            ("a single object has nothing to be separated from"),
        ),
        (
            {"data.concepts": ["a", "b"], "method.separate.objects": "nouns"},
            "objects=nouns with data.concepts",
        ),
        ({"method.separate.kernel": 4}, "method.separate.kernel=4 has no middle"),
        (
            {"method.weights.trainable": "none"},
            ("weights.trainable=none with method=separate_enhance: nothing would be trained"),
        ),
        (
            {"method.weights.rank": 2, "evaluate_with": {"method.separate.scale": 0.5}},
            "scale=0.5 with method.weights.rank=2",
        ),
        (
            {"method.separate.test_time": 2, "method.separate.inputs": "images"},
            "test_time has a prompt and no image",
        ),
        ({"method": "maskattn", "data.concepts": ["a", "b"]}, "data.concepts with method=maskattn"),
    ],
)
def test_what_does_not_go_together_is_refused(base: Run, changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        check(conf.replace(base, {"method": "separate_enhance"} | changes))


@pytest.mark.parametrize(
    ("concept", "objects", "message"),
    [
        (
            "red " * CONTEXT + "ring",
            2,
            (
                "data.objects=2: phrase .* is cut off: .* the "
                f"encoder reads {CONTEXT} with EOS; shorten the caption"
            ),
        ),
        ("red ring", 12, "data.objects=12: phrase .* is cut off"),
    ],
)
def test_concepts_that_no_prompt_can_hold_are_refused(
    embedded: Backbone, concept: str, objects: int, message: str
):
    fine = [
        f"{color} {shape}"
        for color in ("blue", "green", "cyan", "white")
        for shape in ("square", "ring", "cross")
    ]
    method = sepen(embedded)
    method.check_data(ConceptDataset(fine, template="{}"))
    with pytest.raises(ValueError, match=message):
        method.check_data(ConceptDataset([*fine, concept], objects, template="{}"))


def test_a_run_refuses_concepts_before_it_trains(base: Run, tmp_path: Path):
    strange, long = ["red circle", "dog"], ["red " * CONTEXT + "ring", "cross"]
    for concepts, message in (
        (strange, "names 'dog': the embedded world knows"),
        (long, "cut off"),
    ):
        with pytest.raises(ValueError, match=message):
            run(
                conf.replace(base, {"method": "separate_enhance", "data.concepts": concepts}),
                tmp_path,
            )
    assert not list((Path(base.output) / "adapters").glob("*checkpoints"))


def test_objects_are_what_is_linked_or_any_noun_phrase(embedded: Backbone):
    text = "a red circle and a blue square"
    linked = Batch([0], [text], phrases=[[Phrase("blue square", 19, 30, NOWHERE)]])
    first = sepen(embedded)
    assert first._object_tokens(linked) == [[[6, 7]]]
    first.remove()
    nouns = sepen(embedded, objects="nouns")
    assert nouns._object_tokens(Batch([0], [text])) == [[[2, 3], [6, 7]]]
    assert nouns._object_tokens(linked) == [[[6, 7]]], "what the data know goes first"
    assert terms(nouns, Batch([0], [text]))["drift"] < 1e-12
