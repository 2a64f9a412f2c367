"""The mechanism behind a composition, whatever the method: do the maps of a prompt's objects
overlap, and is the weakest of them strong?"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from datamodules.coco import CocoDataset
from lightning_modules.attention import nearest, select
from lightning_modules.attention.capture import Capture, Maps
from lightning_modules.attention.early_exit import stop_after
from lightning_modules.evaluation.figures import draw_maps
from lightning_modules.evaluation.probe import Probe
from lightning_modules.methods.base import Method
from losses.attention import enhance_loss, separate_loss

IMAGES = 32  # the first of a split
DRAWN = 4  # of these are shown
SIDE = 16  # wanted side of the maps in locations


class AttentionProbe(Probe):
    """Attention maps of the objects that captions name, at the layers nearest to 16 x 16, as
    Separate-and-Enhance looks at them."""

    def __init__(
        self, method: Method, dataset: CocoDataset, seed: int, images: int = IMAGES
    ) -> None:
        super().__init__(method, dataset, seed, images)
        self.dataset = dataset
        self.kept, self.positions = method.backbone.locate_phrases(self.captions, self.phrases)

    @torch.no_grad()
    def run(self, heads: str = "keep") -> Maps:
        """The maps of one forward pass; an object of several tokens has their mean."""
        backbone = self.method.backbone
        chosen = nearest(select(backbone.sites(self.method.resolution)), SIDE)
        capture = Capture(chosen, self.positions, heads)
        with capture.attached(backbone.denoiser), stop_after(backbone.denoiser, chosen):
            self.method.predict(self.noised, self.timesteps, backbone.encode_prompts(self.captions))
        return capture.maps

    def measure(self) -> dict[str, float]:
        """Separate-and-Enhance's (arXiv 2312.06712) losses at evenly spread timesteps; nothing
        where no caption names an object.

        ``map_overlap``: L_Sep, the largest overlap of the objects' maps over heads and places, mean
        over images of two objects or more; ``map_activation``: 1 - L_En, the smoothed maximum of
        the weakest object, mean over images with an object.
        """
        maps = self.run()
        count = maps.present.sum(1)
        several, some = int((count > 1).sum()), int((count > 0).sum())
        mean, images = maps.mean(), len(self.captions)
        # The losses are means over all samples, to which those without enough objects add nothing.
        found = (
            {"map_overlap": float(separate_loss(mean, maps.present)) * images / several}
            if several
            else {}
        )
        if some:
            found["map_activation"] = 1 - float(enhance_loss(mean, maps.present)) * images / some
        return found

    def draw(self, folder: Path) -> None:
        """``maps.png`` and ``maps.json``: the objects' maps of the first images, each from zero to
        its own maximum."""
        rows = [
            i
            for i in self.timesteps.argsort(descending=True).tolist()
            if i < DRAWN and self.kept[i]
        ]
        if not rows:
            return
        maps = self.run("mean").mean().cpu()  # [B, objects, H, W]
        names = [[phrase.text for phrase in self.kept[i]] for i in rows]
        planes = {maps.shape[-1]: maps[rows].movedim(1, -1).numpy()}
        titles = [f"t = {int(self.timesteps[i])}" for i in rows]
        draw_maps(
            torch.stack([self.dataset.pixels(i) for i in rows]), planes, names, titles, white=None
        ).save(folder / "maps.png")
        content = [
            {
                "prompt": self.captions[i],
                "timestep": int(self.timesteps[i]),
                "objects": names[k],
                "peak": [round(float(maps[i, j].max()), 4) for j in range(len(names[k]))],
            }
            for k, i in enumerate(rows)
        ]
        (folder / "maps.json").write_text(json.dumps(content, indent=1))
