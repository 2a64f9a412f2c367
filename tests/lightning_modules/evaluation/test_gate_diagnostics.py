"""What reaches the store about gates while they are trained."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch

from conf.schema import Gate, Trainer
from conf.schema import Method as MethodConfig
from datamodules import ShapesDataModule
from lightning_modules import MaskAttn
from lightning_modules.attention.gate_stats import GateRecord
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.evaluation.gate_diagnostics import GateDiagnostics


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ShapesDataModule:
    datamodule = ShapesDataModule(
        tmp_path_factory.mktemp("world"), train_images=8, eval_images=4, batch=2
    )
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def train(
    backbone: Backbone,
    world: ShapesDataModule,
    every: int = 2,
    accumulate: int = 1,
    steps: int = 5,
    **gate: Any,
) -> tuple[list[tuple[dict[str, float], int]], MaskAttn]:
    torch.manual_seed(3)
    recipe = Trainer(steps=steps, warmup=1, lr=0.05)
    method = MaskAttn(
        backbone,
        MethodConfig("maskattn", gate=Gate(**{"width": 8, "bias": 0.0, "stage": "all"} | gate)),
        recipe,
        64,
    )
    world.train_set.with_phrases = gate.get("supervision") == "masks"
    stored: list[tuple[dict[str, float], int]] = []
    callback = GateDiagnostics(
        every, world.train_set, 0, lambda values, at: stored.append((dict(values), at))
    )
    trainer = L.Trainer(
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[callback],
    )
    trainer.fit(method, datamodule=world)
    return stored, method


def names(method: MaskAttn, stored: dict[str, float]) -> None:
    """Asserts that all documented names are there and no other."""
    sites = {f"gates/closed/site/{site.name}" for site in method.gates.sites}
    kinds = {f"gates/closed/kind/{kind}" for kind in ("word", "eos", "padding")}
    times = {f"gates/closed/time/{span}" for span in ("0-249", "250-499", "500-749", "750-999")}
    rest = {"gates/gradient/closed", "gates/gradient/open", "gates/opened", "gates/shut"}
    assert sites | kinds | rest <= set(stored) <= sites | kinds | times | rest and times & set(
        stored
    )
    assert all(0 <= value <= 1 for name, value in stored.items() if "gradient" not in name)


def test_every_few_steps_and_at_the_end_all_names_reach_the_store(
    embedded: Backbone, world: ShapesDataModule
):
    stored, method = train(embedded, world)
    assert [step for _, step in stored] == [2, 4, 5]
    for values, _ in stored:
        names(method, values)
        assert values["gates/gradient/closed"] > 0 and values["gates/gradient/open"] > 0
    assert any(values["gates/opened"] + values["gates/shut"] > 0 for values, _ in stored)
    assert method.window is None and method.gates.record is None


def test_with_accumulation_every_step_is_stored_once(embedded: Backbone, world: ShapesDataModule):
    stored, _ = train(embedded, world, accumulate=2, steps=3, every=1)
    steps = [step for _, step in stored if step]
    assert steps == [1, 2, 3]


def test_each_report_is_of_what_happened_since_the_last(
    embedded: Backbone, world: ShapesDataModule, monkeypatch: pytest.MonkeyPatch
):
    seen: list[GateRecord] = []
    shares = GateRecord.shares

    def spy(record: GateRecord) -> dict[str, float]:
        seen.append(record)
        return shares(record)

    monkeypatch.setattr(GateRecord, "shares", spy)
    train(embedded, world, steps=3)
    counts = [float(sum(counted.sum() for counted in record.counted.values())) for record in seen]
    assert counts[0] == 2 * counts[1], "two steps, then one"


@pytest.mark.parametrize(
    "gate",
    [{}, {"supervision": "masks", "head": "conv3x3"}, {"attention": "both", "head": "film"}],
    ids=str,
)
def test_gradient_checkpointing_reports_the_same(
    embedded: Backbone, world: ShapesDataModule, gate: dict[str, Any]
):
    plain, method = train(embedded, world, steps=2, **gate)
    method.remove()
    embedded.unet.train()
    embedded.unet.enable_gradient_checkpointing()
    again, _ = train(embedded, world, steps=2, **gate)
    assert [step for _, step in again] == [step for _, step in plain] == [2]
    assert again[0][0] == pytest.approx(plain[0][0], rel=1e-3, abs=1e-6)


def test_closed_gates_have_no_gradient_under_the_released_surrogate(
    embedded: Backbone, world: ShapesDataModule
):
    ((values, _),), _ = train(embedded, world, steps=1, gradient="released", protect="none")
    assert values["gates/gradient/closed"] == 0 < values["gates/gradient/open"]
    assert 0 <= values["gates/closed/kind/bos"] <= 1


@pytest.mark.parametrize("padding", ["open", "closed"])
def test_gates_that_a_rule_holds_change_nothing_however_long_it_takes(
    embedded: Backbone, world: ShapesDataModule, padding: str
):
    # More batches between two looks than texts are remembered; the free gates are so far shut that
    # no step opens one.
    stored, _ = train(
        embedded, world, every=12, steps=12, padding_gate=padding, protect="specials", bias=-50.0
    )
    assert [step for _, step in stored] == [12]
    assert stored[0][0]["gates/opened"] == stored[0][0]["gates/shut"] == 0


def test_watching_changes_no_step_of_the_training(embedded: Backbone, world: ShapesDataModule):
    _, watched = train(embedded, world, every=1, steps=3)
    watched.remove()
    _, alone = train(embedded, world, every=1000, steps=3)
    assert all(
        torch.equal(a, b) for a, b in zip(watched.parameters(), alone.parameters(), strict=True)
    )
