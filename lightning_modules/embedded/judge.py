"""The judges of the embedded world: small networks that say which coloured shapes an image shows,
and where.

Each cell of a 16x16 grid over 64x64 pixels says how likely an object has its centre there, which
shape, colour and pattern that object has, and its exact centre and radius. Judges are trained on
renders by `python -m lightning_modules.metrics.train_judge`. Two are shipped, of different networks
(`judge_networks`), seeds and training images: ``judge`` measures; ``judge_reward`` is for what is
trained on a judge's verdicts, which the other one then still judges fairly.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conf.describe import show_count
from datamodules.shapes.placing import size_of
from datamodules.shapes.rendering import SIZE
from datamodules.shapes.vocabulary import COLORS, PATTERNS, SHAPES
from lightning_modules.embedded.judge_networks import GRID, Maps, build_network
from lightning_modules.metrics.detection import Detection, Target, smallest_of_best_assignment

ASSETS = Path(__file__).resolve().parent / "assets"
MEASURES, REWARDS = "judge", "judge_reward"  # Shipped judges
ASSET = ASSETS / MEASURES
LAYOUT = 2  # The presence map is averaged over a 2x2 grid for the features
CANDIDATES = 6  # Places per image that the graded score looks at
# Pixels; two peaks nearer than this are one object (centres in the world are at least 13 pixels
# apart)
APART = 6.0


def to_input(images: Tensor) -> Tensor:
    """uint8 [N, 3, 64, 64] -> float32 in [-1, 1]. Raises ValueError on another dtype or size."""
    if (
        images.dtype != torch.uint8
        or images.ndim != 4
        or images.shape[1] != 3
        or images.shape[2:] != (SIZE, SIZE)
    ):
        raise ValueError(
            f"the judge takes uint8 images of shape [N, 3, {SIZE}, {SIZE}], not {images.dtype} "
            f"{list(images.shape)}: clamp, round and convert the images first"
        )
    return images.float() / 127.5 - 1


class Judge(nn.Module):
    """The frozen detector. Always in eval mode, always float32, never trainable, in any module.

    ``config``: ``architecture`` and the settings of that network (`judge_networks`), and
    ``threshold`` (presence probability from which a peak is a detection).
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = dict(config)
        self.threshold = float(config["threshold"])
        self.network = build_network(config)
        self.dimension = self.network.local_width + LAYOUT**2
        self.register_buffer("feature_mean", torch.zeros(self.dimension))
        self.register_buffer("feature_sd", torch.ones(self.dimension))
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> Judge:
        """Does nothing: a LightningModule that holds the judge must not switch it to training."""
        return self

    @classmethod
    def load(cls, place: Path | str | None = None) -> Judge:
        """Reads ``config.json`` and ``model.safetensors`` of a shipped judge, by its name (the one
        that measures by default), or from a folder; float32 on the CPU."""
        from safetensors.torch import load_file

        place = place or MEASURES
        place = ASSETS / place if place in (MEASURES, REWARDS) else Path(place)
        for name in ("config.json", "model.safetensors"):
            if not (place / name).is_file():
                raise FileNotFoundError(
                    f"{place / name} is missing: `python -m "
                    f"lightning_modules.metrics.train_judge --output {place}` makes it"
                )
        judge = cls(json.loads((place / "config.json").read_text()))
        judge.load_state_dict(
            {key: value.float() for key, value in load_file(place / "model.safetensors").items()}
        )
        return judge

    def save(self, folder: Path) -> None:
        """Writes float16 weights and ``config.json``."""
        from safetensors.torch import save

        folder.mkdir(parents=True, exist_ok=True)
        # Not save_file, whose files only their owner may read.
        (folder / "model.safetensors").write_bytes(
            save({key: value.half().contiguous() for key, value in self.state_dict().items()})
        )
        (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n")

    @torch.no_grad()
    def maps(self, images: Tensor, batch: int = 256) -> Maps:
        """The network's answer for uint8 images, on the judge's device, in float32 also under
        autocast."""
        device = self.feature_mean.device
        with torch.autocast(device.type, enabled=False):
            parts = [self.network(to_input(chunk.to(device))) for chunk in images.split(batch)]
        return Maps(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def detect(self, images: Tensor) -> list[list[Detection]]:
        """The objects of each image (uint8 [N, 3, 64, 64]), surest first.

        ``label`` is the shape, ``color`` the colour, ``pattern`` striped, dotted or plain, ``box``
        lies in pixels, ``score`` is the probability of presence and ``size`` follows from the
        radius.
        """
        if len(images) == 0:
            return []
        maps = self.maps(images)
        presence, x, y, radius = (
            v.flatten(1).tolist() for v in (maps.presence.sigmoid(), maps.x, maps.y, maps.radius)
        )
        shape, color, pattern = (
            v.argmax(1).flatten(1).tolist() for v in (maps.shape, maps.color, maps.pattern)
        )
        names = tuple(COLORS)
        found: list[list[Detection]] = []
        for n, cells in enumerate(peaks(maps, self.threshold)):
            detections = []
            for c in cells:
                cx, cy, r = x[n][c], y[n][c], radius[n][c]
                box = (cx - r, cy - r, cx + r, cy + r)
                detections.append(
                    Detection(
                        SHAPES[shape[n][c]],
                        box,
                        presence[n][c],
                        color=names[color[n][c]],
                        size=size_of(r) or "medium",
                        pattern=PATTERNS[pattern[n][c]],
                    )
                )
            found.append(detections)
        return found

    def features(self, images: Tensor) -> Tensor:
        """float32 [N, 52] on the CPU, for FID and precision / recall.

        The channels of the first layers (48 of ``judge``), averaged over the image (which colours
        and shapes, and how cleanly they are drawn: the later layers were trained to overlook that),
        and the presence map averaged over the four quadrants (how many objects, and where). Each is
        shifted and scaled to mean 0 and standard deviation 1 on clean renders. Few dimensions on
        purpose: the bias of FID grows with them.
        """
        if len(images) == 0:
            return torch.zeros(0, self.dimension)
        return ((self.raw_features(images) - self.feature_mean) / self.feature_sd).cpu()

    def local_features(self, images: Tensor) -> Tensor:
        """uint8 [N, 3, 64, 64] -> float32 [N, 48, 16, 16] on the CPU: what the first layers see
        around each cell, standardised on renders; colours and, less, shapes."""
        local = self.maps(images).local
        channels = local.shape[1]
        mean, sd = (v[:channels, None, None] for v in (self.feature_mean, self.feature_sd))
        return ((local - mean) / sd).cpu()

    def raw_features(self, images: Tensor) -> Tensor:
        """The features before they are standardised, [N, 52]."""
        maps = self.maps(images)
        layout = F.avg_pool2d(maps.presence.sigmoid()[:, None], GRID // LAYOUT).flatten(1)  # [N, 4]
        return torch.cat([maps.local.mean((2, 3)), layout], dim=1)

    def target_scores(self, images: Tensor, targets: Sequence[Target]) -> Tensor:
        """A graded success, float32 [N] on the CPU in [0, 1].

        The candidates of an image are the ``CANDIDATES`` highest peaks of the presence map, however
        low. A candidate shows a wanted object with probability presence x P(shape) x P(color). Each
        wanted object takes a candidate of its own, such that the smallest of their probabilities is
        as great as it can be; that smallest one is the score. Extra objects cost nothing, as in
        success.

        Raises ValueError if there is not one target per image.
        """
        if len(targets) != len(images):
            raise ValueError(
                f"{show_count(len(images), 'image')} but {show_count(len(targets), 'target')}: "
                "give one target per image"
            )
        if len(images) == 0:
            return torch.zeros(0)
        maps = self.maps(images)
        presence = maps.presence.sigmoid().flatten(1).cpu()  # [N, 256]
        shape = maps.shape.softmax(1).flatten(2).cpu()  # [N, 6, 256]
        color = maps.color.softmax(1).flatten(2).cpu()  # [N, 8, 256]
        names = tuple(COLORS)
        scores = []
        for n, (cells, target) in enumerate(
            zip(peaks(maps, 0.0, CANDIDATES), targets, strict=True)
        ):
            table = [
                (
                    presence[n, cells]
                    * shape[n, SHAPES.index(s), cells]
                    * color[n, names.index(c), cells]
                ).tolist()
                for c, s in target.objects
            ]
            scores.append(smallest_of_best_assignment(table))
        return torch.tensor(scores, dtype=torch.float32)


def peaks(maps: Maps, threshold: float, most: int | None = None) -> list[list[int]]:
    """Cells (row * 16 + column) of each image where the presence probability is a local maximum of
    at least ``threshold``, highest first.

    Of peaks whose objects would lie nearer than ``APART`` pixels the highest stays.
    """
    probability = maps.presence.sigmoid()
    # Kept among equals: a plateau gives several peaks in one place, of which the distance rule
    # leaves one.
    top = probability >= F.max_pool2d(probability[:, None], 3, stride=1, padding=1)[:, 0]
    # Whole arrays cross from the device once; reading single elements there would wait thousands of
    # times.
    keep = (top & (probability >= threshold)).flatten(1).cpu()
    value, xs, ys = (v.flatten(1).cpu() for v in (probability, maps.x, maps.y))
    result = []
    for n in range(len(keep)):
        cells = keep[n].nonzero()[:, 0]
        cells = cells[value[n, cells].argsort(descending=True, stable=True)]
        kept: list[int] = []
        places: list[tuple[float, float]] = []
        for cell, x, y in zip(
            cells.tolist(), xs[n, cells].tolist(), ys[n, cells].tolist(), strict=True
        ):
            if most is not None and len(kept) == most:
                break
            if all(max(abs(x - a), abs(y - b)) >= APART for a, b in places):
                kept.append(cell)
                places.append((x, y))
        result.append(kept)
    return result
