from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from datamodules.shapes.rendering import SIZE
from datamodules.shapes.vocabulary import COLORS, HELD_OUT, PATTERNS, PLAIN, SHAPES
from lightning_modules.embedded import judge_card, judge_training
from lightning_modules.embedded.judge import Judge
from lightning_modules.embedded.judge_data import (
    blur,
    draw_batch,
    fresh_scenes,
    kinds_of_scenes,
    make_pool,
)
from lightning_modules.embedded.judge_networks import NETWORKS, build_network

SMALL = {"fine_coarse": {"width": 16, "deep": 32}, "dilated_attention": {"width": 16, "heads": 2}}


@pytest.fixture(scope="module")
def pool():
    return make_pool(120)


def test_pool_is_deterministic_and_its_labels_are_distributions(pool):
    again = make_pool(6)
    assert torch.equal(again.images, pool.images[:6])
    for a, b in zip(again.labels, pool.labels, strict=True):
        assert torch.equal(a, b[:6])
    real = pool.labels.presence > 0
    assert 120 < int(real.sum()) <= 6 * 120
    assert pool.labels.presence.max() <= 1
    # Faint and cut objects have soft targets
    assert ((pool.labels.presence > 0.05) & (pool.labels.presence < 0.95)).any()
    for classes in (pool.labels.shape, pool.labels.color, pool.labels.pattern):
        torch.testing.assert_close(classes.sum(-1)[real], torch.ones(int(real.sum())))
        assert (classes.max(-1).values[real] < 0.9).any()
    assert pool.labels.place[real].min() > 0 and pool.labels.place[real].max() < SIZE


def test_pool_holds_the_combinations_that_data_sets_hold_out(pool):
    colors, shapes = tuple(COLORS), SHAPES
    sure = pool.labels.presence == 1
    pairs = {
        (colors[int(c.argmax())], shapes[int(s.argmax())])
        for c, s in zip(pool.labels.color[sure], pool.labels.shape[sure], strict=True)
    }
    assert pairs >= HELD_OUT


def test_pool_has_patterns_on_what_is_large_enough(pool):
    radius, pattern = pool.labels.place[..., 2], pool.labels.pattern
    plain = pattern[..., PATTERNS.index(PLAIN)]
    patterned = (pattern.sum(-1) > 0) & (plain < 0.5)
    assert patterned.any() and radius[patterned].min() > 8
    # Hardly shown stripes and dots are in doubt
    assert ((plain > 0.05) & (plain < 0.95)).any()
    assert not torch.equal(make_pool(2, 5).images, pool.images[:2])  # Another seed, other renders


def test_batches_are_deterministic_and_mirrored_labels_follow(pool):
    images, labels = draw_batch(pool, 64, seed=3)
    again, _ = draw_batch(pool, 64, seed=3)
    assert torch.equal(images, again) and not torch.equal(images, draw_batch(pool, 64, seed=4)[0])
    assert images.abs().max() <= 1
    # Around every certain object the image differs from the ground more than elsewhere, wherever
    # the mirror put it.
    for image, place, presence in zip(images, labels.place, labels.presence, strict=True):
        contrast = (image - image.flatten(1).median(1).values[:, None, None]).abs().amax(0)
        for (x, y, r), p in zip(place.tolist(), presence.tolist(), strict=True):
            if p == 1:
                near = contrast[
                    max(0, int(y - r)) : int(y + r) + 1, max(0, int(x - r)) : int(x + r) + 1
                ]
                assert near.mean() > 0.9 * contrast.mean()


def test_blur_keeps_the_mean_and_spreads_a_point():
    image = torch.zeros(1, 3, 21, 21)
    image[..., 10, 10] = 1
    out = blur(image, 1.5)[0, 0]
    assert float(out.sum()) == pytest.approx(1, abs=1e-5)
    at = torch.arange(21.0) - 10
    assert float((out.sum(0) * at**2).sum()) == pytest.approx(1.5**2, rel=0.05)


