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


def inputs(backbone: Any, batch: int = 2) -> dict[str, Any]:
    text = backbone.text.encode(["a red circle above a white ring", "a green cross"][:batch])
    return {
        "latents": draw(9, batch, *backbone.latent_size()),
        "timesteps": torch.tensor([900, 20][:batch]),
        "text": text,
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
def test_every_kind_of_gate_is_bit_equal_when_open_and_acts_when_closed(
    embedded: Any, config: dict[str, Any]
):
    given = inputs(embedded)
    with torch.no_grad():
        stock = embedded.predict(**given)
        with gates_for(embedded, 50.0, **config).attached(embedded.unet):
            assert torch.equal(embedded.predict(**given), stock)
        with gates_for(
            embedded, 0.0, **config | ({"keep": 0.5} if "keep" in config else {})
        ).attached(embedded.unet) as gates:
            closed = embedded.predict(**given)
    assert len(gates.sites) == {"cross": 7, "self": 7, None: 14}[config.get("kind", "cross")]
    assert not torch.allclose(closed, stock, atol=1e-4) and bool(closed.isfinite().all())


@pytest.mark.parametrize("point", ["logit", "post_softmax", "post_softmax_renormalised"])
def test_points_of_injection_differ_where_they_should(embedded: Any, point: str):
    def outputs(gradient: str, point: str) -> tuple[Tensor, list[Tensor]]:
        with gates_for(embedded, 0.0, apply_at=point, gradient=gradient).attached(
            embedded.unet
        ) as gates:
            out = embedded.predict(**inputs(embedded))
            out.square().mean().backward()
        return out.detach(), [p.grad for p in gates.parameters()]

    logit, expected = outputs("exact", "logit")
    out, grads = outputs("exact", point)
    released, others = outputs("released", point)
    same = torch.allclose(out, logit, atol=1e-5) and all(
        torch.allclose(a, b, atol=1e-6) for a, b in zip(grads, expected, strict=True)
    )
    assert same == (point != "post_softmax")
    # The gradient is that of gates at the logits; elsewhere the gradient is exact.
    assert torch.allclose(released, out, atol=1e-5)
    assert all(torch.allclose(a, b) for a, b in zip(grads, others, strict=True)) == (
        point != "logit"
    )


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


def test_a_location_that_looks_at_itself_alone_gets_its_own_value(embedded: Any):
    site = select(sites(embedded.unet), kind="self", stage="high")[0]
    layer, hidden = embedded.unet.get_submodule(site.name), draw(0, 2, 256, site.width)
    gates = Gates([site], Gate(width=8, bias=-50.0))
    with torch.no_grad(), gates.attached(embedded.unet):
        assert torch.allclose(layer(hidden), layer.to_out[0](layer.to_v(hidden)), atol=1e-5)


def test_the_training_pass_gives_what_sampling_gives(embedded: Any):
    gates_for(embedded, bias=0.0).attach(embedded.unet)
    given = inputs(embedded)
    with torch.no_grad():
        sampling = embedded.predict(**given)
    training = embedded.predict(**given)
    assert training.requires_grad and torch.allclose(training, sampling, atol=1e-4)


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


@pytest.mark.parametrize("config", OPEN[1:], ids=lambda config: "-".join(map(str, config.values())))
def test_every_part_of_every_kind_of_gate_is_trained(embedded: Any, config: dict[str, Any]):
    with gates_for(embedded, 0.0, **config | ({"keep": 0.5} if "keep" in config else {})).attached(
        embedded.unet
    ) as gates:
        embedded.predict(**inputs(embedded)).square().mean().backward()
    assert sum(name.startswith("thresholds.") for name, _ in gates.named_parameters()) == (
        3 if config.get("mode") == "learned" else 0
    )
    for name, parameter in gates.named_parameters():
        assert (
            parameter.grad is not None
            and bool(parameter.grad.isfinite().all())
            and bool(parameter.grad.any())
        ), name


def test_a_conv_head_looks_at_each_location_once_for_all_tokens(embedded: Any):
    gates = gates_for(embedded, 0.0, stage="high", head="conv3x3")
    shapes: list[tuple[int, ...]] = []
    (head,) = gates.heads.values()
    head.mix.register_forward_hook(lambda module, args, output: shapes.append(tuple(args[0].shape)))
    with torch.no_grad(), gates.attached(embedded.unet):
        embedded.predict(**inputs(embedded))
    assert shapes == [(2, 48, 16, 16)] * len(gates.sites) == [(2, 48, 16, 16)] * 3


def test_a_recording_ends_also_when_the_block_fails(embedded: Any):
    gates = gates_for(embedded, bias=0.0)
    with gates.recording() as outer:
        with pytest.raises(RuntimeError), gates.recording():
            raise RuntimeError
        assert gates.record is outer
    assert gates.record is None
