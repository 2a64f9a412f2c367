"""Joint attention: image and text are queries and keys of one layer (SD3, FLUX).

Each site has four relations, by who asks and who is asked: ``image_text`` (what gates and maps of
words are about), ``text_image``, ``image_image`` and ``text_text``. All are parts of one softmax:
the maps of a relation are normalised over all keys that the layer has, image and text together, and
say how much of a query's attention goes there.

Gates weigh text keys for image queries, and what text asks for stays as it is. Extra tokens are
keys for image queries alone, without a place in the rotary embedding. The output comes from
diffusers' dispatcher where nothing is gated, whatever its backend is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.attention.functional import (
    attend_with_total,
    gated_attention,
    log_totals,
    token_maps,
)
from lightning_modules.attention.hooks import (
    ForwardContext,
    MapHook,
    MapReader,
    SiteProcessor,
    conditional_rows,
    group_readers,
)
from lightning_modules.attention.sites import Site

RELATIONS = ("image_text", "text_image", "image_image", "text_text")
TEXT_FIRST = ("FluxAttnProcessor",)  # Stock processors that join text and image; others vice versa

__all__ = ["RELATIONS", "JointSiteProcessor", "RelationCapture"]


@dataclass
class _Joined:
    """Queries, keys and values [B, heads, L, d] of image and text in the order of the stock
    processor; ``image`` and ``text`` are the rows of each."""

    query: Tensor
    key: Tensor
    value: Tensor
    image: slice
    text: slice


class JointSiteProcessor(SiteProcessor):
    """The stock joint attention of a layer, with what the hooks at its site do."""

    @property
    def _attention_backend(self) -> Any:
        """That of diffusers' dispatcher, where the stock processor has one."""
        return getattr(self.stock, "_attention_backend", None)

    @_attention_backend.setter
    def _attention_backend(self, backend: Any) -> None:
        self.stock._attention_backend = backend

    @torch.compiler.disable
    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        temb: Tensor | None = None,
    ) -> Any:
        forward, state = self.manager.state_at(self.site)
        image, text, split = hidden_states, encoder_hidden_states, None
        if text is None:  # One stream, text first
            split = _text_length(forward, self.site)
            text, image = hidden_states[:, :split], hidden_states[:, split:]
        text_first = type(self.stock).__name__ in TEXT_FIRST
        joined = _project(attn, image, text, image_rotary_emb, text_first)
        weight, bias, rule, extra = None, None, "exact", None
        if state.gates is not None:
            rule = state.gates.rule
            weight = state.gates.weight(self.site, image, text, forward)  # [B, N, T]
        if state.tokens is not None:
            size = forward.map_size(self.site, image.shape[1])
            longer, weight, bias = state.tokens.append(text, weight, None, size)
            extra = longer[:, text.shape[1] :]
        total = None
        if weight is None and extra is None:
            keys, known = joined.key, None
            if state.readers and attention_mask is None and self._is_native:
                known = attend_with_total(joined.query, joined.key, joined.value)
            if known is not None:
                out, total = known
            else:
                out = self._dispatch(joined.query, joined.key, joined.value, attention_mask)
        else:
            keys, values = joined.key, joined.value
            if extra is not None and extra.shape[1]:
                added_key, added_value = _project_extra(attn, extra)
                keys, values = (
                    torch.cat(pair, dim=2) for pair in ((keys, added_key), (values, added_value))
                )
            weight = _over_all_keys(weight, joined, keys.shape[2], 1.0)
            bias = _over_all_keys(bias, joined, keys.shape[2], 0.0)
            if attention_mask is not None:
                raise ValueError(
                    f"{self.site.name} is given an attention mask while gates or tokens act "
                    "there: expected none, as its stock pipeline has it"
                )
            asking = joined.query[:, :, joined.image]
            seen = (
                F.scaled_dot_product_attention(asking, keys, values, attn_mask=bias)
                if weight is None
                else gated_attention(asking, keys, values, weight, bias, rule)
            )
            read = self._dispatch(
                joined.query[:, :, joined.text], joined.key, joined.value, attention_mask
            )
            first = joined.image.start == 0
            out = torch.cat([seen, read] if first else [read, seen], dim=2)
        if state.readers:
            if total is None and weight is None and bias is None and attention_mask is None:
                total = log_totals(joined.query, keys)
            self._read_relations(state.readers, forward, joined, keys, weight, bias, rule, total)
        out = out.transpose(1, 2).flatten(2).to(joined.query.dtype)
        if split is not None:  # What follows is the block's
            return out
        seen, read = out[:, joined.image], out[:, joined.text]
        if not attn.context_pre_only:
            read = attn.to_add_out(read)
        return attn.to_out[1](attn.to_out[0](seen)), read

    @property
    def _is_native(self) -> bool:
        """Whether diffusers' dispatcher would ask torch's own attention."""
        from diffusers.models import attention_dispatch as dispatch

        backend = self._attention_backend
        if backend is None:
            backend, _ = dispatch._AttentionBackendRegistry.get_active_backend()
        return backend == dispatch.AttentionBackendName.NATIVE

    def _dispatch(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None
    ) -> Tensor:
        """The attention [B, heads, L, d], by the backend that diffusers was told to use."""
        from diffusers.models.attention_dispatch import dispatch_attention_fn

        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        out = dispatch_attention_fn(
            query, key, value, attn_mask=attention_mask, backend=self._attention_backend
        )
        return out.transpose(1, 2)

    def _read_relations(
        self,
        readers: list[MapReader],
        forward: ForwardContext,
        joined: _Joined,
        keys: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        rule: str,
        total: Tensor | None,
    ) -> None:
        """As `SiteProcessor`'s, for each relation that is asked for; ``total`` [B, heads, L] as of
        `token_maps`, where nothing is gated."""
        by_relation: dict[str, list[MapReader]] = {}
        for reader in readers:
            by_relation.setdefault(getattr(reader, "relation", RELATIONS[0]), []).append(reader)
        text = torch.arange(joined.text.start, joined.text.stop)
        last = joined.key.shape[2]
        places = {  # Of the keys: extra tokens stand behind the text's
            "image": torch.arange(joined.image.start, joined.image.stop),
            "text": torch.cat([text, torch.arange(last, keys.shape[2])]),
        }
        for relation, own in by_relation.items():
            asks, asked = relation.split("_")
            image = asks == "image"
            rows = joined.image if image else joined.text
            query = joined.query[:, :, rows]
            # Text asks the keys that the stock layer has, by no gate
            known = keys if image else joined.key
            gate, added = (weight, bias) if image else (None, None)
            # With extra tokens the sums are those of pixels, whose keys they are
            shared = total is not None and (image or known.shape[2] == keys.shape[2])
            own_total = total[:, :, rows] if total is not None and shared else None
            where = places[asked][places[asked] < known.shape[2]].to(known.device)
            for samples, keep_heads, group in group_readers(own, len(query)):
                given = conditional_rows(known, samples)
                tokens = [reader.token_weights(given[:, :, where]) for reader in group]
                counted = torch.cat(tokens, dim=2)
                spread = counted.new_zeros(len(counted), known.shape[2], counted.shape[2])
                spread[:, where] = counted
                maps = token_maps(
                    conditional_rows(query, samples),
                    given,
                    spread,
                    conditional_rows(gate, samples),
                    conditional_rows(added, samples),
                    keep_heads,
                    rule,
                    None if own_total is None else conditional_rows(own_total, samples),
                )
                parts = maps.split([part.shape[2] for part in tokens], dim=-1)
                for reader, part in zip(group, parts, strict=True):
                    reader.store(self.site, part, forward)


