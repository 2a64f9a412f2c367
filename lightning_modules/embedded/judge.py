"""The judge of the embedded world: a small network that says which coloured shapes an image shows,
and where.

A centre-point detector (after CenterNet, arXiv:1904.07850) on a 16x16 grid over 64x64 pixels. Each
cell says how likely an object has its centre there, which shape and which colour that object has,
and its exact centre and radius. It is trained on renders by `python -m
lightning_modules.metrics.train_judge`; the shipped weights lie in `assets/judge`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conf.describe import show_count
from datamodules.shapes.placing import size_of
from datamodules.shapes.rendering import SIZE
from datamodules.shapes.vocabulary import COLORS, SHAPES
from lightning_modules.metrics.detection import Detection, Target, smallest_of_best_assignment

ASSET = Path(__file__).resolve().parent / "assets" / "judge"
STRIDE = 4  # Pixels per cell
GRID = SIZE // STRIDE
UNIT_RADIUS = 10.0  # Pixels; a log radius of zero
LAYOUT = 2  # The presence map is averaged over a 2x2 grid for the features
CANDIDATES = 6  # Places per image that the graded score looks at
# Pixels; two peaks nearer than this are one object (centres in the world are at least 13 pixels
# apart)
APART = 6.0


class Maps(NamedTuple):
    """What the network says per cell; logits except for x, y and radius."""

    presence: Tensor  # [B, 16, 16]
    shape: Tensor  # [B, 6, 16, 16]
    color: Tensor  # [B, 8, 16, 16]
    x: Tensor  # [B, 16, 16] pixels
    y: Tensor  # [B, 16, 16] pixels
    radius: Tensor  # [B, 16, 16] pixels
    # [B, width, 16, 16] what the first layers see in about 22 pixels around each cell
    local: Tensor


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(8, width), nn.GroupNorm(8, width)])

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.norms[0](self.first(x)))
        return F.silu(x + self.norms[1](self.second(h)))


class Network(nn.Module):
    """The trainable part of the judge. GroupNorm, so that one image's answer never depends on its
    neighbours in the batch."""

    def __init__(self, width: int = 48, deep: int = 96) -> None:
        super().__init__()
        self.unshuffle = nn.PixelUnshuffle(2)
        self.stem = nn.Sequential(
            nn.Conv2d(12, width, 3, stride=2, padding=1, bias=False),
            nn.GroupNorm(8, width),
            nn.SiLU(),
        )
        self.fine = Block(width)
        self.down = nn.Sequential(
            nn.Conv2d(width, deep, 3, stride=2, padding=1, bias=False),
            nn.GroupNorm(8, deep),
            nn.SiLU(),
        )
        self.coarse = Block(deep)
        self.up = nn.Conv2d(deep, width, 1)
        self.merge = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(8, width), nn.SiLU()
        )
        self.head = nn.Conv2d(width, 1 + len(SHAPES) + len(COLORS) + 3, 1)
        # Objects are rare (1 to 5 of 256 cells): start from that prior, so that the first steps are
        # not spent on learning it.
        nn.init.constant_(self.head.bias[:1], -4.0)
        centres = (torch.arange(GRID) + 0.5) * STRIDE
        self.register_buffer("centre", centres, persistent=False)

    def forward(self, images: Tensor) -> Maps:
        """``images``: float [B, 3, 64, 64] in [-1, 1]."""
        fine = self.fine(self.stem(self.unshuffle(images)))  # [B, width, 16, 16]
        coarse = self.coarse(self.down(fine))  # [B, deep, 8, 8]
        # [B, width, 16, 16]
        trunk = self.merge(fine + F.interpolate(self.up(coarse), scale_factor=2.0, mode="nearest"))
        presence, shape, color, place = self.head(trunk).split(
            [1, len(SHAPES), len(COLORS), 3], dim=1
        )
        return Maps(
            presence=presence[:, 0],
            shape=shape,
            color=color,
            x=self.centre[None, None, :] + STRIDE * place[:, 0],
            y=self.centre[None, :, None] + STRIDE * place[:, 1],
            radius=UNIT_RADIUS * place[:, 2].clamp(-3, 3).exp(),
            local=fine,
        )


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

    ``config``: ``width``, ``deep`` (channels) and ``threshold`` (presence probability from which a
    peak is a detection).
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = dict(config)
        self.threshold = float(config["threshold"])
        self.network = Network(int(config["width"]), int(config["deep"]))
        self.dimension = int(config["width"]) + LAYOUT**2
        self.register_buffer("feature_mean", torch.zeros(self.dimension))
        self.register_buffer("feature_sd", torch.ones(self.dimension))
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> Judge:
        """Does nothing: a LightningModule that holds the judge must not switch it to training."""
        return self

    @classmethod
    def load(cls, folder: Path | str | None = None) -> Judge:
        """Reads ``config.json`` and ``model.safetensors`` from ``folder`` (the shipped judge by
        default); float32 on the CPU."""
        from safetensors.torch import load_file

        place = Path(folder) if folder is not None else ASSET
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

        ``label`` is the shape, ``color`` the colour, ``box`` lies in pixels, ``score`` is the
        probability of presence and ``size`` follows from the radius.
        """
        if len(images) == 0:
            return []
        maps = self.maps(images)
        presence, x, y, radius = (
            v.flatten(1).tolist() for v in (maps.presence.sigmoid(), maps.x, maps.y, maps.radius)
        )
        shape, color = (v.argmax(1).flatten(1).tolist() for v in (maps.shape, maps.color))
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
                    )
                )
            found.append(detections)
        return found

    def features(self, images: Tensor) -> Tensor:
        """float32 [N, 52] on the CPU, for FID and precision / recall.

        48 channels of the first block, averaged over the image (which colours and shapes, and how
        cleanly they are drawn: the later layers were trained to overlook that), and the presence
        map averaged over the four quadrants (how many objects, and where). Each is shifted and
        scaled to mean 0 and standard deviation 1 on clean renders. Few dimensions on purpose: the
        bias of FID grows with them.
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
