"""Draws prompts and shows where each of their words acts: attention maps over all steps of the
drawing, laid over the image (`word_maps` says how they are made).

    python -m lightning_modules.attention.heatmaps "a red circle and a blue square"
    python -m lightning_modules.attention.heatmaps "a cat and a dog" backbone=sd15 seed=0,1,2
    python -m lightning_modules.attention.heatmaps "a red circle" adapter=runs/adapters/3f0c side=16
    python -m lightning_modules.attention.heatmaps "a red circle" "masks=red circle:circle.png"

Each prompt and seed gets a folder with the image, a PNG for each word (dark: 0, bright: the word's
maximum), heatmaps.png with all of them, maps.npz with the maps as numbers, and heatmaps.json.

Settings:
    backbone=embedded      a diffusers folder, a hub id, or a file of conf/backbone; backbone.dtype=
                           and others below it are those of a run
    adapter=…              folder of a trained adapter: its method draws
    method=untouched       a method that is not trained, with its settings method.…=
    seed=0                 seed of the noise, or several: 0,1,2
    steps=…                sampler steps (embedded ones: 8, else 30)
    guidance=…             scale of classifier-free guidance (embedded ones: 3, else 7.5)
    resolution=…           pixels a side; default: the adapter's, or the backbone's own
    side=…                 only layers with maps of so many pixels a side
    stage=…, placement=…   only layers of a stage (high, mid, low), of a placement (encoder, bridge,
                           decoder)
    layers=…               only these layers: modules, or how their names begin, with commas;
                           without these four: all but the mid block's
    masks=…                PHRASE:FILE,PHRASE:FILE: masks to measure the phrases' overlap with; a
                           method that takes masks is given them
    threshold=0.4          share of its maximum from which on a map covers a pixel
    output=runs/heatmaps   folder
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import load as conf
from conf.describe import nearest
from conf.pipes import ends_with_reader
from conf.places import check_folder
from conf.schema import MAX_SEED, SHIPPED, Run
from conf.values import option

if TYPE_CHECKING:
    from datamodules.batch import Phrase
    from lightning_modules.attention.sites import Site
    from lightning_modules.backbone.backbone import Backbone

__all__ = ["choose_sites", "main"]

SETTING = re.compile(r"([a-z_]+)(\.[a-z_.]+)?=")
STEPS, GUIDANCE = 30, 7.5  # Those of `Method.generate`, where the backbone is no embedded one


def _seeds(text: str) -> list[int]:
    return [option(int, 0, MAX_SEED)(part) for part in text.split(",")]


def _names(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


READERS: dict[str, Callable[[str], Any]] = {
    "adapter": str,
    "seed": _seeds,
    "steps": option(int, 1, 10_000),
    "guidance": option(float, 0, 1000),
    "resolution": option(int, 1, 65_536),
    "side": option(int, 1, 65_536),
    "stage": str,
    "placement": str,
    "layers": _names,
    "masks": str,
    "threshold": option(float, 0, 1),
    "output": str,
}


@ends_with_reader
def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 for settings that cannot be used."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(argv):
        print(__doc__.strip())
        return 0
    try:
        prompts, given, words = split_words(argv)
        config = conf.load(words, schema=Run, required=False)
        output = Path(given.get("output", "runs/heatmaps")).expanduser()
        check_folder("output", output)
        _draw(prompts, given, words, config, output)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def split_words(argv: Sequence[str]) -> tuple[list[str], dict[str, Any], list[str]]:
    """Prompts, settings of this command, and the words that are settings of a run. Raises
    ValueError in one line."""
    prompts, given, words = [], {}, []
    for word in argv:
        match = SETTING.match(word)
        if match is None:
            prompts.append(word)
        elif match[1] in ("backbone", "method"):
            words.append(word)
        elif match[2] is None and match[1] in READERS:
            try:
                given[match[1]] = READERS[match[1]](word[match.end() :])
            except argparse.ArgumentTypeError as error:
                raise ValueError(f"{match[1]}={error}") from None
        else:
            known = ["backbone", "method", *READERS]
            near = nearest(match[0][:-1], known)
            raise ValueError(f"unknown setting {match[0]}{near}; expected {', '.join(known)}")
    if not prompts:
        raise ValueError('no prompt: expected one or more, such as "a red circle"; see --help')
    if "adapter" in given and any(word.startswith("method") for word in words):
        raise ValueError(f"adapter={given['adapter']} with method=: the adapter says its method")
    return prompts, given, words


def _draw(
    prompts: list[str], given: dict[str, Any], words: list[str], config: Run, output: Path
) -> None:
    """Draws, writes, and says where. Slow imports wait for it."""
    from lightning_modules.attention.word_maps import draw_with_maps, find_words
    from lightning_modules.backbone.backbone import Backbone
    from lightning_modules.evaluation.heatmaps import THRESHOLD, measure_phrases, write_heatmaps

    for prompt in prompts:
        find_words(prompt)
    settings = config.backbone
    backbone = Backbone.load(settings.path, settings.dtype, settings.revision)
    embedded = settings.path in SHIPPED
    own = (config.evaluation.steps, config.evaluation.guidance) if embedded else (STEPS, GUIDANCE)
    steps, guidance = given.get("steps", own[0]), given.get("guidance", own[1])
    model = _build_model(given, words, config, backbone)
    resolution = model.resolution
    sites = choose_sites(
        backbone.sites(resolution),
        *(given.get(key) for key in ("stage", "placement", "side", "layers")),
    )
    threshold = given.get("threshold", THRESHOLD)
    masked = [_read_masks(given.get("masks", ""), p, backbone, resolution) for p in prompts]
    for prompt, (phrases, indices) in zip(prompts, masked, strict=True):
        targets = [(phrase.text, phrase.mask) for phrase in phrases]
        told = {"masks": [targets]} if targets and model.takes_masks else {}
        for seed in given.get("seed", [0]):
            (one,) = draw_with_maps(model, [prompt], [seed], steps, guidance, sites=sites, **told)
            slug = re.sub(r"\W+", "-", prompt)[:60].strip("-")
            folder = output / f"{slug or 'prompt'}-{seed}"
            overlaps = measure_phrases(one, phrases, indices, threshold)
            write_heatmaps(folder, one, overlaps)
            print(f"{prompt!r}, seed {seed}: {folder}")
            print(f"  {', '.join(word.text for word in one.words)}: {folder / 'heatmaps.png'}")
            if one.cut:
                print(f"  not read by the text encoder, without maps: {', '.join(one.cut)}")
            for each in overlaps:
                print(f"  overlap (IoU) of {each['phrase']!r} with its mask: {each['iou']:.3f}")


def _build_model(given: dict[str, Any], words: list[str], config: Run, backbone: Backbone) -> Any:
    """The method that draws: of an adapter, named and without training, or none. Raises
    ValueError."""
    from lightning_modules.attention.word_maps import own_resolution
    from lightning_modules.methods.base import Method
    from lightning_modules.methods.registry import build_method

    if "adapter" in given:
        method = Method.load_adapter(Path(given["adapter"]).expanduser(), backbone)
        if given.get("resolution", method.resolution) != method.resolution:
            raise ValueError(
                f"resolution={given['resolution']}: the adapter {given['adapter']} draws images of "
                f"{method.resolution} pixels; leave it out"
            )
        return method
    resolution = given.get("resolution") or own_resolution(backbone)
    changes = {"backbone.resolution": resolution}
    if not any(word.startswith("method=") for word in words):
        changes["method.name"] = "untouched"
    method = build_method(conf.replace(config, changes), backbone)
    if method.trains:
        raise ValueError(
            f"method={method.name} has to be trained: give adapter=, the folder of one that was"
        )
    return method


def choose_sites(
    candidates: Sequence[Site],
    stage: str | None = None,
    placement: str | None = None,
    side: int | None = None,
    layers: Sequence[str] | None = None,
) -> list[Site]:
    """The cross-attention layers that fit everything given (``layers``: how their names begin);
    those of `outer_sites` where nothing is. Raises ValueError where none fits."""
    from lightning_modules.attention.sites import select
    from lightning_modules.attention.word_maps import outer_sites

    if not any((stage, placement, side, layers)):
        return outer_sites(candidates)
    sites = select(candidates, stage, placement, side)
    if not layers:
        return sites
    for layer in layers:
        if not any(_is_below(site.name, layer) for site in sites):
            parts = [site.name.split(".")[:2] for site in select(candidates)]
            known = list(dict.fromkeys(".".join(part) for part in parts))
            raise ValueError(
                f"layers={layer}: no such cross-attention here{nearest(layer, known)}; expected "
                f"{', '.join(known)}, or a name below one"
            )
    return [site for site in sites if any(_is_below(site.name, layer) for layer in layers)]


def _is_below(name: str, layer: str) -> bool:
    return f"{name}.".startswith(f"{layer}.")


def _read_masks(
    text: str, prompt: str, backbone: Backbone, side: int
) -> tuple[list[Phrase], list[list[int]]]:
    """Phrases of the prompt with their masks, and the indices of their tokens. Raises
    ValueError."""
    from datamodules.batch import Phrase
    from lightning_modules.methods.mask_targets import read_mask

    phrases, indices = [], []
    for part in _names(text):
        words, colon, file = part.partition(":")
        if not (colon and words and file):
            raise ValueError(
                f"masks={text}: {part!r} is no PHRASE:FILE; expected such as red circle:circle.png"
            )
        indices += backbone.text.token_indices(prompt, [words])
        mask = read_mask(Path(file).expanduser(), side, f"the mask of {words!r}")
        phrases.append(Phrase(words, 0, 0, mask >= 0.5))
    return phrases, indices


if __name__ == "__main__":
    sys.exit(main())