class RelationCapture(MapHook):
    """Captures one of `RELATIONS` at joint ``sites`` while attached: how much of each query's
    attention goes to the keys that ``tokens`` list for each sample's objects, indices of text
    tokens or of pixels, averaged over each object's (see `capture.Capture`, which does the same for
    ``image_text`` as maps over the image).

    ``by_site`` has [B, queries, objects] of the latest pass for each site, float32, differentiable;
    the mean over heads. Raises ValueError on another relation, and at a site without it.
    """

    def __init__(
        self, sites: Sequence[Site], tokens: Sequence[Sequence[Sequence[int]]], relation: str
    ) -> None:
        if relation not in RELATIONS:
            known = ", ".join(RELATIONS)
            raise ValueError(f"relation={relation!r} is unknown: expected one of {known}")
        if plain := [site.name for site in sites if not site.is_joint]:
            raise ValueError(f"{plain[0]} is no joint attention: expected sites of SD3 or FLUX")
        self.sites, self.tokens, self.relation = list(sites), tokens, relation
        self.by_site: dict[str, Tensor] = {}

    def begin(self) -> _RelationReader:
        self.by_site = {}
        return _RelationReader(self.tokens, self.relation, self.by_site)


class _RelationReader:
    """One forward pass of a `RelationCapture`."""

    keep_heads = False

    def __init__(
        self,
        tokens: Sequence[Sequence[Sequence[int]]],
        relation: str,
        by_site: dict[str, Tensor],
    ) -> None:
        self.tokens, self.relation, self.by_site = tokens, relation, by_site
        self.samples = len(tokens)

    def token_weights(self, key: Tensor) -> Tensor:
        from lightning_modules.attention.capture import token_weights

        return token_weights(self.tokens, key.shape[2]).to(key.device)

    def store(self, site: Site, maps: Tensor, forward: ForwardContext) -> None:
        if not forward.replay:
            self.by_site[site.name] = maps


