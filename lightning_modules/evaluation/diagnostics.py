"""What is measured of the method itself, not of its images: its own diagnostics, the attention maps
of a prompt's objects, and its costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from conf.files import to_json, write_atomically
from conf.seeds import resolve_seeds
from conf.spec import methods, metrics
from lightning_modules.attention import nearest, select
from lightning_modules.attention.capture import Capture, CapturedMaps
from lightning_modules.attention.early_exit import stop_after
from lightning_modules.attention.word_maps import WORD, draw_with_maps
from lightning_modules.backbone.sampling import sampling_as
from lightning_modules.evaluation.cost import measure_costs
from lightning_modules.evaluation.figures import draw_maps
from lightning_modules.evaluation.heatmaps import draw_sheet, measure_phrases, summarize
from lightning_modules.evaluation.mask_adherence import mask_guidance, target_masks
from lightning_modules.evaluation.plan import find_objects
from lightning_modules.metrics.registry import Columns
from losses.attention import enhance_loss, separate_loss

if TYPE_CHECKING:
    import pandas as pd

    from conf.schema import Evaluation, Run
    from datamodules.captioned import CaptionedDataset
    from datamodules.loading import PairedDataModule
    from lightning_modules.evaluation.plan import Prompt
    from lightning_modules.methods.base import Method

IMAGES = 32  # The first of a split
DRAWN = 4  # Of these are shown
SIDE = 16  # Wanted side of the maps, in pixels of a map


class Diagnosis(NamedTuple):
    """Metrics without ``eval/``, and columns of scores.parquet: of each image the value of its
    prompt, None where that was not measured."""

    metrics: dict[str, float]
    columns: Columns


def diagnose(
    method: Method,
    datamodule: PairedDataModule,
    config: Run,
    prompts: list[Prompt],
    adapter: Path | None,
    folder: Path,
) -> Diagnosis:
    """All that ``config``, the settings of the evaluation, asks for; pictures land in ``folder``.

    ``adapter``: the folder of the method's adapter, None where nothing was trained.
    """
    evaluation = config.evaluation
    columns: Columns = {}
    values = method.diagnostics(datamodule, config, folder)
    if evaluation.attention:
        split, seed = evaluation.splits[0], resolve_seeds(config).sampling
        probe = AttentionProbe(method, datamodule.eval_sets[split], seed)
        maps = probe.run()
        values |= probe.measure(maps)
        for key, by_index in measure_images(maps).items():
            columns[key] = [by_index.get(p.index) if p.split == split else None for p in prompts]
        probe.draw(folder)
        if method.trains or not methods()[method.name].learns_with:
            with sampling_as(method.backbone, evaluation):
                draw_heatmaps(method, datamodule, evaluation, prompts, folder)
    if evaluation.costs:
        objects = find_objects(datamodule, prompts) if method.takes_objects else None
        with sampling_as(method.backbone, evaluation):
            values |= measure_costs(method, adapter, prompts, evaluation, objects)
    return Diagnosis(values, columns)


def keep_columns(table: pd.DataFrame, prompts: Sequence[Prompt]) -> Columns:
    """The columns that `diagnose` gives, as an earlier table has them: of its images among these
    prompts, None for the others."""
    specs = [spec for spec in metrics().values() if not spec.scores_images]
    names = {name for spec in specs for metric in spec.outputs for name in metric.columns}
    rows = list(zip(table["split"], table["id"], table["noise"], strict=True))
    columns: Columns = {}
    for name in (name for name in table.columns if name in names):
        known = dict(zip(rows, table[name], strict=True))
        columns[name] = [known.get((p.split, str(p.id), p.noise)) for p in prompts]
    return columns


class Probe:
    """A fixed set of images, noised as in training, to see what a method does with them in one
    forward pass, without sampling.

    The first ``images`` of ``dataset`` at evenly spread timesteps, with noise that depends on
    ``seed`` alone: ``captions``, ``phrases`` (those with masks), ``noised`` [n, C, h, w] and
    ``timesteps`` [n] are in the order of the dataset.
    """

    def __init__(self, method: Method, dataset: CaptionedDataset, seed: int, images: int) -> None:
        self.method, backbone = method, method.backbone
        count = min(images, len(dataset))
        self.captions = [dataset.caption(i).text for i in range(count)]
        self.phrases = [dataset.phrases(i) for i in range(count)]
        latents = backbone.autoencoder.encode(torch.stack([dataset.image(i) for i in range(count)]))
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        # Even steps through all timesteps, interleaved so that neighbouring images do not have
        # neighbouring ones
        spread = torch.arange(count) * 7 % count if count % 7 else torch.arange(count)
        levels = ((spread + 0.5) * backbone.schedule.num_timesteps / count).long()
        self.timesteps = backbone.schedule.timesteps_at(levels).to(latents.device)
        self.noised, _ = backbone.schedule.add_noise(latents, noise, self.timesteps)


class AttentionProbe(Probe):
    """Attention maps of the objects that captions name, at the layers nearest to 16 x 16, as
    Separate-and-Enhance looks at them."""

    def __init__(
        self, method: Method, dataset: CaptionedDataset, seed: int, images: int = IMAGES
    ) -> None:
        super().__init__(method, dataset, seed, images)
        self.dataset = dataset
        self.kept, self.positions = method.backbone.text.locate_phrases(self.captions, self.phrases)

    @torch.no_grad()
    def run(self, heads: str = "keep") -> CapturedMaps:
        """The maps of one forward pass; an object of several tokens has their mean."""
        backbone = self.method.backbone
        sites = nearest(select(backbone.sites(self.method.resolution)), SIDE)
        capture = Capture(sites, self.positions, heads)
        with capture.attached(backbone.denoiser), stop_after(backbone.denoiser, sites):
            self.method.predict(self.noised, self.timesteps, backbone.text.encode(self.captions))
        return capture.maps

    def measure(self, maps: CapturedMaps | None = None) -> dict[str, float]:
        """Separate-and-Enhance's (arXiv 2312.06712) losses of the ``maps`` of `run`, at evenly
        spread timesteps; nothing where no caption names an object.

        ``map_overlap``: L_Sep, the largest overlap of the objects' maps over heads and pixels, mean
        over images of two objects or more; ``map_activation``: 1 - L_En, the smoothed maximum of
        the weakest object, mean over images with an object.
        """
        maps = self.run() if maps is None else maps
        count = maps.present.sum(1)
        several, some = int((count > 1).sum()), int((count > 0).sum())
        mean, images = maps.mean(), len(self.captions)
        # The losses are means over all samples, to which those without enough objects add nothing
        values = {}
        if several:
            values["map_overlap"] = float(separate_loss(mean, maps.present)) * images / several
        if some:
            values["map_activation"] = 1 - float(enhance_loss(mean, maps.present)) * images / some
        return values

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
        picture = draw_maps(
            torch.stack([self.dataset.pixels(i) for i in rows]), planes, names, titles, white=None
        )
        write_atomically(folder / "maps.png", picture.save)
        content = [
            {
                "prompt": self.captions[i],
                "timestep": int(self.timesteps[i]),
                "objects": names[k],
                "peak": [round(float(maps[i, j].max()), 4) for j in range(len(names[k]))],
            }
            for k, i in enumerate(rows)
        ]
        write_atomically(folder / "maps.json", to_json(content))


def measure_images(maps: CapturedMaps) -> dict[str, dict[int, float]]:
    """``map_overlap`` and ``map_activation`` (`AttentionProbe.measure`) -> place of the image ->
    its own value, where it has the objects for one."""
    mean, present = maps.mean(), maps.present
    values: dict[str, dict[int, float]] = {"map_overlap": {}, "map_activation": {}}
    for i, count in enumerate(present.sum(1).tolist()):
        alone = mean[i : i + 1], present[i : i + 1]
        if count > 1:
            values["map_overlap"][i] = float(separate_loss(*alone))
        if count:
            values["map_activation"][i] = 1 - float(enhance_loss(*alone))
    return {key: of for key, of in values.items() if of}


def draw_heatmaps(
    method: Method,
    datamodule: PairedDataModule,
    config: Evaluation,
    prompts: Sequence[Prompt],
    folder: Path,
) -> None:
    """``heatmaps.png`` and ``heatmaps.json``: the first images of the first split, drawn once more,
    and the maps of each of their prompts' words over all steps; of phrases with target masks the
    overlap with these.

    Not for weights that are trained on each prompt, whose training is no part of the drawing.
    """
    first = [p for p in prompts if p.split == prompts[0].split and not p.number]
    shown = [p for p in sorted(first, key=lambda p: p.place) if WORD.search(p.text)][:DRAWN]
    if not shown:
        return
    given: dict[str, Sequence[Any]] = {}
    targets = target_masks(shown, config) if config.follow_masks else None
    if targets and method.takes_masks:
        guide = mask_guidance(shown, targets, config)
        given |= {} if guide is None else {"masks": guide}
    if method.takes_objects:
        given["objects"] = find_objects(datamodule, shown)
    texts, noises = [p.text for p in shown], [p.noise for p in shown]
    drawings = draw_with_maps(method, texts, noises, config.steps, config.guidance, **given)
    write_atomically(folder / "heatmaps.png", draw_sheet(drawings).save)
    content = [summarize(one) for one in drawings]
    if targets:
        phrases = [
            [phrase._replace(mask=mask) for phrase, mask in zip(p.phrases, masks, strict=True)]
            for p, masks in zip(shown, targets, strict=True)
        ]
        located = method.backbone.text.locate_phrases(texts, phrases)
        for entry, one, kept, indices in zip(content, drawings, *located, strict=True):
            entry["iou"] = measure_phrases(one, kept, indices)
    write_atomically(folder / "heatmaps.json", to_json(content))
