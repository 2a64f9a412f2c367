"""Pictures of gates at any guidance, and the share of open gates that stands beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.schema import Evaluation, Gate, Trainer
from conf.schema import Method as MethodConfig
from datamodules import ShapesDataModule
from lightning_modules import MaskAttn, gate_maps


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
    method = MaskAttn(embedded, MethodConfig("maskattn", gate=Gate(width=8, bias=0.0, stage="all", attention=attention)), Trainer(), 64)
    drawn: list[Any] = []
    monkeypatch.setattr(gate_maps, "_draw", lambda *args: drawn.append(args))
    config = Evaluation(prompts=3, steps=1, guidance=guidance)
    gate_maps.draw_gate_maps(method, datamodule, config, 0, tmp_path)
    (_, images, maps, tokens), = drawn
    assert images.shape == (4, 64, 64, 3) and {side: m.shape for side, m in maps.items()} == {16: (4, 16, 16, 24), 8: (4, 8, 8, 24)}

    # The last prompt alone gives its own row again.
    prompts = [p for p in gate_maps.plan(datamodule, config, 0) if p.index < 2]
    with method.gates.recording(conditional_half=guidance > 1, keep_maps=True) as record:
        alone = method.generate([prompts[3].text], [prompts[3].noise], None, 1, guidance)
    assert int((alone[0].permute(1, 2, 0).int() - torch.from_numpy(images[3]).int()).abs().max()) <= 1
    fine = torch.stack([record.maps[s.name][0] for s in method.gates.sites if s.resolution == 16 and s.kind == "cross"]).mean(0)
    assert torch.allclose(fine.reshape(16, 16, -1), torch.from_numpy(maps[16][3]), atol=0.02)
    content = json.loads((tmp_path / "gates.json").read_text())
    assert [entry["prompt"] for entry in content] == [p.text for p in prompts] and content[3]["tokens"] == tokens[3]
    assert content[3]["open"]["16"][1] == pytest.approx(float(maps[16][3, ..., 1].mean()), abs=1e-4)


def test_gates_on_self_attention_alone_have_no_maps_of_tokens(embedded: Any, tmp_path: Path):
    method = MaskAttn(embedded, MethodConfig("maskattn", gate=Gate(width=8, bias=0.0, attention="self")), Trainer(), 64)
    gate_maps.draw_gate_maps(method, built(tmp_path), Evaluation(prompts=3, steps=1), 0, tmp_path)
    assert not (tmp_path / "gates.json").exists() and not (tmp_path / "gates.png").exists()