def _text_parts(attn: Any) -> tuple[list[Any], list[Any]]:
    """The projections of text to queries, keys and values, and the norms of the first two."""
    if getattr(attn, "add_k_proj", None) is None:
        return [attn.to_q, attn.to_k, attn.to_v], [attn.norm_q, attn.norm_k]
    layers = [attn.add_q_proj, attn.add_k_proj, attn.add_v_proj]
    return layers, [attn.norm_added_q, attn.norm_added_k]


def _project(
    attn: Any, image: Tensor, text: Tensor, rotary: tuple[Tensor, Tensor] | None, text_first: bool
) -> _Joined:
    """Normalised and rotated as the stock processor does."""
    own = [_heads(attn, layer(image)) for layer in (attn.to_q, attn.to_k, attn.to_v)]
    layers, norms = _text_parts(attn)
    other = [_heads(attn, layer(text)) for layer in layers]
    for i, (norm, added) in enumerate(zip((attn.norm_q, attn.norm_k), norms, strict=True)):
        own[i] = own[i] if norm is None else norm(own[i])
        other[i] = other[i] if added is None else added(other[i])
    pairs = zip(own, other, strict=True)
    query, key, value = (torch.cat([b, a] if text_first else [a, b], dim=2) for a, b in pairs)
    if rotary is not None:
        query, key = _rotate(query, rotary), _rotate(key, rotary)
    pixels, tokens = image.shape[1], text.shape[1]
    if text_first:
        rows = slice(tokens, tokens + pixels), slice(0, tokens)
    else:
        rows = slice(0, pixels), slice(pixels, pixels + tokens)
    return _Joined(query, key, value, *rows)


def _project_extra(attn: Any, extra: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [B, heads, n, d] of tokens that are appended to the text."""
    (_, key_layer, value_layer), (_, norm) = _text_parts(attn)
    key, value = _heads(attn, key_layer(extra)), _heads(attn, value_layer(extra))
    return (key if norm is None else norm(key)), value


def _text_length(forward: ForwardContext, site: Site) -> int:
    """Of the stream that a single block is given. Raises ValueError outside of a pass."""
    if forward.text is None:
        raise ValueError(
            f"{site.name} was called outside of its model's forward pass: nothing says where its "
            "text ends"
        )
    return forward.text.shape[1]


def _heads(attn: Any, x: Tensor) -> Tensor:
    """[B, L, heads d] -> [B, heads, L, d]"""
    return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary embedding of pairs of neighbouring channels: (a, b) -> (a cos - b sin, b cos + a sin),
    cos and sin [L, d], in float32 as stock."""
    cos, sin = (part.to(x.device) for part in rotary)
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return (x.float() * cos + turned.float() * sin).to(x.dtype)


def _over_all_keys(
    values: Tensor | None, joined: _Joined, keys: int, elsewhere: float
) -> Tensor | None:
    """``values`` [..., T + n] of the text's keys and the extra tokens' -> [..., keys], with
    ``elsewhere`` at the image's."""
    if values is None:
        return None
    tokens = joined.text.stop - joined.text.start
    pixels = joined.image.stop - joined.image.start
    text, extra = values[..., :tokens], values[..., tokens:]
    image = values.new_full((*values.shape[:-1], pixels), elsewhere)
    parts = [image, text] if joined.image.start == 0 else [text, image]
    return torch.cat([*parts, extra], dim=-1)
