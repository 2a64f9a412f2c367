"""Gates inside whole UNets, and PixArt's transformer: open ones change nothing, closed ones act,
all parts are trained and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.unet_inputs import draw
from torch import Tensor

from conf.schema import Gate
from lightning_modules.attention import select, sites
from lightning_modules.attention.gates import Gates
from lightning_modules.attention.token_types import BOS, EOS, PADDING, WORD
from lightning_modules.networks.gate_heads import KINDS


def inputs(backbone: Any) -> dict[str, Any]:
    return {
        "latents": draw(9, 2, backbone.latent_size()[0], 8, 8),
        "timesteps": torch.tensor([900, 20]),
        "text": backbone.text.encode(["a red circle above a white ring", "a green cross"]),
        "resolution": 64,
    }


def gates_for(backbone: Any, bias: float, kind: str | None = "cross", **config: Any) -> Gates:
    torch.manual_seed(0)
    filters = {key: config.pop(key) for key in ("stage", "placement") if key in config}
    return Gates(
        select(sites(backbone.denoiser), kind=kind, **filters),
        Gate(**{"width": 16, "bias": bias} | config),
        backbone.text.token_types,
    )


@pytest.fixture(params=["embedded", "sd1", "pixart"])
def backbone(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_open_gates_leave_the_whole_unet_bit_equal_and_come_out_again(backbone: Any):
    given = inputs(backbone)
    with torch.no_grad():
        stock = backbone.predict(**given)
        processors = dict(backbone.denoiser.attn_processors)
        gates = gates_for(backbone, bias=50.0)
        gates.attach(backbone.denoiser)
        installed = backbone.denoiser.attn_processors
        assert torch.equal(backbone.predict(**given), stock)
        gates.detach()
        with gates_for(backbone, bias=-50.0).attached(backbone.denoiser):
            assert not torch.allclose(backbone.predict(**given), stock, atol=1e-3)
        assert torch.equal(backbone.predict(**given), stock)
    assert {name for name in processors if installed[name] is not processors[name]} == {
        site.processor for site in gates.sites
    }
    assert all(
        backbone.denoiser.attn_processors[name] is processor
        for name, processor in processors.items()
    )


OPEN = [
    *[{"head": kind} for kind in KINDS],
    *[{"mode": mode, "keep": 1.0} for mode in ("soft", "learned", "topk")],
    {"apply_at": "post_softmax"},
    {"apply_at": "post_softmax_renormalised"},
    {"gradient": "released", "protect": "none"},
    {"protect": "specials", "padding_gate": "open", "sharing": "layer"},
    {"kind": "self"},
    {"kind": None, "apply_at": "post_softmax"},
]


@pytest.mark.parametrize("config", OPEN, ids=lambda config: "-".join(map(str, config.values())))
def test_every_kind_of_gate_is_bit_equal_when_open_acts_when_closed_and_learns(
    embedded: Any, config: dict[str, Any]
):
    given, kept = inputs(embedded), {"keep": 0.5} if "keep" in config else {}
    with torch.no_grad():
        stock = embedded.predict(**given)
        with gates_for(embedded, 50.0, **config).attached(embedded.unet):
            assert torch.equal(embedded.predict(**given), stock)
        gates = gates_for(embedded, 0.0, **config | kept)
        with gates.attached(embedded.unet):
            sampling = embedded.predict(**given)
    with gates.attached(embedded.unet):
        closed = embedded.predict(**given)
        closed.square().mean().backward()
    assert torch.allclose(closed, sampling, atol=1e-4), "training gives what sampling gives"
    assert not torch.allclose(closed, stock, atol=1e-4) and bool(closed.isfinite().all())
    assert len(gates.sites) == {"cross": 7, "self": 7, None: 14}[config.get("kind", "cross")]
    thresholds = sum(name.startswith("thresholds.") for name, _ in gates.named_parameters())
    assert thresholds == (3 if config.get("mode") == "learned" else 0)
    for name, p in gates.named_parameters():
        assert p.grad is not None and bool(p.grad.isfinite().all()) and bool(p.grad.any()), name


@pytest.mark.parametrize(
    "config", [{}, {"apply_at": "post_softmax", "kind": None}], ids=["logit", "after the softmax"]
)
def test_gates_look_at_the_conditional_half_alone_where_no_prompt_is_zeros(
    embedded: Any, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]
):
    given = inputs(embedded)
    plain, empty = given["text"], embedded.text.encode_empty(2)
    guided = given | {
        "latents": given["latents"].repeat(2, 1, 1, 1),
        "timesteps": given["timesteps"].repeat(2),
        "text": empty + plain,
    }
    gates, rows = gates_for(embedded, 0.0, **config), []
    for site in gates.sites:
        head = gates.heads[gates.key(site)]
        head.register_forward_hook(
            lambda _, args, out, kind=site.kind: rows.append((kind, len(args[0])))
        )

    def run(**given: Any) -> tuple[Tensor, dict[str, Any]]:
        rows.clear()
        with gates.recording(conditional_half=True, by_image=True) as record:
            return embedded.predict(**given), record.counts_by_image()

    with torch.no_grad(), gates.attached(embedded.unet):
        quick, counts = run(**guided)
        assert {size for kind, size in rows if kind == "cross"} == {2}
        assert {size for kind, size in rows if kind == "self"} <= {4}
        monkeypatch.setattr(Gates, "skips_blank", False)
        slow, expected = run(**guided)
        assert {size for _, size in rows} == {4}
        monkeypatch.undo()
        assert torch.equal(quick[:2], slow[:2]) and torch.allclose(quick, slow, atol=1e-5)
        assert counts == expected
        run(**guided | {"text": plain + plain})
        assert {size for _, size in rows} == {4}, "both halves have a text"
    with gates.attached(embedded.unet):
        rows.clear()
        embedded.predict(**guided)
        assert {size for _, size in rows} == {4}, "gradients are of all rows"


def test_gates_after_the_softmax_differ_unless_they_are_renormalised(embedded: Any):
    def outcome(gradient: str, apply_at: str) -> tuple[Tensor, list[Tensor]]:
        gates = gates_for(embedded, 0.0, apply_at=apply_at, gradient=gradient, stage="high")
        with gates.attached(embedded.unet):
            out = embedded.predict(**inputs(embedded))
            out.square().mean().backward()
        return out.detach(), [p.grad for p in gates.parameters()]

    def same(one: tuple[Tensor, list[Tensor]], other: tuple[Tensor, list[Tensor]]) -> list[bool]:
        """[the same output, the same gradients]"""
        grads = zip(one[1], other[1], strict=True)
        return [
            torch.allclose(one[0], other[0], atol=1e-5),
            all(torch.allclose(a, b, atol=1e-6) for a, b in grads),
        ]

    logit = outcome("exact", "logit")
    assert same(logit, outcome("released", "logit")) == [True, False]
    for gradient in ("exact", "released"):  # -10^4 is a matter of logits alone
        assert same(logit, outcome(gradient, "post_softmax_renormalised")) == [True, True]
        assert same(logit, outcome(gradient, "post_softmax")) == [False, False]


def test_only_bos_acts_where_everything_else_is_closed(embedded: Any):
    gates_for(embedded, bias=-50.0).attach(embedded.unet)
    given = inputs(embedded)
    other = given["text"].hidden.clone()
    other[:, 1:] = 0
    with torch.no_grad():
        one = embedded.predict(**given)
        given["text"].hidden = other
        assert torch.equal(embedded.predict(**given), one)


def test_padding_that_is_taken_out_cannot_matter(embedded: Any):
    given = inputs(embedded)
    known = embedded.text.token_types(given["text"].hidden)
    assert {BOS, WORD, EOS, PADDING} == set(known.flatten().tolist())
    gates = gates_for(embedded, bias=50.0, padding_gate="closed")
    gates.token_types = lambda text: known
    other = given["text"].hidden.masked_fill((known == PADDING)[..., None], 7.0)
    with torch.no_grad():
        stock = embedded.predict(**given)
        gates.attach(embedded.unet)
        one = embedded.predict(**given)
        given["text"].hidden = other
        assert torch.equal(embedded.predict(**given), one) and not torch.allclose(
            one, stock, atol=1e-4
        )


def test_a_pixel_that_looks_at_itself_alone_gets_its_own_value(embedded: Any):
    site = select(sites(embedded.unet), kind="self", stage="high")[0]
    layer, hidden = embedded.unet.get_submodule(site.name), draw(0, 2, 256, site.width)
    gates = Gates([site], Gate(width=8, bias=-50.0))
    with torch.no_grad(), gates.attached(embedded.unet):
        assert torch.allclose(layer(hidden), layer.to_out[0](layer.to_v(hidden)), atol=1e-5)


@pytest.mark.parametrize("bias", [2.0, -5.0], ids=["open", "closed"])
def test_every_gate_parameter_gets_a_gradient_and_no_backbone_weight(backbone: Any, bias: float):
    gates = gates_for(backbone, bias)
    gates.attach(backbone.denoiser)
    backbone.predict(**inputs(backbone)).square().mean().backward()
    for name, parameter in gates.named_parameters():
        assert (
            parameter.grad is not None
            and bool(parameter.grad.isfinite().all())
            and bool(parameter.grad.abs().sum() > 0)
        ), name
    frozen = [backbone.denoiser, backbone.vae, *backbone.text.encoders]
    assert all(p.grad is None for module in frozen for p in module.parameters())


def test_a_conv_head_looks_at_each_pixel_once_for_all_tokens(embedded: Any):
    gates = gates_for(embedded, 0.0, stage="high", head="conv3x3")
    shapes: list[tuple[int, ...]] = []
    (head,) = gates.heads.values()
    head.mix.register_forward_hook(lambda module, args, output: shapes.append(tuple(args[0].shape)))
    with torch.no_grad(), gates.attached(embedded.unet):
        embedded.predict(**inputs(embedded))
    assert shapes == [(2, 48, 8, 8)] * len(gates.sites) == [(2, 48, 8, 8)] * 3


def test_a_recording_ends_also_when_the_block_fails(embedded: Any):
    gates = gates_for(embedded, bias=0.0)
    with gates.recording() as outer:
        with pytest.raises(RuntimeError), gates.recording():
            raise RuntimeError
        assert gates.record is outer
    assert gates.record is None
