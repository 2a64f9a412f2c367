"""Gate heads of every kind: against plain loops, their sizes, their gradients, and what they
compute how often."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from helpers.unet_inputs import draw
from torch import Tensor, nn

from lightning_modules.networks.gate_heads import KINDS, GateHead, build_head

PLANE = (3, 4)
BATCH, LOCATIONS, TOKENS, INPUTS, CONTEXT, WIDTH = 2, 12, 3, 5, 6, 4

every_kind = pytest.mark.parametrize("kind", KINDS)


def head_of(kind: str, depth: int = 2, bias: float = 0.7) -> nn.Module:
    """A small head with no parameter at a special value."""
    head = build_head(kind, INPUTS, CONTEXT, WIDTH, depth, bias)
    with torch.no_grad():
        for i, parameter in enumerate(head.parameters()):
            parameter += 0.3 * draw(100 + i, *parameter.shape)
    return head


def given(seed: int = 0, tokens: int = TOKENS) -> tuple[Tensor, Tensor]:
    """(features [2, 12, 5], tokens [2, T, 6])."""
    return draw(seed, BATCH, LOCATIONS, INPUTS), draw(seed + 1, BATCH, tokens, CONTEXT)


def gradients(
    head: nn.Module, features: Tensor, tokens: Tensor, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Gradients of a weighted sum of the logits by every parameter and both inputs, the forward
    pass under autocast to ``dtype``."""
    features, tokens = features.clone().requires_grad_(), tokens.clone().requires_grad_()
    head.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        logits = head(features, tokens, PLANE)
    (logits * draw(7, BATCH, LOCATIONS, tokens.shape[1])).sum().backward()
    found = {name: p.grad for name, p in head.named_parameters()} | {
        "features": features.grad,
        "tokens": tokens.grad,
    }
    assert all(grad is not None for grad in found.values())
    return {name: grad for name, grad in found.items() if grad is not None}


# --- what they compute ----------------------------------------------------------------------------


def normalised(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.square().mean() + layer.eps).sqrt() * layer.weight + layer.bias


def along(layers: nn.Module, x: Tensor) -> Tensor:
    """One vector through normalisations, linear layers and SiLU, written out."""
    if isinstance(layers, nn.Sequential):
        for layer in layers:
            x = along(layer, x)
        return x
    if isinstance(layers, nn.LayerNorm):
        return normalised(layers, x)
    if isinstance(layers, nn.Linear):
        return layers.weight @ x + (0 if layers.bias is None else layers.bias)
    assert isinstance(layers, nn.SiLU)
    return x / (1 + (-x).exp())


def one_logit(
    head: nn.Module, kind: str, plane: Tensor, row: int, column: int, token: Tensor
) -> Tensor:
    """The logit of one location of ``plane`` [H, W, C] and one token [D], by the definition of each
    kind."""
    if kind == "mlp":
        return (
            along(head.feature, plane[row, column]) @ along(head.token, token) / WIDTH**0.5
            + head.bias
        )
    if kind == "film":
        scale, shift = along(head.token, token).split(WIDTH)
        mixed = along(head.feature, plane[row, column]) * (1 + scale) + shift
    elif kind == "concat":
        # A linear layer on the concatenation is one on each part, added.
        weight = torch.cat([head.mix.weight[:, :, 0, 0], head.token[2].weight], dim=1)
        parts = [along(head.feature, plane[row, column]), along(head.token[:2], token)]
        mixed = weight @ torch.cat(parts) + head.mix.bias
    else:
        # A convolution of the plane of [X, e_t]; the token's part is the same at each place of the
        # kernel.
        reach = 1 if kind == "conv3x3" else 0
        mixed = head.mix.bias + along(head.token, token)
        for down in range(-reach, reach + 1):
            for right in range(-reach, reach + 1):
                y, x = (
                    min(max(row + down, 0), plane.shape[0] - 1),
                    min(max(column + right, 0), plane.shape[1] - 1),
                )
                mixed = mixed + head.mix.weight[:, :, down + reach, right + reach] @ along(
                    head.feature, plane[y, x]
                )
    return head.out.weight[0] @ (mixed / (1 + (-mixed).exp())) + head.bias


