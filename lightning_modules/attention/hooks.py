"""How gates, captures and extra tokens get into a UNet or a transformer, together, and out of it
again.

Each of them is a `AttentionHook` that acts at some sites. The first part at a site puts a
`SiteProcessor` in place of the stock processor, the last one to leave puts the stock processor
back. What a part does is fixed when the model's forward pass begins, so that gradient
checkpointing, which runs layers a second time during the backward pass, sees the same parts in the
same state (also when they have been taken out in between) and records nothing twice.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.attention.functional import gated_attention, token_maps
from lightning_modules.attention.sites import Site, halved

REPLACEABLE = ("AttnProcessor", "AttnProcessor2_0", "XFormersAttnProcessor")
ATTRIBUTE = "_attention_wiring"


class AttentionHook:
    """Something that acts at attention sites of one model: use it as ``with part.attached(unet):``,
    or `attach` and `detach`."""

    sites: Sequence[Site]
    _wiring: HookManager | None = None

    def begin(self) -> Any:
        """What acts in the forward pass that begins now; None to stand aside."""
        return self

    def attach(self, model: nn.Module) -> None:
        """Puts the part into a UNet or a transformer. Raises ValueError when it is in one already,
        or cannot be at a site."""
        if self._wiring is not None:
            raise ValueError(f"{type(self).__name__} is attached already: detach it first")
        wiring = model.__dict__.get(ATTRIBUTE) or HookManager(model)
        wiring.add(self)
        self._wiring = wiring

    def detach(self) -> None:
        """Takes it out again; nothing happens when it is in no model."""
        if self._wiring is not None:
            self._wiring.remove(self)
            self._wiring = None

    @property
    def is_attached(self) -> bool:
        return self._wiring is not None

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[Any]:
        self.attach(model)
        try:
            yield self
        finally:
            self.detach()


class GateHook(AttentionHook):
    """A part that says how much each token counts at each location: gates, which act by a rule of
    `functional`. One at a site."""

    rule: str = "exact"

    def weight(self, site: Site, hidden: Tensor, context: Tensor, now: ForwardContext) -> Tensor:
        """[B, N, T] >= 0 for ``hidden`` [B, N, C] and ``context`` [B, T, D]."""
        raise NotImplementedError


class TokenHook(AttentionHook):
    """A part that appends tokens to the text: its `begin` gives something with ``append`` as
    `mask_tokens` has it. One at a site."""


class MapHook(AttentionHook):
    """A part that reads attention maps, any number at a site: its `begin` gives a `Reading`."""


class Reading(Protocol):
    """One forward pass of a part that reads maps, of ``samples`` samples; of a batch of twice as
    many the second half is meant, the conditional one of classifier-free guidance."""

    samples: int
    keep_heads: bool

    def selection(self, key: Tensor) -> Tensor:
        """What is read, [samples, T, objects], as `token_maps` takes it."""

    def take(self, site: Site, maps: Tensor, now: ForwardContext) -> None:
        """The maps of a site, as `token_maps` gives them."""


@dataclass
class SiteState:
    """What happens at one site in one forward pass: what the `begin` of its parts gave."""

    gates: Any = None
    added: Any = None
    reading: list[Reading] = field(default_factory=list)


@dataclass
class ForwardContext:
    """One forward pass of the model."""

    shape: tuple[int, int] | None = None  # height and width of the latents
    timesteps: Tensor | None = None  # [B] or [1]
    # Bool [B, T]: the text's tokens that its mask takes out, where there is a mask
    unread: Tensor | None = None
    acting: dict[str, SiteState] = field(default_factory=dict)
    # Ours, by site, for a second run of a layer
    processors: dict[str, Any] = field(default_factory=dict)
    replay: bool = False

    def plane(self, site: Site, locations: int) -> tuple[int, int]:
        """Height and width of a site's maps. Raises ValueError when they cannot be told."""
        if self.shape is not None:
            height, width = (halved(side, site.level) for side in self.shape)
            if height * width == locations:
                return height, width
        side = round(locations**0.5)
        if side * side != locations:
            latents = "x".join(map(str, self.shape)) if self.shape else "unknown"
            raise ValueError(
                f"{site.name}: {locations} locations are no plane (latents {latents}): "
                "expected height x width of its level"
            )
        return side, side


