"""Pictures of what the gates do: for a few fixed prompts, which tokens may act where."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from conf.schema import Evaluation
from datamodules.coco import CocoDataModule
from lightning_modules.evaluate import Prompt, plan
from lightning_modules.maskattn import MaskAttn

PER_SPLIT = 2  # prompts drawn of each evaluation split: its first ones
PAGE = 6.7  # inches of text width that the picture is drawn for


def draw_gate_maps(method: MaskAttn, datamodule: CocoDataModule, config: Evaluation, seed: int, folder: Path) -> None:
    """Writes ``gates.png`` and ``gates.json`` (prompts, tokens, share of open gates by token and resolution) to ``folder``.

    A map is the share of sampler steps and cross-attention sites of one resolution at which a token's gate was open, by location. Without
    such sites there is nothing to draw: on self-attention tokens are locations.
    """
    cross = [site for site in method.gates.sites if site.kind == "cross"]
    if not cross:
        return
    prompts = [p for p in plan(datamodule, replace(config, noise_seeds=1), seed) if p.index < PER_SPLIT]
    with method.gates.recording(conditional_half=config.guidance > 1, keep_maps=True) as record:
        texts, noises = [p.text for p in prompts], [p.noise for p in prompts]
        images = method.generate(texts, noises, None, config.steps, config.guidance, len(prompts))
    by_resolution: dict[int, list[np.ndarray]] = {}
    for site in cross:
        opened = record.maps[site.name].cpu()  # [B, N, T]
        side = int(opened.shape[1] ** 0.5)
        by_resolution.setdefault(side, []).append(opened.reshape(len(prompts), side, side, -1).numpy())
    maps = {side: np.mean(parts, axis=0) for side, parts in sorted(by_resolution.items(), reverse=True)}  # side -> [B, side, side, T]
    tokens = [_tokens(method, p) for p in prompts]
    content = [
        {
            "prompt": p.text,
            "tokens": tokens[i],
            "open": {str(side): [round(float(m[i, ..., t].mean()), 4) for t in range(len(tokens[i]))] for side, m in maps.items()},
        }
        for i, p in enumerate(prompts)
    ]
    (folder / "gates.json").write_text(json.dumps(content, indent=1))
    _draw(folder / "gates.png", images.permute(0, 2, 3, 1).numpy(), maps, tokens)


def _tokens(method: MaskAttn, prompt: Prompt) -> list[str]:
    """The prompt's tokens as text, BOS and EOS included, padding left out."""
    tokenizer = method.backbone.tokenizers[0]
    ids = tokenizer(prompt.text, truncation=True, max_length=tokenizer.model_max_length).input_ids
    words = [str(token).removesuffix("</w>") for token in tokenizer.convert_ids_to_tokens(ids)]
    return ["BOS", *words[1:-1], "EOS"]


def _draw(path: Path, images: np.ndarray, maps: dict[int, np.ndarray], tokens: list[list[str]]) -> None:
    """One row a prompt and resolution: the image, then a map a token; white is open, black closed.

    Tokens of one or two letters and punctuation are left out: the rest stays readable at the width of a page.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    shown = [[t for t, token in enumerate(line) if len(token) > 2] for line in tokens]
    rows, columns = len(images) * len(maps), 1 + max(len(line) for line in shown)
    # One plane for all pictures, a unit a picture: as many axes with a layout of their own would take seconds to draw.
    gap, title = 0.08, 0.3
    width, height = columns * (1 + gap) - gap, rows * (1 + title)
    figure = Figure(figsize=(PAGE, PAGE * height / width), dpi=200)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()

    def place(picture: np.ndarray, row: int, column: int, name: str, **style: Any) -> None:
        left, top = column * (1 + gap), -row * (1 + title) - title
        axes.imshow(picture, extent=(left, left + 1, top - 1, top), interpolation="nearest", **style)
        at, side = (left, "left") if column == 0 else (left + 0.5, "center")
        axes.text(at, top + 0.06, name, ha=side, va="bottom", fontsize=7.5)
        # White maps would vanish on white paper.
        axes.add_patch(Rectangle((left, top - 1), 1, 1, fill=False, edgecolor="0.6", linewidth=0.6))

    for i, image in enumerate(images):
        for k, (side, opened) in enumerate(maps.items()):
            row = i * len(maps) + k
            place(image, row, 0, f"{side}×{side}")
            for column, t in enumerate(shown[i], start=1):
                place(opened[i, ..., t], row, column, tokens[i][t], cmap="gray", vmin=0, vmax=1)
    axes.set_xlim(-0.02, width + 0.02)
    axes.set_ylim(-height - 0.02, 0)
    figure.savefig(path, metadata={"Software": None})