def looped(head: nn.Module, kind: str, features: Tensor, tokens: Tensor) -> Tensor:
    return torch.stack(
        [
            torch.stack(
                [
                    torch.stack(
                        [
                            one_logit(
                                head, kind, x.view(*PLANE, -1), i // PLANE[1], i % PLANE[1], token
                            )
                            for token in sample
                        ]
                    )
                    for i in range(LOCATIONS)
                ]
            )
            for x, sample in zip(features, tokens, strict=True)
        ]
    )


@pytest.mark.parametrize("depth", [1, 2, 3])
@every_kind
def test_logits_and_gradients_are_those_of_a_loop_over_locations_and_tokens(kind: str, depth: int):
    head = head_of(kind, depth)
    wide = deepcopy(head).double()
    features, tokens = given()
    fine = [t.double().requires_grad_() for t in (features, tokens)]
    expected = looped(wide, kind, *fine)
    logits = head(features, tokens, PLANE)
    assert logits.shape == (BATCH, LOCATIONS, TOKENS) and logits.dtype == torch.float32
    assert torch.allclose(logits.double(), expected, atol=1e-5)
    (expected * draw(7, BATCH, LOCATIONS, TOKENS)).sum().backward()
    slow = {name: p.grad for name, p in wide.named_parameters()} | {
        "features": fine[0].grad,
        "tokens": fine[1].grad,
    }
    for name, grad in gradients(head, features, tokens).items():
        other = slow[name]
        assert other is not None and torch.allclose(
            grad.double(), other, atol=1e-4 * max(1, float(other.abs().max()))
        ), name


@every_kind
def test_every_part_gets_a_finite_gradient_also_at_the_ends_of_the_numbers(kind: str):
    head = build_head(kind, INPUTS, CONTEXT, WIDTH, 2, 2.0)
    for name, grad in gradients(head, *given()).items():
        assert bool(grad.isfinite().all()) and bool(grad.any()), name
    # A plane and a text without contrast, and far larger ones than any network has.
    for features, tokens in (
        (torch.zeros(2, 12, 5), torch.zeros(2, 3, 6)),
        tuple(1e4 * t for t in given()),
    ):
        assert all(
            bool(grad.isfinite().all()) for grad in gradients(head, features, tokens).values()
        )


@every_kind
def test_neither_scale_nor_offset_of_its_inputs_matters(kind: str):
    head = head_of(kind)
    features, tokens = given()
    expected = head(features, tokens, PLANE)
    assert torch.allclose(head(3 * features + 2, 5 * tokens - 1, PLANE), expected, atol=1e-3)
    assert not torch.allclose(head(features, tokens.flip(1), PLANE), expected, atol=0.01)
    assert not torch.allclose(head(features.flip(1), tokens, PLANE), expected, atol=0.01)


def test_only_a_wide_kernel_looks_at_the_neighbours():
    features, tokens = given()
    other = features.clone()
    other[:, 0] += draw(9, INPUTS)  # the upper left corner
    touched = torch.tensor([0, 1, 4, 5])
    for kind in KINDS:
        head = head_of(kind)
        with torch.no_grad():
            differs = (head(other, tokens, PLANE) - head(features, tokens, PLANE)).abs().amax(
                (0, 2)
            ) > 1e-6
        assert differs.nonzero().flatten().tolist() == (
            touched.tolist() if kind == "conv3x3" else [0]
        ), kind


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_kind
def test_logits_stay_float32_under_autocast_and_for_half_precision_features(
    kind: str, dtype: torch.dtype
):
    head = head_of(kind)
    features, tokens = given()
    expected = gradients(head, features, tokens)
    with torch.autocast("cpu", dtype=dtype):
        inside = head(features, tokens, PLANE)
    again = gradients(head, features, tokens, dtype)
    assert inside.dtype == torch.float32 and torch.equal(inside, head(features, tokens, PLANE))
    assert all(torch.equal(again[name], grad) for name, grad in expected.items())
    narrow = head(features.to(dtype), tokens.to(dtype), PLANE)
    assert torch.equal(narrow, head(features.to(dtype).float(), tokens.to(dtype).float(), PLANE))


