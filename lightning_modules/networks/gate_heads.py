"""Gate heads f(X, e_t): logits of gates [B, N, T] from the features [B, N, C] of N pixels and the
embeddings [B, T, D] of T tokens.

MaskAttn-SDXL (arXiv 2509.15357) says that f is a small network and not which. All heads here
normalise both inputs and are computed in float32 under any autocast: a gate is a comparison, and
bfloat16 would move it. What depends on the pixel alone is computed once for all tokens, what
depends on the token alone once for all pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

KINDS = ("mlp", "conv1x1", "conv3x3", "film", "concat")


def branch(inputs: int, width: int, depth: int) -> nn.Sequential:
    """A normalisation and ``depth`` linear layers, SiLU in between."""
    layers: list[nn.Module] = [nn.LayerNorm(inputs), nn.Linear(inputs, width)]
    for _ in range(depth - 1):
        layers += [nn.SiLU(), nn.Linear(width, width)]
    return nn.Sequential(*layers)


class GateHead(nn.Module):
    """``mlp``: two branches and their scaled dot product, logit = <f(X_i), g(e_t)> / sqrt(width) +
    bias, as the released code has it."""

    def __init__(self, inputs: int, context: int, width: int, depth: int, bias: float) -> None:
        super().__init__()
        self.feature, self.token = branch(inputs, width, depth), branch(context, width, depth)
        self.bias = nn.Parameter(torch.tensor(float(bias)))
        self.scale = width**-0.5

    def forward(self, features: Tensor, tokens: Tensor, plane: tuple[int, int]) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            f = self.feature(features.float())  # [B, N, width]
            t = self.token(tokens.float())  # [B, T, width]
            return f @ t.transpose(1, 2) * self.scale + self.bias


class JointHead(nn.Module):
    """Heads that mix a pixel with a token before their last non-linearity, logit = <v,
    SiLU(h_it)> + bias with h [B, N, T, width].

    ``conv1x1`` and ``conv3x3``: h is a convolution of the plane of concatenated [X, e_t]; since e_t
    is the same everywhere, that is the convolution of X (borders repeated) plus a linear map of
    e_t. ``concat``: h is a linear layer on [f(X_i), g(e_t)], two branches of ``depth`` layers.
    ``film``: the token's branch scales and shifts the pixel's, h = f(X_i) (1 + a(e_t)) + b(e_t).
    h is recomputed in the backward pass instead of being kept.
    """

    def __init__(
        self, kind: str, inputs: int, context: int, width: int, depth: int, bias: float
    ) -> None:
        super().__init__()
        self.film = kind == "film"
        self.kernel = 3 if kind == "conv3x3" else 1
        if kind.startswith("conv"):
            self.feature: nn.Module = nn.LayerNorm(inputs)
            self.mix: nn.Module = nn.Conv2d(
                inputs, width, self.kernel, padding=self.kernel // 2, padding_mode="replicate"
            )
            self.token: nn.Module = nn.Sequential(
                nn.LayerNorm(context), nn.Linear(context, width, bias=False)
            )
        elif kind == "concat":
            self.feature = nn.Sequential(branch(inputs, width, depth), nn.SiLU())
            self.mix = nn.Conv2d(width, width, 1)
            self.token = nn.Sequential(
                branch(context, width, depth), nn.SiLU(), nn.Linear(width, width, bias=False)
            )
        else:
            self.feature = branch(inputs, width, depth)
            self.mix = nn.Identity()
            self.token = nn.Sequential(
                branch(context, width, depth), nn.SiLU(), nn.Linear(width, 2 * width)
            )
        self.out = nn.Linear(width, 1, bias=False)
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(self, features: Tensor, tokens: Tensor, plane: tuple[int, int]) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            f = self.feature(features.float())  # [B, N, .]
            # [B, N, width]
            f = self.mix(f.transpose(1, 2).unflatten(-1, plane)).flatten(-2).transpose(1, 2)
            t = self.token(tokens.float())  # [B, T, width], film: [B, T, 2 width]
            if torch.is_grad_enabled():
                return checkpoint(self._join, f, t, use_reentrant=False, preserve_rng_state=False)
            return self._join(f, t)

    def _join(self, f: Tensor, t: Tensor) -> Tensor:
        f = f.unsqueeze(2)  # [B, N, 1, width]
        if self.film:
            scale, shift = t.unsqueeze(1).chunk(2, dim=-1)
            h = f * (1 + scale) + shift
        else:
            h = f + t.unsqueeze(1)
        return (F.silu(h) @ self.out.weight[0]) + self.bias  # [B, N, T]


def build_head(
    kind: str, inputs: int, context: int, width: int, depth: int, bias: float
) -> nn.Module:
    """Raises ValueError on another kind."""
    if kind not in KINDS:
        raise ValueError(f"gate head {kind!r} is unknown: expected one of {', '.join(KINDS)}")
    if kind == "mlp":
        return GateHead(inputs, context, width, depth, bias)
    return JointHead(kind, inputs, context, width, depth, bias)
