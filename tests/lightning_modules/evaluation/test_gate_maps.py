"""Pictures of gates at any guidance, and the share of open gates that stands beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from conf.schema import Evaluation, Gate, Trainer
from conf.schema import Method as MethodConfig
from datamodules import ShapesDataModule
from lightning_modules import MaskAttn
from lightning_modules.evaluation import gate_diagnostics as gate_maps


def built(tmp_path: Path) -> ShapesDataModule:
    datamodule = ShapesDataModule(tmp_path / "world", train_images=4, eval_images=3, batch=2)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


@pytest.mark.parametrize(("guidance", "attention"), [(1.0, "cross"), (3.0, "cross"), (3.0, "both")])
def test_maps_are_those_of_the_prompts(
    embedded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guidance: float, attention: str
):
    datamodule = built(tmp_path)
    torch.manual_seed(0)
    method = MaskAttn(
        embedded,
        MethodConfig("maskattn", gate=Gate(width=8, bias=0.0, stage="all", attention=attention)),
        Trainer(),
        64,
    )
    drawn: list[Any] = []
    draw = gate_maps.draw_maps
    monkeypatch.setattr(gate_maps, "draw_maps", lambda *args: (drawn.append(args), draw(*args))[1])
    config = Evaluation(prompts=3, steps=1, guidance=guidance)
    gate_maps.draw_gate_maps(method, datamodule, config, 0, tmp_path)
    ((images, maps, tokens),) = drawn
    assert images.shape == (4, 3, 64, 64) and {side: m.shape for side, m in maps.items()} == {
        16: (4, 16, 16, 24),
        8: (4, 8, 8, 24),
    }

    # The last prompt alone gives its own row again.
    prompts = [p for p in gate_maps.plan(datamodule, config, 0) if p.index < 2]
    with method.gates.recording(conditional_half=guidance > 1, keep_maps=True) as record:
        alone = method.generate([prompts[3].text], [prompts[3].noise], None, 1, guidance)
    assert int((alone[0].int() - images[3].int()).abs().max()) <= 1
    fine = torch.stack(
        [
            record.maps[s.name][0]
            for s in method.gates.sites
            if s.resolution == 16 and s.kind == "cross"
        ]
    ).mean(0)
    assert torch.allclose(fine.reshape(16, 16, -1), torch.from_numpy(maps[16][3]), atol=0.02)
    content = json.loads((tmp_path / "gates.json").read_text())
    assert [entry["prompt"] for entry in content] == [p.text for p in prompts] and content[3][
        "tokens"
    ] == tokens[3]
    assert content[3]["open"]["16"][1] == pytest.approx(float(maps[16][3, ..., 1].mean()), abs=1e-4)


def test_gates_on_self_attention_alone_have_no_maps_of_tokens(embedded: Any, tmp_path: Path):
    method = MaskAttn(
        embedded,
        MethodConfig("maskattn", gate=Gate(width=8, bias=0.0, attention="self")),
        Trainer(),
        64,
    )
    gate_maps.draw_gate_maps(method, built(tmp_path), Evaluation(prompts=3, steps=1), 0, tmp_path)
    assert not (tmp_path / "gates.json").exists() and not (tmp_path / "gates.png").exists()


def test_gates_are_drawn_at_the_start_at_each_quarter_and_at_the_end(
    embedded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    datamodule = built(tmp_path)
    torch.manual_seed(0)
    gate = Gate(width=8, bias=0.0, stage="all")
    method = MaskAttn(
        embedded, MethodConfig("maskattn", gate=gate), Trainer(steps=8, warmup=1, lr=0.1), 64
    )
    drawn: list[Any] = []
    draw = gate_maps.draw_maps
    monkeypatch.setattr(gate_maps, "draw_maps", lambda *args: (drawn.append(args), draw(*args))[1])
    stored: list[Any] = []
    trainer = L.Trainer(
        max_steps=8,
        accumulate_grad_batches=2,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[
            gate_maps.GateMaps(
                datamodule.train_set, 0, lambda image, step: stored.append((step, image))
            )
        ],
    )
    trainer.fit(method, datamodule=datamodule)
    assert [step for step, _ in stored] == [0, 2, 4, 6, 8] and all(
        min(image.size) > 100 for _, image in stored
    )
    images, maps, tokens, titles = drawn[-1]
    assert titles == ["t = 875", "t = 625", "t = 375", "t = 125"]
    datamodule.train_set.epoch = 0  # whose captions the looks were made with
    row = (
        gate_maps.GateProbe(method, datamodule.train_set, 0, 4)
        .timesteps.argsort(descending=True)
        .tolist()
    )
    for shown, image in enumerate(row):
        assert torch.equal(images[shown], datamodule.train_set.pixels(image))
        assert tokens[shown] == method.backbone.text.token_names(
            datamodule.train_set.caption(image).text
        )
    assert {side: m.shape for side, m in maps.items()} == {16: (4, 16, 16, 24), 8: (4, 8, 8, 24)}
    before, after = drawn[0][1][16], maps[16]
    assert 0 < before.mean() < 1 and (before != after).any(), "the pictures show the training"
    gates = gate_maps.GateProbe(method, datamodule.train_set, 0, 4).run().gates
    fine = [(gates[s.name] > 0.5).float() for s in method.gates.sites if s.resolution == 16]
    # Another pass may round a gate at the threshold to its other side.
    assert (
        float(
            (torch.stack(fine).mean(0)[row].reshape(4, 16, 16, -1) - torch.from_numpy(after))
            .abs()
            .mean()
        )
        < 0.005
    )