@every_kind
def test_sampling_gives_what_training_gives(kind: str):
    head = head_of(kind)
    with torch.no_grad():
        sampling = head(*given(), PLANE)
    assert torch.equal(head(*given(), PLANE), sampling)


# --- how often, how large -------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 7])
@every_kind
def test_each_part_of_a_head_is_computed_once(kind: str, tokens: int):
    head = head_of(kind)
    seen: list[tuple[str, tuple[int, ...]]] = []
    for name in ("feature", "mix", "token"):
        part = getattr(head, name, None)
        if part is not None:
            part.register_forward_hook(
                lambda module, args, output, name=name: seen.append((name, tuple(args[0].shape)))
            )
    gradients(head, *given(tokens=tokens))  # the backward pass repeats none of them
    expected = {"feature": (BATCH, LOCATIONS, INPUTS), "token": (BATCH, tokens, CONTEXT)}
    if kind != "mlp":
        inside = INPUTS if kind.startswith("conv") else WIDTH
        expected["mix"] = (BATCH, inside, *PLANE)
    assert len(seen) == len(expected) and dict(seen) == expected


@every_kind
def test_nothing_of_the_size_of_locations_by_tokens_by_width_is_kept_for_the_backward_pass(
    kind: str,
):
    head = build_head(kind, 8, 8, 16, 2, 0.0)
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        head(draw(0, 2, 64, 8), draw(1, 2, 24, 8), (8, 8)).sum()
    assert kept and max(kept) < 2 * 64 * 24 * 16 / 4


def test_the_head_of_full_sdxl_has_the_papers_number_of_parameters():
    def count(*arguments: int) -> int:
        return sum(p.numel() for p in build_head("mlp", *arguments, bias=0.0).parameters())

    assert count(1280, 2048, 128, 2) == 465_921
    # Two normalisations, two layers for each branch, and one bias; a third layer is width x width
    # more.
    assert (
        count(10, 6, 16, 2) == 2 * (10 + 6) + (10 + 1) * 16 + (6 + 1) * 16 + 2 * (16 + 1) * 16 + 1
    )
    assert count(10, 6, 16, 3) - count(10, 6, 16, 2) == 2 * (16 + 1) * 16


@pytest.mark.parametrize("bias", [-3.0, 0.0, 3.0])
@every_kind
def test_at_the_start_the_bias_says_where_gates_stand(kind: str, bias: float):
    torch.manual_seed(0)
    head = build_head(kind, 48, 192, 128, 2, bias)
    with torch.no_grad():
        logits = head(draw(0, 2, 64, 48), draw(1, 2, 24, 192), (8, 8))
    assert abs(float(logits.mean()) - bias) < 0.5 and float(logits.std()) < 0.7
    if bias:
        assert float(((logits > 0) == (bias > 0)).float().mean()) > 0.99


def test_depth_and_kind_make_what_is_asked_for():
    def layers(kind: str, depth: int) -> int:
        return sum(
            isinstance(m, nn.Linear) for m in build_head(kind, 5, 6, 4, depth, 0.0).modules()
        )

    assert [layers("mlp", d) for d in (1, 2, 3)] == [2, 4, 6]
    assert layers("conv3x3", 1) == layers("conv3x3", 3)
    assert isinstance(build_head("mlp", 5, 6, 4, 2, 0.0), GateHead)
    assert [
        build_head(kind, 5, 6, 4, 2, 0.0).mix.kernel_size for kind in ("conv1x1", "conv3x3")
    ] == [(1, 1), (3, 3)]
    with pytest.raises(
        ValueError,
        match=(
            "gate head 'conv5x5' is unknown: expected one of mlp, conv1x1, conv3x3, film, concat"
        ),
    ):
        build_head("conv5x5", 5, 6, 4, 2, 0.0)
