"""Fine-tuning on a reward: images that are drawn and scored once, what of them is trained on, both
objectives, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.training_steps import denoised, run_step
from safetensors.torch import load_file
from torch import Tensor

from conf import load as conf
from conf.method.reward_finetune import REWARDS
from conf.schema import Run
from datamodules.batch import Batch, Caption, collate
from datamodules.rewarded import RewardedDataset, Sample, keep_above, pair_by_margin
from lightning_modules import RewardFinetune
from lightning_modules.backbone import sampling
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.embedded.judge import Judge
from lightning_modules.methods import reward_finetune as module
from lightning_modules.methods.registry import build_method
from lightning_modules.methods.reward_images import select_captions
from lightning_modules.methods.rewards import BUILDERS
from lightning_modules.training import run as train
from lightning_modules.training.checks import check
from losses.rewards import denoising_errors, preference_loss, reward_weighted_loss

CAPTIONS = ["a red circle", "a blue square", "a circle", "a red circle", "a cyan ring"]


def silent(text: str, share: float) -> None:
    pass


def settings(base: Run, output: Path, **changes: Any) -> Run:
    given = {
        "method.name": "reward_finetune",
        "method.weights.rank": 2,
        "method.reward_finetune.captions": 3,
        "method.reward_finetune.noises": 2,
        "method.reward_finetune.steps": 2,
        "trainer.batch": 2,
        "output": str(output),
    }
    return conf.replace(
        base, given | {key.replace("__", "."): value for key, value in changes.items()}
    )


class ByBrightness:
    """A reward: how bright an image is; it reads no caption without a colour."""

    def __init__(self) -> None:
        self.facts = {"reward": "brightness"}
        self.calls = 0

    def explain_unreadable(self, prompt: str) -> str:
        return "no colour" if prompt == "a circle" else ""

    def score(self, prompts: Any, images: Tensor) -> list[float]:
        self.calls += 1
        return (images.float().flatten(1).mean(1) / 255).tolist()


@pytest.fixture
def reward(monkeypatch: pytest.MonkeyPatch) -> ByBrightness:
    own = ByBrightness()
    monkeypatch.setattr(module, "build_reward", lambda name: own)
    return own


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], list[int]]]:
    """Prompts and seeds of all that is sampled; what is drawn is grey, brighter for each seed."""
    calls: list[tuple[list[str], list[int]]] = []

    def sample(
        backbone: Any,
        prompts: list[str],
        seeds: list[int],
        steps: int,
        guidance: float,
        side: int,
        batch: int,
    ) -> Tensor:
        calls.append((prompts, seeds))
        return torch.stack(
            [torch.full((3, side, side), 51 * (seed % 6), dtype=torch.uint8) for seed in seeds]
        )

    monkeypatch.setattr(sampling, "sample", sample)
    return calls


class Captions:
    """A training set of captions alone."""

    def __init__(self, captions: list[str] = CAPTIONS) -> None:
        self.captions, self.manifest = captions, {"prompts": len(captions)}

    def __len__(self) -> int:
        return len(self.captions)

    def caption(self, index: int) -> Caption:
        return Caption(self.captions[index])

    def digest(self) -> str:
        return "of the captions"


def extend(
    config: Run, backbone: Backbone, emit: Any = silent, source: Any = None
) -> RewardedDataset:
    data = SimpleNamespace(train_set=source or Captions())
    method = build_method(config, backbone)
    method.remove()
    method.extend_data(config, data, emit)
    return data.train_set


# --- images and scores ----------------------------------------------------------------------------


def test_images_are_drawn_and_scored_once(
    base: Run, embedded: Backbone, tmp_path: Path, drawn: list, reward: ByBrightness
) -> None:
    config, lines = settings(base, tmp_path), []
    found = extend(config, embedded, lambda text, share: lines.append(text))
    wanted = [name for name in ("a red circle", "a blue square", "a cyan ring") for _ in range(2)]
    assert drawn == [(wanted, [0, 1, 2, 3, 4, 5])] and reward.calls == 1
    assert found.captions == wanted
    assert found.rewards == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert [sample.image for sample in found.samples] == [3, 4, 5], "above the threshold of .5"
    assert lines == [
        "images to be scored: 6/6",
        "rewards: 6/6",
        "rewards: mean 0.500 of 6 images; training on 3 images",
    ]
    assert len(found) == 3 and found.encodable == 6 and found.content_digest() == "of the captions"
    assert found.manifest["of"] == {"prompts": 5} and json.dumps(found.manifest)

    # Seeds, objectives and thresholds share them; nothing is drawn or scored again
    other = {"seed": 3, "method__reward_finetune__threshold": 0.3}
    assert len(extend(settings(base, tmp_path, **other), embedded)) == 4
    pairs = extend(
        settings(base, tmp_path, method__reward_finetune__objective="preference"), embedded
    )
    assert [tuple(sample) for sample in pairs.samples] == [(1, 0), (3, 2), (5, 4)]
    assert len(drawn) == 1 and reward.calls == 1
    # Another number of steps does not
    extend(settings(base, tmp_path, method__reward_finetune__steps=3), embedded)
    assert len(drawn) == 2 and reward.calls == 2
    # Another reward looks at the same images
    reward.facts = {"reward": "another"}
    extend(config, embedded)
    assert len(drawn) == 2 and reward.calls == 3


def test_what_was_cut_off_is_made_again(
    base: Run, embedded: Backbone, tmp_path: Path, drawn: list, reward: ByBrightness
) -> None:
    config = settings(base, tmp_path)
    first = extend(config, embedded)
    whole = [path.read_bytes() for path in first.images]
    first.images[1].unlink()  # As where drawing was interrupted
    first.images[4].write_bytes(whole[4][:60])
    (scores,) = first.images[0].parent.glob("rewards-*.json")
    scores.write_text(scores.read_text()[:40])
    lines: list[str] = []
    again = extend(config, embedded, lambda text, share: lines.append(text))
    assert [path.read_bytes() for path in again.images] == whole
    assert again.rewards == first.rewards and reward.calls == 2
    assert [line for line in lines if "damaged" in line] == [
        line for line in lines if first.images[4].name in line or scores.name in line
    ]
    assert sum("damaged" in line for line in lines) == 2
    # Scores of other pixels are no scores of these
    first.images[5].write_bytes(whole[0])
    lines.clear()
    third = extend(config, embedded, lambda text, share: lines.append(text))
    assert third.rewards[5] == 0.0 and reward.calls == 3 and len(drawn) == 2
    assert "of other images" in " ".join(lines)


def test_drawing_goes_on_after_an_interruption(
    base: Run,
    embedded: Backbone,
    tmp_path: Path,
    drawn: list,
    reward: ByBrightness,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample = sampling.sample

    def power_cut(*args: Any) -> Tensor:
        if len(drawn) == 1:
            raise KeyboardInterrupt
        return sample(*args)

    names = [f"a red circle and a blue square, {i}" for i in range(10)]
    config = settings(base, tmp_path, method__reward_finetune__captions=10)
    monkeypatch.setattr(sampling, "sample", power_cut)
    with pytest.raises(KeyboardInterrupt):
        extend(config, embedded, source=Captions(names))
    monkeypatch.setattr(sampling, "sample", sample)
    found = extend(config, embedded, source=Captions(names))
    assert [seeds[0] for _, seeds in drawn] == [0, 16] and found.encodable == 20


def test_captions_are_those_that_the_reward_reads() -> None:
    reward = ByBrightness()
    assert select_captions(Captions(), 2, reward) == ["a red circle", "a blue square"]
    assert select_captions(Captions(), 9, reward) == [
        "a red circle",
        "a blue square",
        "a cyan ring",
    ]
    records = [
        SimpleNamespace(captions=[Caption("a circle"), Caption("a red circle")]),
        SimpleNamespace(captions=[Caption("a red circle"), Caption("a red disc")]),
        SimpleNamespace(captions=[Caption("a circle")]),
    ]
    of_images = type("Set", (), {"__len__": lambda self: 3, "records": records})()
    assert select_captions(of_images, 9, reward) == ["a red circle", "a red disc"]
    with pytest.raises(ValueError, match="reads none of the training captions .no colour."):
        select_captions(Captions(["a circle"]), 2, reward)


def test_the_judge_reads_what_a_caption_asks_for() -> None:
    assert set(BUILDERS) == set(REWARDS)
    reward = BUILDERS["judge_reward"]()
    assert "no colour" in reward.explain_unreadable("a circle")
    assert reward.explain_unreadable("a red circle above a blue square") == ""
    assert reward.explain_unreadable("a photo of nothing")
    images = torch.randint(0, 255, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8)
    scores = reward.score(["a red circle", "a blue square"], images)
    other = BUILDERS["judge"]().score(["a red circle", "a blue square"], images)
    assert all(0 <= score <= 1 for score in scores) and scores != other
    assert isinstance(reward.judge, Judge)  # type: ignore[attr-defined]


def test_samples_are_above_the_threshold_or_pairs_of_a_caption() -> None:
    rewards = [0.9, 0.5, 0.1, 0.7, 0.75]
    assert keep_above(rewards, 0.5) == [Sample(0), Sample(3), Sample(4)]
    captions = ["a", "a", "a", "b", "b"]
    assert pair_by_margin(captions, rewards, 0.1) == [Sample(0, 1), Sample(0, 2), Sample(1, 2)]
    assert pair_by_margin(captions, rewards, 0.04)[-1] == Sample(4, 3)


# --- objectives -----------------------------------------------------------------------------------


def pictures(count: int = 3, seed: int = 2) -> Batch:
    images = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Batch([*range(count)], ["a red circle", "a cyan ring", "a blue square"][:count], images)


def shake(method: Any) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in method.weights.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def test_the_weighted_loss_is_the_pure_function(
    base: Run, embedded: Backbone, tmp_path: Path
) -> None:
    method = build_method(settings(base, tmp_path), embedded)
    shake(method)
    batch = pictures()
    batch.rewards = torch.tensor([0.9, 0.6, 0.0])
    step = denoised(method, batch)
    wanted = reward_weighted_loss(step.prediction, step.target, batch.rewards)
    total, logged = run_step(method, batch)
    assert float(logged["train/reward_weighted"]) == float(total.detach()) == float(wanted.detach())
    total.backward()
    assert any(
        float(p.grad.abs().max()) > 0 for p in method.weights.parameters() if p.grad is not None
    )


def test_pairs_share_noise_and_are_compared_with_the_frozen_backbone(
    base: Run, embedded: Backbone, tmp_path: Path
) -> None:
    changes = {"method__reward_finetune__objective": "preference"}
    config = settings(base, tmp_path, **changes, method__reward_finetune__beta=3000.0)
    method = build_method(config, embedded)
    batch = pictures()
    batch.worse = pictures(seed=5)
    _, logged = run_step(method, batch)
    # What is not trained yet is as good as the backbone
    assert float(logged["train/preference"]) == pytest.approx(math.log(2), rel=1e-6)
    shake(method)
    total, logged = run_step(method, batch)
    step, other = denoised(method, batch), denoised(method, batch.worse)
    assert torch.equal(step.timesteps, other.timesteps)
    errors = [denoising_errors(one.prediction, one.target) for one in (step, other)]
    with torch.no_grad(), method.weights.swapped_out():
        frozen = [
            denoising_errors(method.predict(one.noised, one.timesteps, one.text), one.target)
            for one in (step, other)
        ]
    wanted = preference_loss(*errors, *frozen, 3000.0)
    assert float(total.detach()) == pytest.approx(float(wanted.detach()), rel=1e-4)
    assert float(total.detach()) != pytest.approx(math.log(2), rel=1e-4)
    total.backward()
    assert all(p.grad is not None for p in method.weights.parameters())
    # The noise is the same: what the noised latents differ by is what the clean ones do
    apart = step.latents - other.latents
    clean, _ = embedded.schedule.add_noise(apart, torch.zeros_like(apart), step.timesteps)
    assert torch.allclose(step.noised - other.noised, clean, atol=1e-4)


def test_batches_carry_rewards_and_worse_images(
    base: Run, embedded: Backbone, tmp_path: Path, drawn: list, reward: ByBrightness
) -> None:
    pairs = extend(
        settings(base, tmp_path, method__reward_finetune__objective="preference"), embedded
    )
    batch = collate([pairs[0], pairs[2]])
    assert batch.worse is not None and batch.rewards is not None and batch.worse.rewards is not None
    assert batch.rewards.tolist() == pytest.approx([0.2, 1.0])
    assert batch.worse.rewards.tolist() == pytest.approx([0.0, 0.8])
    assert batch.captions == batch.worse.captions == ["a red circle", "a cyan ring"]
    assert batch.images is not None and float(batch.images[1].mean()) == pytest.approx(1.0)
    pairs.latents = torch.arange(6.0).view(6, 1, 1, 1)
    batch = collate([pairs[0], pairs[2]])
    assert batch.latents is not None and batch.worse is not None and batch.worse.latents is not None
    assert batch.latents.flatten().tolist() == [1.0, 5.0] and batch.images is None
    assert batch.worse.latents.flatten().tolist() == [0.0, 4.0]


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"method.reward_finetune.reward": "judge"},
            "reward=judge with evaluation.detector=judge: .* set method.reward_finetune.reward=",
        ),
        (
            {"method.reward_finetune.objective": "preference", "method.reward_finetune.noises": 1},
            "noises=1 with objective=preference: .* set noises to 2",
        ),
        (
            {"data.name": "coco", "data.root": "/nowhere", "evaluation.prompts": 0},
            "reward=judge_reward with data=coco: this judge reads .* set data=shapes",
        ),
        ({"method.weights.trainable": "none"}, "trainable=none with method=reward_finetune"),
        ({"data.flip": True}, "data.flip=true with method=reward_finetune.*set it to false"),
        ({"data.drop_captions": 0.1}, "data.drop_captions=0.1 with method=reward_finetune"),
        (
            {"evaluate_with": {"method.reward_finetune.threshold": 0.2}},
            "threshold cannot change after training",
        ),
    ],
)
def test_settings_that_cannot_serve_are_refused(
    base: Run, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        check(conf.replace(settings(base, tmp_path), changes))
    assert "\n" not in str(raised.value)


def test_the_measuring_judge_may_give_the_reward_where_it_does_not_measure(
    base: Run, tmp_path: Path
) -> None:
    judge = {"method.reward_finetune.reward": "judge"}
    check(conf.replace(settings(base, tmp_path), judge | {"evaluation.detector": "none"}))
    check(conf.replace(settings(base, tmp_path), judge | {"evaluation.prompts": 0}))
    late = judge | {
        "evaluation.detector": "none",
        "evaluate_with": {"evaluation.detector": "judge"},
    }
    with pytest.raises(ValueError, match="not measured by the same judge"):
        check(conf.replace(settings(base, tmp_path), late))


def test_few_captions_make_many_images(base: Run, tmp_path: Path) -> None:
    few = {"data.train_images": 2, "trainer.batch": 4}
    check(conf.replace(settings(base, tmp_path), few))
    with pytest.raises(ValueError, match="data.train_images=2 make no batch"):
        check(
            conf.replace(
                settings(base, tmp_path),
                few | {"method.name": "finetune", "method.finetune.losses": {"enhance": 1.0}},
            )
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method__reward_finetune__threshold": 1.0}, "threshold=1 leaves 0 images of 6 drawn"),
        ({"method__reward_finetune__threshold": 0.9}, "threshold=0.9 leaves 1 image of .*batch=2"),
        (
            {
                "method__reward_finetune__objective": "preference",
                "method__reward_finetune__margin": 0.5,
            },
            "margin=0.5 leaves 0 pairs of 6 drawn images .mean reward 0.500, highest 1.000.",
        ),
    ],
)
def test_too_few_samples_are_refused_before_training(
    base: Run,
    embedded: Backbone,
    tmp_path: Path,
    drawn: list,
    reward: ByBrightness,
    changes: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        extend(settings(base, tmp_path, **changes), embedded)
    assert "\n" not in str(raised.value)


# --- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["reward_weighted", "preference"])
def test_a_run_trains_on_drawn_images_and_repeats_itself(
    base: Run, tmp_path: Path, drawn: list, reward: ByBrightness, objective: str
) -> None:
    found, lines = [], []
    for place in ("a", "b"):
        config = settings(
            base,
            tmp_path / place,
            method__reward_finetune__objective=objective,
            evaluation__prompts=0,
        )
        train.run(config, tmp_path / f"{place}-run", progress=lambda t, s: lines.append(t))
        (adapter,) = (tmp_path / place / "adapters").glob("*/adapter.safetensors")
        found.append(load_file(adapter))
    first, second = found
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(float(value.abs().max()) > 0 for name, value in first.items() if "lora_B" in name)
    assert not any("data.train_images: asked" in line for line in lines)
    data = json.loads((tmp_path / "a-run" / "data.json").read_text())
    assert data["train"]["images"] == 6 and data["train"]["of"]["count"] == 16


def test_the_adapter_depends_on_the_reward(base: Run, tmp_path: Path) -> None:
    config = settings(base, tmp_path)
    keys = {
        train.training_key(conf.replace(config, changes))
        for changes in (
            {},
            {"method.reward_finetune.reward": "judge"},
            {"method.reward_finetune.threshold": 0.2},
            {"method.reward_finetune.noises": 3},
        )
    }
    assert len(keys) == 4
    assert RewardFinetune.name == "reward_finetune"
