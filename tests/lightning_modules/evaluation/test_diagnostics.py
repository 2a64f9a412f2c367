"""What the probe says of the objects' maps, before and after a change of the keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from conf.schema import Evaluation, Trainer
from conf.schema import Method as MethodConfig
from datamodules import ShapesDataModule
from lightning_modules import Untouched
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.evaluation.diagnostics import AttentionProbe, draw_heatmaps
from lightning_modules.evaluation.plan import plan
from losses.attention import enhance_loss, separate_loss


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ShapesDataModule:
    datamodule = ShapesDataModule(
        tmp_path_factory.mktemp("world"), train_images=4, eval_images=8, eval_splits=("val", "one")
    )
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def baseline(backbone: Backbone) -> Untouched:
    return Untouched(backbone, MethodConfig("untouched"), Trainer(), 64)


def test_means_are_over_the_images_that_have_enough_objects(
    embedded: Backbone, world: ShapesDataModule
):
    probe = AttentionProbe(baseline(embedded), world.eval_sets["val"], 0, 8)
    found, maps = probe.measure(), probe.run()
    every, present = maps.mean(), maps.present
    several = [i for i in range(8) if int(present[i].sum()) > 1]
    assert 0 < len(several) < 8, "the first scenes are of one object and of more"
    one_by_one = [float(separate_loss(every[i : i + 1], present[i : i + 1])) for i in several]
    assert found["map_overlap"] == pytest.approx(sum(one_by_one) / len(several), rel=1e-4)
    peaks = [1 - float(enhance_loss(every[i : i + 1], present[i : i + 1])) for i in range(8)]
    assert found["map_activation"] == pytest.approx(sum(peaks) / 8, rel=1e-4)


def test_single_objects_have_no_overlap_and_no_caption_no_measure(
    embedded: Backbone, world: ShapesDataModule
):
    probe = AttentionProbe(baseline(embedded), world.eval_sets["one"], 0, 4)
    assert probe.measure().keys() == {"map_activation"}
    probe.kept, probe.positions = [[[] for _ in probe.captions] for _ in range(2)]
    assert probe.measure() == {}


def test_the_probe_sees_what_a_change_of_the_keys_does(embedded: Backbone, world: ShapesDataModule):
    probe = AttentionProbe(baseline(embedded), world.eval_sets["val"], 0, 8)
    before, again = probe.measure(), probe.measure()
    assert before == pytest.approx(again, rel=1e-5)
    with torch.no_grad():
        for site in embedded.sites(64):
            if site.kind == "cross":
                embedded.unet.get_submodule(site.name).to_k.weight.zero_()
    flat = probe.measure()
    length = embedded.text.tokenizers[0].model_max_length
    assert flat["map_activation"] == pytest.approx(1 / length, rel=1e-4), (
        "attention is uniform over the text"
    )


def test_pictures_name_prompts_objects_and_peaks(
    embedded: Backbone, world: ShapesDataModule, tmp_path: Path
):
    probe = AttentionProbe(baseline(embedded), world.eval_sets["val"], 0, 8)
    probe.draw(tmp_path)
    told = json.loads((tmp_path / "maps.json").read_text())
    assert len(told) == 4 and [entry["timestep"] for entry in told] == sorted(
        (e["timestep"] for e in told), reverse=True
    )
    assert {entry["prompt"] for entry in told} == set(probe.captions[:4])
    for entry in told:
        assert len(entry["objects"]) == len(entry["peak"]) and all(
            0 < peak <= 1 for peak in entry["peak"]
        )
        assert all(name in entry["prompt"] for name in entry["objects"])
    assert min(Image.open(tmp_path / "maps.png").size) > 100
    probe.kept, probe.positions = [[[] for _ in probe.captions] for _ in range(2)]
    probe.draw(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_words_of_generated_images_are_drawn_and_measured_at_target_masks(
    embedded: Backbone, world: ShapesDataModule, tmp_path: Path
):
    config = Evaluation(splits=["one", "val"], prompts=2, noise_seeds=2, steps=2, follow_masks=True)
    prompts = plan(world, config, 0)
    method = baseline(embedded)
    draw_heatmaps(method, world, config, prompts, tmp_path)
    told = json.loads((tmp_path / "heatmaps.json").read_text())
    own = [p for p in prompts if p.split == "one" and p.number == 0]
    assert [(entry["prompt"], entry["seed"]) for entry in told] == [(p.text, p.noise) for p in own]
    for entry, prompt in zip(told, own, strict=True):
        assert [each["word"] for each in entry["words"]] == prompt.text.split()
        assert entry["passes"] == 2 and not entry["cut"]
        assert [each["phrase"] for each in entry["iou"]] == [p.text for p in prompt.phrases]
        assert all(0 <= each["iou"] <= 1 for each in entry["iou"])
    assert min(Image.open(tmp_path / "heatmaps.png").size) > 100
    draw_heatmaps(method, world, config, [], tmp_path / "none")
    assert not (tmp_path / "none").exists()
