"""How gates, captures and extra tokens get into a UNet or a transformer, together, and out of it
again.

Each of them is an `AttentionHook` that acts at some sites. The first hook at a site puts a
`SiteProcessor` in place of the stock processor, the last one to leave puts the stock processor
back. What a hook does is fixed when the model's forward pass begins, so that gradient
checkpointing, which runs layers a second time during the backward pass, sees the same hooks in the
same state (also when they have been detached in between) and records nothing twice.

What the stock pipeline's own switches do to the layers meanwhile (other processors, layers that are
replaced or left out) ends in an error in the next forward pass: a hook is never lost in silence.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conf.describe import show_count
from lightning_modules.attention.functional import gated_attention, token_maps
from lightning_modules.attention.memory import check_free
from lightning_modules.attention.saving import NotPickled, refuse_saving
from lightning_modules.attention.sites import Site, halved

REPLACEABLE = (
    "AttnProcessor",
    "AttnProcessor2_0",
    "XFormersAttnProcessor",
    "JointAttnProcessor2_0",
    "FluxAttnProcessor",
)
ATTRIBUTE = "_attention_hooks"
# Part of a processor's name -> the call that takes it out
CAUSES = {
    "IPAdapter": "the pipeline's unload_ip_adapter()",
    "Sliced": "the pipeline's disable_attention_slicing()",
    "Fused": "unfuse_qkv_projections()",
}
CURE = "take the method out with its remove(), undo that, and install() it again"


def has_hooks(model: nn.Module) -> bool:
    """Whether anything is attached to the model."""
    return ATTRIBUTE in model.__dict__


class AttentionHook:
    """Something that acts at attention sites of one model: use it as ``with hook.attached(unet):``,
    or `attach` and `detach`."""

    sites: Sequence[Site]
    _manager: HookManager | None = None

    def begin(self) -> Any:
        """What acts in the forward pass that begins now; None to stand aside."""
        return self

    def attach(self, model: nn.Module) -> None:
        """Puts the hook into a UNet or a transformer. Raises ValueError when it is in one already,
        or cannot be at a site."""
        if self._manager is not None:
            raise ValueError(f"{type(self).__name__} is attached already: detach it first")
        manager = model.__dict__.get(ATTRIBUTE) or HookManager(model)
        manager.add(self)
        self._manager = manager

    def detach(self) -> None:
        """Takes it out again; nothing happens when it is in no model."""
        if self._manager is not None:
            self._manager.remove(self)
            self._manager = None

    @property
    def is_attached(self) -> bool:
        return self._manager is not None

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[Any]:
        self.attach(model)
        try:
            yield self
        finally:
            self.detach()


@contextmanager
def reading_nothing(model: nn.Module) -> Iterator[None]:
    """Inside the block the model's passes are read by no `MapHook`; all else acts in them."""
    manager = model.__dict__.get(ATTRIBUTE)
    if manager is None:
        yield
        return
    manager.reads, before = False, manager.reads
    try:
        yield
    finally:
        manager.reads = before


class GateHook(AttentionHook):
    """A hook that says how much each token counts at each pixel: gates, which act by a rule of
    `functional`. One at a site."""

    rule: str = "exact"

    @property
    def skips_blank(self) -> bool:
        """Whether it may be left out where a text of zeros stands for no prompt
        (`ForwardContext.split_guidance`)."""
        return True

    def weight(
        self, site: Site, hidden: Tensor, context: Tensor, forward: ForwardContext
    ) -> Tensor | None:
        """[B, N, T] >= 0 for ``hidden`` [B, N, C] and ``context`` [B, T, D]; None to look on."""
        raise NotImplementedError


class TokenHook(AttentionHook):
    """A hook that appends tokens to the text: its `begin` gives something with ``append`` as
    `mask_tokens` has it. One at a site."""


class MapHook(AttentionHook):
    """A hook that reads attention maps, any number at a site: its `begin` gives a `MapReader`."""

    def count_bytes(self) -> int:
        """What the maps of the next forward pass take, by the sites' own sizes."""
        return 0