@pytest.mark.parametrize("architecture", NETWORKS)
def test_loss_reaches_every_parameter_and_a_batch_is_learnt(pool, architecture):
    torch.manual_seed(0)
    network = build_network({"architecture": architecture, **SMALL[architecture]})
    images, labels = draw_batch(pool, 8, seed=0)
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    losses = []
    for _ in range(25):
        terms = judge_training.judge_loss(network(images), labels)
        loss = sum(terms.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())
    assert losses[-1] < 0.5 * losses[0]


def test_empty_images_have_a_finite_loss():
    network = build_network({"architecture": "fine_coarse", **SMALL["fine_coarse"]})
    sizes = ((3,), (), (len(SHAPES),), (len(COLORS),), (len(PATTERNS),))
    labels = judge_training.Labels(*(torch.zeros(2, 4, *size) for size in sizes))
    terms = judge_training.judge_loss(network(torch.zeros(2, 3, 64, 64)), labels)
    sum(terms.values()).backward()
    assert all(bool(torch.isfinite(term)) for term in terms.values())
    assert all(
        bool(torch.isfinite(p.grad).all()) for p in network.parameters() if p.grad is not None
    )


@pytest.mark.slow
def test_resumed_training_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(judge_training, "CHUNK", 2)

    def train(folder: Path) -> Judge:
        return judge_training.train(
            judge_training.arguments(
                ["--output", str(folder), "--steps", "6", "--batch", "2", "--pool", "12"]
            )
        )[0]

    whole = train(tmp_path / "whole")
    step = judge_training.JudgeTraining.training_step

    def interrupted(self, batch, index):
        if self.global_step == 5:
            raise RuntimeError("power cut")
        return step(self, batch, index)

    monkeypatch.setattr(judge_training.JudgeTraining, "training_step", interrupted)
    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path / "parts")
    monkeypatch.setattr(judge_training.JudgeTraining, "training_step", step)
    resumed = train(tmp_path / "parts")
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[key], value, msg=key)


@pytest.mark.slow
def test_command_writes_weights_config_and_card(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(judge_training, "CHUNK", 1)
    judge_training.main(
        ["--output", str(tmp_path), "--steps", "2", "--batch", "2", "--pool", "4", "--measure", "3"]
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "training.json",
    ]
    card = (tmp_path / "README.md").read_text()
    assert (
        "2 steps of 2 images" in card
        and "| none | 0.0000 |" in card
        and "network `fine_coarse`" in card
        and card in capsys.readouterr().out
    )
    assert json.loads((tmp_path / "training.json").read_text())["steps"] == 2
    # What a person wrote about the errors outlives another measurement.
    (tmp_path / "README.md").write_text(
        card + (f"\n{judge_card.SEEN_WITH_EYES}\n\nIt knows nothing yet.\n")
    )
    judge_training.main(["--output", str(tmp_path), "--measure", "2", "--measure-only"])
    assert (tmp_path / "README.md").read_text().endswith("\n\nIt knows nothing yet.\n")
    assert torch.isfinite(
        Judge.load(tmp_path).features(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    ).all()


def test_kinds_of_scenes_are_what_they_are_called():
    kinds = kinds_of_scenes(6, 3)
    assert all(len(scenes) == 6 for scenes in kinds.values())
    for kind, scenes in kinds.items():
        for scene in scenes:
            looks = {thing.size for thing in scene.things} | {t.pattern for t in scene.things}
            assert kind not in ("small", "large", "striped", "dotted") or kind in looks
            assert kind[0] not in "12345" or len(scene.things) == int(kind[0])
            assert kind != "related" or scene.relation


def test_fresh_scenes_show_held_out_combinations_when_asked():
    for objects in (1, 2, 3):
        assert all(
            any((t.color, t.shape) in HELD_OUT for t in s.things)
            for s in fresh_scenes(20, objects, True)
        )
        assert not any(
            (t.color, t.shape) in HELD_OUT
            for s in fresh_scenes(20, objects, False)
            for t in s.things
        )
