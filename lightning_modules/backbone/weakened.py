"""A pass of the denoiser with weakened self-attention, from which guidance leads away.

  pag  each pixel attends to itself alone: the maps are the identity (arXiv 2403.17377)
  seg  queries are blurred over the image plane, without end at a large sigma (2408.00760)
  slg  the transformer blocks of these layers are left out, as SD3.5's skip layer guidance does

They act in the mid block's layers, or in a transformer's middle third, by hooks on modules:
processors stay, stock ones and those of a method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.attention.hooks import reading_nothing
from lightning_modules.attention.sites import Site, halved, sites

__all__ = ["find_weakened", "weakened"]

WIDE = 9999.0  # Sigma from which on each query is the mean of all, as in diffusers


def find_weakened(denoiser: Any, guider: str) -> list[Site]:
    """The self-attention layers that ``guider`` weakens: those of the mid block, or of a
    transformer's middle third. Raises ValueError where there are none."""
    own = [site for site in sites(denoiser) if site.kind == "self"]
    middle = [site for site in own if site.placement == "bridge"]
    middle = middle or [site for site in own if site.stage == "mid"]
    if not middle:
        raise ValueError(
            f"evaluation.guider={guider}: {type(denoiser).__name__} has no self-attention in its "
            "middle, which it would weaken; set evaluation.guider=cfg"
        )
    return middle


@contextmanager
def weakened(
    denoiser: nn.Module, guider: str, latent_size: tuple[int, int], sigma: float = math.inf
) -> Iterator[None]:
    """Inside the block the middle self-attention of ``denoiser`` is weakened as ``guider`` (pag,
    seg, slg) has it, for latents of this height and width, and nothing is read from its maps."""
    with ExitStack() as undo:
        undo.enter_context(reading_nothing(denoiser))
        for site in find_weakened(denoiser, guider):
            layer = denoiser.get_submodule(site.name)
            if guider == "pag":
                handle = layer.register_forward_hook(_attend_to_itself, with_kwargs=True)
            elif guider == "seg":
                height, width = (halved(side, site.level) for side in latent_size)
                handle = layer.get_submodule("to_q").register_forward_hook(
                    _blurring(height, width, sigma)
                )
            else:
                block = denoiser.get_submodule(site.name.rpartition(".")[0])
                handle = block.register_forward_hook(_leave_out, with_kwargs=True)
            undo.callback(handle.remove)
        yield


def _given(args: tuple, kwargs: dict) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _attend_to_itself(layer: Any, args: tuple, kwargs: dict, output: Tensor) -> Tensor:
    """The layer's output [B, N, C] with the identity as its maps."""
    projected = layer.to_out[0](layer.to_v(_given(args, kwargs)))
    return layer.to_out[1](projected)


def _leave_out(block: Any, args: tuple, kwargs: dict, output: Any) -> Any:
    if isinstance(output, tuple):  # Of joint attention, which gives text and image
        return kwargs["encoder_hidden_states"], _given(args, kwargs)
    return _given(args, kwargs)


def _blurring(height: int, width: int, sigma: float) -> Callable[[Any, Any, Tensor], Tensor]:
    """A hook that blurs queries [B, N, C] over their ``height`` x ``width`` pixels."""
    if sigma > WIDE:
        return lambda layer, args, query: query.mean(1, keepdim=True).expand_as(query)
    # Of six sigma and odd, but no wider than reflection at the edge can fill
    size = math.ceil(6 * sigma) + 1 - math.ceil(6 * sigma) % 2
    radius = min(size // 2, height - 1, width - 1)

    def blur(layer: Any, args: Any, query: Tensor) -> Tensor:
        place = query.new_tensor(range(-radius, radius + 1))
        weight = (-0.5 * (place / sigma) ** 2).exp()
        weight = weight / weight.sum()
        plane = query.transpose(1, 2).reshape(-1, 1, height, width)
        plane = F.pad(plane, (radius,) * 4, mode="reflect")
        plane = F.conv2d(F.conv2d(plane, weight.view(1, 1, 1, -1)), weight.view(1, 1, -1, 1))
        return plane.reshape(len(query), query.shape[2], -1).transpose(1, 2)

    return blur
