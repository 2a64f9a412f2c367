"""Separate-and-Enhance (arXiv 2312.06712): projections of the cross-attention that give each object
of a prompt a place of its own."""

from __future__ import annotations

from dataclasses import dataclass

from conf.fields import choice, number
from conf.spec import MethodSpec


@dataclass
class Separate:
    """``method.separate``: the losses on the attention maps of a prompt's objects."""

    # Weight of the overlap of the objects' maps
    separate_weight: float = number(1.0, minimum=0)
    # Weight of the weakness of the weakest object
    enhance_weight: float = number(0.5, minimum=0)
    # Weight of the distance to the backbone's prediction on prompts of one object
    distillation_weight: float = number(1.0, minimum=0)
    # Input of the denoiser: noised noise, or noised images
    inputs: str = choice("noise", "images")
    # Training timesteps: all, or the noisier half
    timesteps: str = choice("all", "noisier")
    # What is an object: words that the data set links to one, or any noun phrase
    objects: str = choice("linked", "nouns")
    # Which tokens stand for an object: its words, their last one, or positions 6 and 9
    tokens: str = choice("phrase", "last", "released")
    # The losses look at each head's map, or at their mean
    heads: str = choice("each", "mean")
    # Side of the smoothing kernel in map pixels, odd; 1 does not smooth
    kernel: int = number(3, minimum=1)
    # Width of the kernel, read as the released code does: exp(-(x/2σ)²)
    sigma: float = number(0.5, above=0)
    # Side of the maps in pixels; the nearest that exists is used
    side: int = number(16, minimum=1)
    # The denoising loss alone; or the trained change, its entries permuted
    control: str = choice("none", "denoising", "permuted")
    # How much of the trained change is used; 0 is the untouched backbone
    scale: float = number(1.0, minimum=0)
    # Steps of training on each prompt before it is drawn; 0 trains beforehand instead
    test_time: int = number(0, minimum=0)


METHOD = MethodSpec(
    settings={"separate": Separate},
    reads=("weights",),
    data_kinds=("captions", "prompts"),
    trains=lambda method: method.separate.test_time == 0,
    needs_phrases=lambda method: True,
)
