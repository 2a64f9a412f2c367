"""MaskAttn-SDXL (arXiv 2509.15357): gates on the attention of a frozen denoiser."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from conf.fields import choice, conditional, number
from conf.method.separate_enhance import check_kernel
from conf.spec import MethodSpec, data_kind, data_sets

if TYPE_CHECKING:
    from conf.schema import Method, Run

# Where a loss of their own trains the gates
SUPERVISED = {"supervision": ("density", "masks", "separate_enhance")}
UNTRAINED = {"supervision": ("oracle",)}


@dataclass
class Gate:
    """``method.gate``: what gates look at, how they act, and what trains them."""

    # A gate is open where sigmoid(logit) > threshold
    threshold: float = number(0.5, above=0, below=1, only_if={"mode": ("hard", "learned")})
    # hard: 0 or 1; soft: the probability; learned: hard, with a trained threshold
    mode: str = choice("hard", "soft", "learned", "topk")
    # mode topk: share of the free tokens that stays open at a pixel
    keep: float = number(0.5, above=0, maximum=1, only_if={"mode": ("topk",)})
    # Where the gate acts in the attention
    apply_at: str = choice("logit", "post_softmax", "post_softmax_renormalised")
    # Gradient of a gate at the logits: of a flip, exact, or none for closed gates
    gradient: str = choice(
        "finite_difference",
        "exact",
        "released",
        unless={"apply_at": ("post_softmax",), **UNTRAINED},
    )
    # Network that looks at a pixel and a token
    head: str = choice("mlp", "conv1x1", "conv3x3", "film", "concat")
    # Width of the gate head
    width: int = number(128, minimum=1, maximum=65_536)
    # Linear layers in each branch of the head (not of a conv head)
    depth: int = number(2, minimum=1, maximum=1000, unless={"head": ("conv1x1", "conv3x3")})
    # One head for all layers of a stage, or one for each layer
    sharing: str = choice("stage", "layer")
    # Which levels are gated; in a transformer, thirds of its depth
    stage: str = choice("mid", "all", "high", "low")
    # Which side of the UNet is gated, or which half of a transformer
    placement: str = choice("both", "encoder", "decoder")
    # Which attention layers are gated
    attention: str = choice("cross", "self", "both")
    # Logit at the start; gates start open where it is positive
    bias: float = number(2.0, minimum=-1e6, maximum=1e6)
    # Tokens that are never gated (specials: BOS, EOS, padding; T5 has no BOS)
    protect: str = choice("bos", "none", "specials")
    # Padding: gated as other tokens, never gated, or taken out (PixArt takes it out)
    padding_gate: str = choice("gated", "open", "closed")
    # What opens where every gate is closed: the likeliest token, or all
    if_all_closed: str = choice("strongest", "all")
    # Weight of the denoising loss; 0 trains on the supervision alone
    denoising_weight: float = number(1.0, log=True, minimum=0, maximum=1e6, unless=UNTRAINED)
    # A loss that also closes gates; oracle: true layouts instead of training, an upper bound
    supervision: str = choice("none", "density", "masks", "separate_enhance", "oracle")
    # Weight of the supervision at the start
    supervision_weight: float = number(1.0, log=True, minimum=0, maximum=1e6, only_if=SUPERVISED)
    # How that weight falls to zero over training
    supervision_anneal: str = choice("none", "linear", "cosine", only_if=SUPERVISED)
    # supervision density: target share of open gates
    supervision_density: float = number(
        0.8, minimum=0, maximum=1, only_if={"supervision": ("density",)}
    )
    # supervision masks: open inside the own mask only, or everywhere outside the others'
    supervision_target: str = choice(
        "own", "others", only_if={"supervision": ("masks",), "attention": ("cross", "both")}
    )
    # Whether gates act in training; if not, they learn the same at each threshold
    act_in_training: bool = conditional(
        field(default=True), only_if={"supervision": ("masks",), "denoising_weight": (0,)}
    )

    @property
    def acts_in_training(self) -> bool:
        """Whether what gates do changes what is trained: where only masks supervise them, they may
        look at the untouched backbone."""
        alone = self.supervision == "masks" and self.denoising_weight == 0
        return self.act_in_training or not alone


def unread_in_training(method: Method) -> tuple[str, ...]:
    """The settings by which gates act, where they do not act in training: the loss is of their
    logits. (A threshold that is learned is trained, and begins where the setting says.)"""
    if method.gate.acts_in_training:
        return ()
    acting = ("keep", "apply_at", "gradient", "if_all_closed", "protect", "padding_gate")
    decided = () if method.gate.mode == "learned" else ("mode", "threshold")
    return tuple(f"method.gate.{name}" for name in (*acting, *decided))


def check(config: Run) -> None:
    """Raises ValueError where nothing would be trained, or gates and data do not go together."""
    gate, embedded = config.method.gate, data_sets()[config.data.name].embedded(config)
    if gate.supervision == "oracle" and not (embedded and data_kind(config) == "captions"):
        raise ValueError(
            "method.gate.supervision=oracle needs data=shapes: only the embedded world has "
            "a judge that says where objects are"
        )
    if gate.denoising_weight == 0 and (gate.supervision == "none" or gate.supervision_weight == 0):
        given = f"method.gate.supervision={gate.supervision} of weight {gate.supervision_weight:g}"
        raise ValueError(
            f"method.gate.denoising_weight=0 with {given}: nothing would be trained; set one of "
            "them"
        )
    if gate.supervision == "separate_enhance":
        check_kernel(config.method)
    if gate.gradient == "released" and gate.mode == "soft" and gate.apply_at == "logit":
        raise ValueError(
            "method.gate.gradient=released with method.gate.mode=soft: it is a gradient of "
            "binary gates; use exact"
        )


def check_evaluation(config: Run, late: Run) -> None:
    """Raises ValueError where evaluation wants thresholds that were not trained."""
    if late.method.gate.mode == "learned" != config.method.gate.mode:
        raise ValueError(
            "method.gate.mode=learned cannot change after training: the thresholds were not "
            "trained; use when=train"
        )


def undefined(method: Method) -> dict[str, str]:
    """Values of gates -> why these are not measured."""
    if method.gate.supervision == "oracle":
        trained = ("gates_reopened", "gates_shut", "gate_mask_iou", "overhead", "parameters")
        return dict.fromkeys(trained, "method.gate.supervision=oracle trains no gates")
    if method.gate.attention == "self":
        why = "method.gate.attention=self: gates of pixels on words are compared with masks"
        return {"gate_mask_iou": why}
    return {}


METHOD = MethodSpec(
    settings={"gate": Gate},
    reads=("separate",),
    read_if={"method.separate.": {"method.gate.supervision": ("separate_enhance",)}},
    # Its losses on maps are all that gates learn from
    unread=tuple(
        f"method.separate.{name}"
        for name in (
            "distillation_weight",
            "distillation_step",
            "distillation_object",
            "distillation_article",
            "inputs",
            "tokens",
            "store",
            "control",
            "scale",
            "test_time",
        )
    ),
    trains=lambda method: method.gate.supervision != "oracle",
    asks_backbone=lambda method: method.gate.stage == "low" and method.gate.placement != "both",
    draws_with=lambda method: ("judge",) if method.gate.supervision == "oracle" else (),
    needs_phrases=lambda method: method.gate.supervision in ("masks", "separate_enhance"),
    needs_masks=lambda method: method.gate.supervision == "masks",
    naming=lambda method: (
        method.separate.objects if method.gate.supervision == "separate_enhance" else "linked"
    ),
    without_phrases="set method.gate.supervision=none or density, which need none",
    singular=lambda method: "one" if method.gate.supervision == "masks" else "all",
    fixed_after_training=(
        "method.gate.head",
        "method.gate.width",
        "method.gate.depth",
        "method.gate.sharing",
        "method.gate.stage",
        "method.gate.placement",
        "method.gate.attention",
        "method.gate.bias",
        "method.gate.gradient",
        "method.gate.denoising_weight",
        "method.gate.supervision",
        "method.gate.act_in_training",
        "method.separate.",
    ),
    unread_in_training=unread_in_training,
    diagnoses=("gate_stats",),
    undefined=undefined,
    check=check,
    check_evaluation=check_evaluation,
)