class MapReader(Protocol):
    """What a `MapHook` reads in one forward pass of ``samples`` samples; of a batch of twice as
    many it reads the second half, the conditional one of classifier-free guidance."""

    samples: int
    keep_heads: bool

    def token_weights(self, key: Tensor) -> Tensor:
        """The tokens of each object, [samples, T, objects], as `token_maps` takes them."""

    def store(self, site: Site, maps: Tensor, forward: ForwardContext) -> None:
        """Takes the maps of a site, as `token_maps` gives them."""


@dataclass
class SiteState:
    """What acts at one site in one forward pass: what the `begin` of its hooks gave."""

    gates: Any = None
    tokens: Any = None
    readers: list[MapReader] = field(default_factory=list)


@dataclass
class ForwardContext:
    """One forward pass of the model."""

    latent_size: tuple[int, int] | None = None  # Height and width of the latents
    timesteps: Tensor | None = None  # [B] or [1]
    # Bool [B, T]: the text's tokens that its mask takes out, where there is a mask
    masked_out: Tensor | None = None
    states: dict[str, SiteState] = field(default_factory=dict)
    # Ours, by site, for a second run of a layer
    processors: Mapping[str, Any] = field(default_factory=dict)
    replay: bool = False
    ran: set[str] = field(default_factory=set)  # The sites whose layers ran in it
    # Whether its rows are the conditional half of a batch with guidance alone
    conditional: bool = False
    text: Tensor | None = None  # [B, T, D]: the encoded text that the model was given
    # A context, and what `split_guidance` gave for it: layers share both
    _split: tuple[Tensor, tuple[Tensor, ForwardContext] | None] | None = None

    def split_guidance(self, context: Tensor) -> tuple[Tensor, ForwardContext] | None:
        """The second half of ``context`` [B, T, D] and the pass of these rows alone, where the
        first half is zeros (SDXL's empty prompt), else None.

        Without a bias the values of zeros are zeros: what attends to them gets zeros, whatever its
        logits and gates are.
        """
        if self._split is None or self._split[0] is not context:
            half, found = len(context) // 2, None
            if len(context) == 2 * half and not bool(context[:half].any()):

                def second(rows: Tensor | None) -> Tensor | None:
                    return rows if rows is None or len(rows) == 1 else rows[half:]

                timesteps, masked_out = second(self.timesteps), second(self.masked_out)
                alone = replace(
                    self, timesteps=timesteps, masked_out=masked_out, conditional=True, _split=None
                )
                found = context[half:], alone
            self._split = context, found
        return self._split[1]

    def map_size(self, site: Site, pixels: int) -> tuple[int, int]:
        """Height and width of a site's maps. Raises ValueError when ``pixels`` fit none."""
        if self.latent_size is not None:
            height, width = (halved(side, site.level) for side in self.latent_size)
            if height * width == pixels:
                return height, width
        side = round(pixels**0.5)
        if side * side != pixels:
            latents = "x".join(map(str, self.latent_size)) if self.latent_size else "unknown"
            raise ValueError(
                f"{site.name}: {pixels} pixels are no map (latents {latents}): "
                "expected height x width of its level"
            )
        return side, side