class HookManager:
    """All the parts in one model. Kept on the model itself while there are any."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.arguments = list(inspect.signature(model.forward).parameters)
        self.parts: list[AttentionHook] = []
        self.sites: dict[str, Site] = {}
        self.stock: dict[str, Any] = {}
        self.current: ForwardContext | None = None
        self.checkpointing = [
            module for module in model.modules() if hasattr(module, "gradient_checkpointing")
        ]
        self._undo: list[Callable[[], None]] = []

    # --- parts --------------------------------------------------------------------------------

    def add(self, part: AttentionHook) -> None:
        layers = {site.name: self.model.get_submodule(site.name) for site in part.sites}
        for name, layer in layers.items():
            kind = type(layer.processor).__name__
            if name not in self.stock and kind not in REPLACEABLE:
                cure = "take out what put it there (IP-Adapter, fused projections)"
                raise ValueError(f"{name} has the processor {kind}: expected a stock one; {cure}")
            for single in (GateHook, TokenHook):
                taken = [
                    other
                    for other in self.parts
                    if isinstance(other, single) and any(site.name == name for site in other.sites)
                ]
                if isinstance(part, single) and taken:
                    cure = "detach it first (a method's remove())"
                    raise ValueError(
                        f"{name} has {type(taken[0]).__name__} already: expected none; {cure}"
                    )
        if not self.parts:
            self.model.__dict__[ATTRIBUTE] = self
            self._undo = [
                self.model.register_forward_pre_hook(self._begin, with_kwargs=True).remove,
                self.model.register_forward_hook(self._end, always_call=True).remove,
            ]
        self.parts.append(part)
        for site in part.sites:
            if site.name not in self.stock:
                self.sites[site.name], self.stock[site.name] = site, layers[site.name].processor
                layers[site.name].set_processor(SiteProcessor(site, self))

    def remove(self, part: AttentionHook) -> None:
        self.parts = [other for other in self.parts if other is not part]
        needed = {site.name for other in self.parts for site in other.sites}
        for name in [name for name in self.stock if name not in needed]:
            layer = self.model.get_submodule(name)
            # Whoever put another processor here since then has the last word.
            if isinstance(layer.processor, SiteProcessor):
                layer.set_processor(self.stock[name])
            del self.stock[name], self.sites[name]
        if not self.parts:
            for undo in self._undo:
                undo()
            self.model.__dict__.pop(ATTRIBUTE, None)

    # --- passes --------------------------------------------------------------------------------

    def acting(self, site: Site) -> tuple[ForwardContext, SiteState]:
        """What is going on at ``site`` now; a layer that is called outside of its model's forward
        pass is a pass of its own."""
        current = self.current or self._pass()
        return current, current.acting[site.name]

    def _begin(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        given = dict(zip(self.arguments, args, strict=False)) | kwargs
        latents = given[self.arguments[0]]  # "sample" of a UNet, "hidden_states" of a transformer
        mask = given.get("encoder_attention_mask")
        # A mask of tokens, or what is added to their logits.
        unread = None if mask is None else mask == 0 if mask.dim() == 2 else mask[:, 0] < 0
        self.current = self._pass(
            tuple(latents.shape[-2:]), torch.as_tensor(given["timestep"]).reshape(-1), unread
        )
        if torch.is_grad_enabled():
            for module in self.checkpointing:
                if module.gradient_checkpointing:
                    stock = module._gradient_checkpointing_func
                    module._gradient_checkpointing_func = _Following(stock, self, self.current)

    def _end(self, *_: Any) -> None:
        self.current = None
        for module in self.checkpointing:
            following = module.__dict__.get("_gradient_checkpointing_func")
            if isinstance(following, _Following):
                module._gradient_checkpointing_func = following.stock

    def _pass(
        self,
        shape: tuple[int, int] | None = None,
        timesteps: Tensor | None = None,
        unread: Tensor | None = None,
    ) -> ForwardContext:
        one = ForwardContext(shape, timesteps, unread, {name: SiteState() for name in self.sites})
        one.processors = {name: self.model.get_submodule(name).processor for name in self.sites}
        for part in self.parts:
            state = part.begin()
            if state is None:
                continue
            for acting in (one.acting[site.name] for site in part.sites):
                if isinstance(part, GateHook):
                    acting.gates = state
                elif isinstance(part, TokenHook):
                    acting.added = state
                else:
                    acting.reading.append(state)
        return one

    @contextmanager
    def replaying(self, past: ForwardContext) -> Iterator[None]:
        """Inside the block layers do again what they did in ``past``, whatever has been attached or
        detached since."""
        layers = {name: self.model.get_submodule(name) for name in past.processors}
        before, processors = self.current, {name: layer.processor for name, layer in layers.items()}
        for name, layer in layers.items():
            layer.processor = past.processors[name]
        self.current, past.replay = past, True
        try:
            yield
        finally:
            self.current, past.replay = before, False
            for name, layer in layers.items():
                layer.processor = processors[name]


class _Following:
    """A gradient checkpointing function whose second run of a module replays the first one's
    pass."""

    def __init__(self, stock: Callable, wiring: HookManager, now: ForwardContext) -> None:
        self.stock, self.wiring, self.now = stock, wiring, now

    def __call__(self, module: Callable, *args: Any) -> Any:
        ran = False

        def run(*inner: Any) -> Any:
            nonlocal ran
            if not ran:
                ran = True
                return module(*inner)
            with self.wiring.replaying(self.now):
                return module(*inner)

        return self.stock(run, *args)


def _read(
    readings: list[Reading],
    site: Site,
    now: ForwardContext,
    given: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    rule: str,
) -> None:
    """Gives every reading its maps. Those of the same kind share the logits and their softmax,
    which is nearly all of the work."""
    groups: dict[tuple[int, bool], list[Reading]] = {}
    for reading in readings:
        groups.setdefault((reading.samples, reading.keep_heads), []).append(reading)
    batch = len(given[0])
    for (samples, keep_heads), group in groups.items():
        if batch not in (samples, 2 * samples):
            expected = (
                f"expected {samples}, one for each list of tokens, or twice as many with guidance"
            )
            raise ValueError(f"a batch of {batch} samples: {expected}")
        query, key, weight, bias = (
            x if x is None or len(x) in (1, samples) else x[samples:] for x in given
        )
        assert query is not None and key is not None
        selections = [reading.selection(key) for reading in group]
        maps = token_maps(query, key, torch.cat(selections, dim=2), weight, bias, keep_heads, rule)
        for reading, found in zip(
            group, maps.split([s.shape[2] for s in selections], dim=-1), strict=True
        ):
            reading.take(site, found, now)


class SiteProcessor:
    """The stock attention of a layer, with what the parts at its site do. A plain class: it owns no
    weights.

    Compiled blocks (`acceleration`) call it as it is: what acts here is looked up anew in each
    pass, which no graph could hold.
    """

    def __init__(self, site: Site, wiring: HookManager) -> None:
        self.site, self.wiring = site, wiring

    @torch.compiler.disable
    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        now, acting = self.wiring.acting(self.site)
        batch, locations, _ = hidden_states.shape
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        bias = None
        if attention_mask is not None:
            bias = attn.prepare_attention_mask(attention_mask, context.shape[1], batch)
            bias = bias.view(batch, attn.heads, -1, bias.shape[-1])
        weight, rule = None, "exact"
        if acting.gates is not None:
            rule = acting.gates.rule
            weight = acting.gates.weight(self.site, hidden_states, context, now)  # [B, N, T]
        if acting.added is not None:
            context, weight, bias = acting.added.append(
                context, weight, bias, now.plane(self.site, locations)
            )

        def heads(x: Tensor) -> Tensor:  # [B, L, heads * d] -> [B, heads, L, d]
            return x.view(batch, -1, attn.heads, x.shape[-1] // attn.heads).transpose(1, 2)

        query, key, value = (
            heads(attn.to_q(hidden_states)),
            heads(attn.to_k(context)),
            heads(attn.to_v(context)),
        )
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        if weight is None:
            out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        else:
            out = gated_attention(query, key, value, weight, bias, rule)
        if acting.reading:
            _read(acting.reading, self.site, now, (query, key, weight, bias), rule)
        out = out.transpose(1, 2).reshape(batch, locations, -1).to(query.dtype)
        out = attn.to_out[1](attn.to_out[0](out))
        return (
            out + hidden_states if attn.residual_connection else out
        ) / attn.rescale_output_factor