class HookManager(NotPickled):
    """All the hooks in one model. Kept on the model itself while there are any."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.arguments = list(inspect.signature(model.forward).parameters)
        self.hooks: list[AttentionHook] = []
        self.sites: dict[str, Site] = {}
        self.stock: dict[str, Any] = {}  # The processors that ours stand in for
        self.current: ForwardContext | None = None
        self.reads = True
        self.checkpointing = [
            module for module in model.modules() if hasattr(module, "gradient_checkpointing")
        ]
        self._undo: list[Callable[[], None]] = []

    # --- hooks -----------------------------------------------------------------------------------

    def add(self, hook: AttentionHook) -> None:
        layers = {site.name: self.model.get_submodule(site.name) for site in hook.sites}
        for name, layer in layers.items():
            self._check(hook, name, type(_stock_processor(layer)).__name__)
        if not self.hooks:
            self.model.__dict__[ATTRIBUTE] = self
            self._undo = [
                self.model.register_forward_pre_hook(self._begin, with_kwargs=True).remove,
                self.model.register_forward_hook(self._end, always_call=True).remove,
                refuse_saving(self.model, "what acts in its attention layers"),
            ]
        self.hooks.append(hook)
        for site in hook.sites:
            if site.name not in self.stock:
                stock = _stock_processor(layers[site.name])
                self.sites[site.name], self.stock[site.name] = site, stock
                kind = _joint_processor() if site.is_joint else SiteProcessor
                layers[site.name].set_processor(kind(site, self, stock))

    def _check(self, hook: AttentionHook, name: str, processor: str) -> None:
        """Raises ValueError where ``hook`` cannot be at the site ``name``."""
        layer: Any = self.model.get_submodule(name)
        # UNets' layers say so for good, and have another processor while it is so
        if getattr(layer, "fused_projections", False) and hasattr(layer, "unfuse_projections"):
            processor = f"Fused{processor}"
        if name not in self.stock and processor not in REPLACEABLE:
            causes = (cause for word, cause in CAUSES.items() if word in processor)
            cure = next(causes, "set_default_attn_processor() puts stock ones in their places")
            raise ValueError(
                f"{name} has the processor {processor}: expected a stock one; take out what put it "
                f"there: {cure}"
            )
        for single in (GateHook, TokenHook):
            for other in self.hooks:
                if (
                    isinstance(hook, single)
                    and isinstance(other, single)
                    and any(site.name == name for site in other.sites)
                ):
                    cure = "detach it first (a method's remove())"
                    raise ValueError(
                        f"{name} has {type(other).__name__} already: expected none; {cure}"
                    )

    def remove(self, hook: AttentionHook) -> None:
        self.hooks = [other for other in self.hooks if other is not hook]
        needed = {site.name for other in self.hooks for site in other.sites}
        for name in [name for name in self.stock if name not in needed]:
            layer = _find_layer(self.model, name)
            # A processor that somebody put here since then stays.
            if isinstance(getattr(layer, "processor", None), SiteProcessor):
                layer.set_processor(self.stock[name])
            del self.stock[name], self.sites[name]
        if not self.hooks:
            for undo in self._undo:
                undo()
            self.model.__dict__.pop(ATTRIBUTE, None)

    # --- forward passes --------------------------------------------------------------------------

    def state_at(self, site: Site) -> tuple[ForwardContext, SiteState]:
        """The forward pass and what acts at ``site`` in it; a layer that is called outside of its
        model's forward pass is a pass of its own."""
        current = self.current or self._new_context()
        if not current.replay:
            current.ran.add(site.name)
        # None acts where one that was taken out has been put back from outside
        return current, current.states.get(site.name) or SiteState()

    @torch.compiler.disable
    def _begin(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        given = dict(zip(self.arguments, args, strict=False)) | kwargs
        latents = given[self.arguments[0]]  # "sample" of a UNet, "hidden_states" of a transformer
        size = tuple(latents.shape[-2:])
        if self.reads:
            maps = (hook.count_bytes() for hook in self.hooks if isinstance(hook, MapHook))
            check_free(maps, latents.device)
        mask = given.get("encoder_attention_mask")
        # A mask of tokens, or what is added to their logits.
        masked_out = None if mask is None else mask == 0 if mask.dim() == 2 else mask[:, 0] < 0
        timesteps = torch.as_tensor(given["timestep"]).reshape(-1)
        if (places := given.get("img_ids")) is not None:  # FLUX: packed latents, shares of noise
            rows, columns = (int(last) + 1 for last in places.reshape(-1, 3)[-1, 1:])
            size, timesteps = (2 * rows, 2 * columns), timesteps * 1000
        self.current = self._new_context(size, timesteps, masked_out)
        self.current.text = given.get("encoder_hidden_states")
        if torch.is_grad_enabled():
            for module in self.checkpointing:
                if module.gradient_checkpointing:
                    stock = module._gradient_checkpointing_func
                    module._gradient_checkpointing_func = _ReplayingCheckpoint(
                        stock, self, self.current
                    )

    @torch.compiler.disable
    def _end(self, model: nn.Module, args: tuple, output: Any) -> None:
        """Raises ValueError where a layer did not run in a pass that came to its end."""
        ended, self.current = self.current, None
        for module in self.checkpointing:
            ours = module.__dict__.get("_gradient_checkpointing_func")
            if isinstance(ours, _ReplayingCheckpoint):
                module._gradient_checkpointing_func = ours.stock
        if ended is None or output is None or len(ended.ran) >= len(ended.states):
            return
        skipped = next(name for name in ended.states if name not in ended.ran)
        raise ValueError(
            f"{skipped} of {type(model).__name__} did not attend in this pass though a method acts "
            "there: something skips it or computes in its place (a cache of blocks, a patched "
            f"forward); {CURE}"
        )

    def _own_processors(self) -> dict[str, SiteProcessor]:
        """Ours, by site. Raises ValueError where another has been put in the place of one."""
        found = {}
        for name in self.sites:
            processor = getattr(_find_layer(self.model, name), "processor", None)
            if not (isinstance(processor, SiteProcessor) and processor.manager is self):
                raise ValueError(
                    f"{name} of {type(self.model).__name__} has the processor "
                    f"{type(processor).__name__} though a method acts there, which would be lost "
                    "(attention slicing, fused projections, IP-Adapter, set_attn_processor put "
                    f"others there): {CURE}"
                )
            found[name] = processor
        return found

    def _new_context(
        self,
        latent_size: tuple[int, int] | None = None,
        timesteps: Tensor | None = None,
        masked_out: Tensor | None = None,
    ) -> ForwardContext:
        processors = self._own_processors()
        states = {name: SiteState() for name in self.sites}
        for hook in self.hooks:
            reads = isinstance(hook, MapHook)
            acting = None if reads and not self.reads else hook.begin()
            if acting is None:
                continue
            for state in (states[site.name] for site in hook.sites):
                if isinstance(hook, GateHook):
                    state.gates = acting
                elif isinstance(hook, TokenHook):
                    state.tokens = acting
                else:
                    state.readers.append(acting)
        return ForwardContext(latent_size, timesteps, masked_out, states, processors)

    @contextmanager
    def replaying(self, past: ForwardContext) -> Iterator[None]:
        """Inside the block layers do again what they did in ``past``, also where hooks have been
        attached or detached since."""
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


class _ReplayingCheckpoint:
    """A gradient checkpointing function whose second run of a module replays its first one's
    forward pass."""

    def __init__(self, stock: Callable, manager: HookManager, forward: ForwardContext) -> None:
        self.stock, self.manager, self.forward = stock, manager, forward

    def __call__(self, module: Callable, *args: Any) -> Any:
        ran = False

        def run(*inner: Any) -> Any:
            nonlocal ran
            if not ran:
                ran = True
                return module(*inner)
            with self.manager.replaying(self.forward):
                return module(*inner)

        return self.stock(run, *args)


def _find_layer(model: nn.Module, name: str) -> Any:
    """The layer of that name; None where there is none any more."""
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _stock_processor(layer: Any) -> Any:
    """A layer's processor; of one of ours that was taken out, and put back from outside, the one
    that it stood in for."""
    processor = layer.processor
    while (
        isinstance(processor, SiteProcessor) and processor.site.name not in processor.manager.sites
    ):
        processor = processor.stock
    return processor


def _leave_out_blank(
    attn: nn.Module, state: SiteState, forward: ForwardContext, context: Tensor
) -> tuple[Tensor, ForwardContext] | None:
    """`ForwardContext.split_guidance` where gates act and nothing else asks for the rows of
    zeros."""
    asked = (
        state.gates is None
        or not attn.is_cross_attention
        or not state.gates.skips_blank
        or state.tokens is not None
        or any(2 * reader.samples != len(context) for reader in state.readers)
        or getattr(attn.to_v, "bias", None) is not None
        or torch.is_grad_enabled()
    )
    return None if asked else forward.split_guidance(context)


def group_readers(
    readers: Sequence[MapReader], batch: int
) -> Iterator[tuple[int, bool, list[MapReader]]]:
    """(samples, whether heads are kept, the readers that share both). Raises ValueError where one
    of them does not read a batch of that many."""
    groups: dict[tuple[int, bool], list[MapReader]] = {}
    for reader in readers:
        groups.setdefault((reader.samples, reader.keep_heads), []).append(reader)
    for (samples, keep_heads), group in groups.items():
        if batch not in (samples, 2 * samples):
            raise ValueError(
                f"a batch of {show_count(batch, 'sample')}: expected {samples}, one for each list "
                "of tokens, or twice as many with guidance"
            )
        yield samples, keep_heads, group


def conditional_rows(x: Any, samples: int) -> Any:
    """The rows of a batch that ``samples`` are read of: all, or the second half with guidance."""
    return x if x is None or len(x) in (1, samples) else x[samples:]


def _joint_processor() -> type[SiteProcessor]:
    from lightning_modules.attention.joint import JointSiteProcessor  # It is made of what is here

    return JointSiteProcessor


class SiteProcessor(NotPickled):
    """The stock attention of a layer, with what the hooks at its site do. A plain class: it owns no
    weights.

    Compiled blocks (`acceleration`) call it as it is: what acts here is looked up in each forward
    pass, which no graph could hold.
    """

    def __init__(self, site: Site, manager: HookManager, stock: Any) -> None:
        self.site, self.manager, self.stock = site, manager, stock

    @torch.compiler.disable
    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        forward, state = self.manager.state_at(self.site)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        queried, blank = hidden_states, 0  # Rows that attend, how many before them get zeros
        if attention_mask is None and (split := _leave_out_blank(attn, state, forward, context)):
            context, forward = split
            blank = len(context)
            queried = hidden_states[blank:]
        batch, pixels, _ = queried.shape
        bias = None
        if attention_mask is not None:
            bias = attn.prepare_attention_mask(attention_mask, context.shape[1], batch)
            bias = bias.view(batch, attn.heads, -1, bias.shape[-1])
        weight, rule = None, "exact"
        if state.gates is not None:
            rule = state.gates.rule
            weight = state.gates.weight(self.site, queried, context, forward)  # [B, N, T]
        if state.tokens is not None:
            size = forward.map_size(self.site, pixels)
            context, weight, bias = state.tokens.append(context, weight, bias, size)

        def heads(x: Tensor) -> Tensor:  # [B, L, heads * d] -> [B, heads, L, d]
            return x.view(batch, -1, attn.heads, x.shape[-1] // attn.heads).transpose(1, 2)

        query = heads(attn.to_q(queried))
        key = heads(attn.to_k(context))
        value = heads(attn.to_v(context))
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        if weight is None:
            out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        else:
            out = gated_attention(query, key, value, weight, bias, rule)
        if state.readers:
            self._read_maps(state.readers, forward, query, key, weight, bias, rule)
        out = out.transpose(1, 2).reshape(batch, pixels, -1).to(query.dtype)
        if blank:
            out = torch.cat([torch.zeros_like(out), out])
        out = attn.to_out[1](attn.to_out[0](out))
        if attn.residual_connection:
            out = out + hidden_states
        return out / attn.rescale_output_factor

    def _read_maps(
        self,
        readers: list[MapReader],
        forward: ForwardContext,
        query: Tensor,
        key: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        rule: str,
    ) -> None:
        """Gives every reader its maps. Those of the same kind share the logits and their softmax,
        which is nearly all of the work."""
        for samples, keep_heads, group in group_readers(readers, len(query)):
            own = conditional_rows(key, samples)
            tokens = [reader.token_weights(own) for reader in group]
            maps = token_maps(
                conditional_rows(query, samples),
                own,
                torch.cat(tokens, dim=2),
                conditional_rows(weight, samples),
                conditional_rows(bias, samples),
                keep_heads,
                rule,
            )
            parts = maps.split([weights.shape[2] for weights in tokens], dim=-1)
            for reader, part in zip(group, parts, strict=True):
                reader.store(self.site, part, forward)
