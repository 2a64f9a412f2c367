"""Trained values of chosen parameters of a frozen model, put into it and taken out again: the
frozen model costs no second one.

Separate-and-Enhance trains the keys of a model's cross-attention this way, Break-A-Scene and MCGM a
UNet and its text encoder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from conf.files import write_atomically
from conf.places import as_path
from lightning_modules.attention import Site
from lightning_modules.attention import sites as all_sites
from lightning_modules.attention.saving import refuse_saving
from lightning_modules.backbone.offloading import refuse_offloaded

PARTS = ("q", "k", "v", "kv", "qkv", "attn2", "model")
ATTRIBUTE = "_trained_weights"
SCALE = 1.0  # Of low-rank weights: see `low_rank_config`
LORA_FILE = "pytorch_lora_weights.safetensors"  # where `load_lora_weights` looks in a folder
LORA_METADATA = "lora_adapter_metadata"  # What it reads of the file's head


def parameter_names(
    model: nn.Module, part: str, sites: Iterable[Site] | None = None, without: Sequence[str] = ()
) -> list[str]:
    """The names of the parameters that ``part`` means (see `TrainedWeights`), in the model's order.

    Raises ValueError on another part, on fused projections, and when nothing is chosen.
    """
    if part not in PARTS:
        raise ValueError(f"part {part!r} is unknown: expected one of {', '.join(PARTS)}")
    _refuse_fused(model, _attention_layers(model))
    names = [name for name, _ in model.named_parameters()]
    # Copies of projections that were fused once
    names = [name for name in names if ".to_kv." not in name and ".to_qkv." not in name]
    if part != "model":
        if sites is None:
            sites = all_sites(model) if hasattr(model, "attn_processors") else []
        chosen = tuple(_cross_prefixes(model, part, sites))
        names = [name for name in names if name.startswith(chosen)]
    names = [name for name in names if not any(word in name for word in without)]
    if not names:
        cure = (
            f"give it sites of its cross-attention, take another of {', '.join(PARTS)}, or "
            "leave less out"
        )
        raise ValueError(
            f"part {part!r} chooses no parameter of {type(model).__name__}: expected at "
            f"least one; {cure}"
        )
    return names


def _cross_prefixes(model: nn.Module, part: str, sites: Iterable[Site]) -> Iterator[str]:
    """How the names begin of what ``part`` means of cross-attention. In joint attention pixels ask
    by q, and keys and values are those that the layer makes of text; where it has none of its own
    (FLUX's single blocks) there are none."""
    for site in sites:
        if site.kind != "cross":
            continue
        if part == "attn2":
            yield f"{site.name}."
            continue
        names = {letter: f"to_{letter}" for letter in part}
        if site.is_joint:
            added = getattr(model.get_submodule(site.name), "add_k_proj", None)
            if added is None:
                continue
            names |= {letter: f"add_{letter}_proj" for letter in part if letter != "q"}
        for name in names.values():
            yield f"{site.name}.{name}."


class TrainedWeights(nn.Module):
    """Trained values of ``part`` of a frozen ``model`` (a UNet, PixArt's transformer or a text
    encoder), which start at the model's own.

    ``part`` is "q", "k", "v", "kv" or "qkv" (projections of cross-attention), "attn2" (all of
    cross-attention: q, k, v, out with its bias) or "model" (every parameter); ``sites`` narrows
    cross-attention down, None takes every layer. Of joint attention (SD3, FLUX) q is that of the
    image, k and v are those of the text, "attn2" is the whole layer. Parameters with a word of
    ``without`` in their name stay frozen.

    ``rank`` 0 trains full copies, float32 where the model has half precision, under the model's own
    names. Above 0 it trains low-rank adapters (LoRA, arXiv 2106.09685: W + BA, scale 1) of the
    linear and convolution layers among them, named ``LAYER.lora_A.weight`` and
    ``LAYER.lora_B.weight``; biases, normalisations and embeddings stay frozen. A is drawn from
    torch's generator, B is zero.

    The weights start outside of the model: `install` puts them in, `remove` puts the stock objects
    back. They must stay in until the backward pass is done, since gradient checkpointing runs
    layers again then. A half-precision layer gets a cast of its float32 weight in each call. In a
    float32 model the parameters themselves are in place, so `model.parameters` counts them while
    they are, and moving the model or changing its dtype reaches them; change what needs gradients
    (``model.requires_grad_``) only when they are out.

    Each forward pass of the model begins with a look whether they are in their places and at work:
    ValueError says what took them out (other adapters or scales of them, fused projections, layers
    that were replaced, offloading layer by layer). ``load_state_dict`` with other values of full
    copies is refused while they are in: it would write over what was trained. What writes into the
    parameters themselves (``copy_``, ``.data``), as an optimiser does, is training and not looked
    for.

    Raises ValueError when nothing is chosen, on a negative rank, and when the model holds other
    trained weights or adapters.
    """

    model: nn.Module

    def __init__(
        self,
        model: nn.Module,
        part: str,
        sites: Iterable[Site] | None = None,
        rank: int = 0,
        without: Sequence[str] = (),
    ):
        super().__init__()
        if rank < 0:
            raise ValueError(
                f"rank={rank}: expected 0 (full copies) or the rank of low-rank adapters"
            )
        # Object attributes that must not become submodules. Ours and stock are parameters, or
        # layers, by their path in the model.
        self.__dict__["model"] = model
        self.part, self.rank = part, rank
        self._casts: list[_Cast] = []
        self._undo: list[Callable[[], None]] = []
        self._links: list[tuple[dict[str, Any], str, Any]] = []
        refuse_others(model)
        refuse_offloaded(model)
        names = parameter_names(model, part, sites, without)
        if rank:
            self._ours: dict[str, Any] = low_rank_layers(model, names, rank)
            named = (
                (f"{path}.{name}", p)
                for path, layer in self._ours.items()
                for name, p in layer.named_parameters()
            )
            trained = {name.replace(".default.", "."): p for name, p in named if ".lora_" in name}
        else:
            stock = {name: model.get_parameter(name).detach() for name in names}
            trained = {
                n: nn.Parameter(p.to(torch.promote_types(p.dtype, torch.float32), copy=True))
                for n, p in stock.items()
            }
            self._ours = dict(trained)
        self._stock = self._in_place()
        for name, parameter in trained.items():
            _plant(self, name, parameter)

    @property
    def is_installed(self) -> bool:
        return self.model.__dict__.get(ATTRIBUTE) is self

    def install(self) -> None:
        """Puts the weights into the model, on whose device they are then; nothing happens when they
        are in it.

        Raises ValueError when the model holds others, or has been rebuilt since these were made.
        """
        if self.is_installed:
            return
        refuse_others(self.model)
        self._expect(
            self._stock, ("make the weights anew once the model has its final shape, or undo that")
        )
        refuse_offloaded(self.model)
        self.to(next(self.model.parameters()).device)
        for path, stock in self._stock.items():
            where, key = self._slot(path)
            where[key] = ours = self._ours[path]
            if not self.rank and stock.dtype != ours.dtype:
                self._casts.append(
                    _Cast(self.model.get_submodule(path.rpartition(".")[0]), key, ours, stock.dtype)
                )
        self._placed = self._in_place()
        if not self._links or self._is_moved:  # In training they go in and out in every step
            self._owners = {path: self._slot(path)[0] for path in self._ours}
            self._holders = self._list_holders()
            self._links = self._list_links()
        self.model.__dict__[ATTRIBUTE] = self
        hook = self.model.register_forward_pre_hook(self._check_in_place, with_kwargs=True)
        self._undo = [hook.remove]
        if self.rank:
            self._undo.append(refuse_saving(self.model, "low-rank weights in its own form"))
        for holder, keys in self._holders:
            guard = partial(self._refuse_loading, keys)
            self._undo.append(holder.register_load_state_dict_pre_hook(guard).remove)

    def remove(self) -> None:
        """Puts the stock parameters and layers back, the very objects; nothing happens when they
        are there.

        Raises ValueError when something else has been put over the weights.
        """
        if not self.is_installed:
            return
        self.check_removable()
        for handle in (handle for cast in self._casts for handle in cast.handles):
            handle.remove()
        for path, stock in self._stock.items():
            where, key = self._home(path)
            # The model may have moved to another device or dtype, without what was out of it.
            if not self.rank and where[key] is not stock:
                stock.data = stock.data.to(where[key])
            where[key] = stock
        for undo in self._undo:
            undo()
        self._casts, self._undo = [], []
        del self.model.__dict__[ATTRIBUTE]

    def check_removable(self) -> None:
        """Raises ValueError where `remove` would, and changes nothing."""
        if self._is_moved:
            self._reclaim(stock_too=True)
        refuse_offloaded(self.model)
        _refuse_fused(self.model, self._attention)
        if self.rank:
            self._refuse_idle(merged_alone=True)

    def _list_holders(self) -> list[tuple[nn.Module, list[str]]]:
        """The layers that have full copies for parameters, and the names of these in them."""
        holders: dict[str, list[str]] = {}
        for path in [] if self.rank else self._ours:
            parent, _, key = path.rpartition(".")
            holders.setdefault(parent, []).append(key)
        return [(self.model.get_submodule(parent), keys) for parent, keys in holders.items()]

    def _refuse_loading(
        self, keys: Sequence[str], layer: nn.Module, state: dict[str, Any], prefix: str, *_: Any
    ) -> None:
        """Before ``layer.load_state_dict``. Raises ValueError where it would change the weights."""
        for key in keys:
            given, held = state.get(prefix + key), layer._parameters[key]
            if given is None or held is None or given.shape != held.shape or held.is_meta:
                continue
            if not torch.equal(given.to(held), held):
                raise ValueError(
                    f"load_state_dict of {type(self.model).__name__}: {prefix}{key} is one of the "
                    "trained weights, which would be lost: take the method out with its remove() "
                    "first"
                )

    # --- still there? ----------------------------------------------------------------------------

    def _check_in_place(
        self, model: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> None:
        """Before a forward pass. Raises ValueError where the weights would not act in it."""
        if self._is_moved:
            self._reclaim()
            self._links = self._list_links()
        _refuse_fused(self.model, self._attention)
        if self.rank:
            self._refuse_idle()
            # diffusers scales low-rank layers by it within the pass
            asked = kwargs.get("cross_attention_kwargs") or {}
            if (scale := asked.get("scale", 1.0)) != 1:
                self._refuse_scaled(scale, "cross_attention_kwargs")

    @property
    def _is_moved(self) -> bool:
        """Whether the weights, or layers on the way to them, are others than at the last look."""
        return any(where.get(key) is not held for where, key, held in self._links)

    def _list_links(self) -> list[tuple[dict[str, Any], str, Any]]:
        """All that leads from the model to the weights: (dict, key, what has to be there)."""
        links: dict[tuple[int, str], tuple[dict[str, Any], str, Any]] = {}
        for path in self._ours:
            module = self.model
            for step in path.split(".")[:-1]:
                child = module._modules[step]
                links[id(module), step] = (module._modules, step, child)
                module = child
            slots, key = self._slot(path)
            links[id(module), f"{key}."] = (slots, key, slots.get(key))
        self._attention = _attention_layers(self.model)
        return list(links.values())

    def _reclaim(self, stock_too: bool = False) -> None:
        """Looks for the weights that are not in their places. Copies of them, which offloading
        leaves behind, give place to them; a layer that is wrapped in another, as low-rank adapters
        do, still has its own. Raises ValueError on anything else, but, with ``stock_too``, not
        where the stock object is back."""
        missing = {}
        for path, now in self._in_place().items():
            if now is self._placed[path] or (stock_too and now is self._stock[path]):
                continue
            missing[path] = now
        inside = {id(part._parameters) for part in self.model.modules()} if missing else set()
        for path, now in missing.items():
            placed = self._placed[path]
            if not self.rank and _is_copy(now, placed):
                slots, key = self._slot(path)
                placed.data = now.data
                slots[key] = placed
            # Of a model whose layers are offloaded the weights are with the hooks
            elif not self._is_kept(path, inside) and (
                stock_too or not _is_meta(now) or id(self._owners[path]) not in inside
            ):
                refuse_offloaded(self.model)
                self._expect(self._placed, "undo that first")

    def _is_kept(self, path: str, inside: Collection[int]) -> bool:
        """Whether the layer that had a weight at first still has it, and is in the model: another
        may be around it."""
        owner, key = self._owners[path], path.rpartition(".")[2]
        return id(owner) in inside and owner.get(key) is self._placed[path]

    def _home(self, path: str) -> tuple[dict[str, Any], str]:
        """`_slot`, or where the weight is since a layer was put around its own."""
        owner, key = self._owners[path], path.rpartition(".")[2]
        where, _ = self._slot(path)
        placed = self._placed[path]
        return (owner, key) if where.get(key) is None and owner.get(key) is placed else (where, key)

    def _refuse_idle(self, merged_alone: bool = False) -> None:
        """Raises ValueError where low-rank layers were switched off, or added to the weights."""
        for path, layer in self._placed.items():
            active = "default" in layer.active_adapters and not layer.disable_adapters
            if layer.merged_adapters or not (active or merged_alone):
                done = "merged into the weights" if layer.merged_adapters else "switched off"
                raise ValueError(
                    f"the low-rank weights of {path} in {type(self.model).__name__} have been "
                    f"{done} (load_lora_weights, set_adapters, fuse_lora …): undo that first, or "
                    "take the method out with its remove()"
                )

            scale = layer.scaling.get("default", SCALE)
            if scale != SCALE and not merged_alone:
                self._refuse_scaled(scale, f"set_adapters, scale_layer … of {path}")

    def _refuse_scaled(self, scale: float, where: str) -> None:
        raise ValueError(
            f"the low-rank weights in {type(self.model).__name__} are scaled by {scale:g} "
            f"({where}): expected {SCALE:g}, at which they were trained; set that scale, or take "
            "the method out with its remove()"
        )

    @contextmanager
    def swapped_out(self) -> Iterator[None]:
        """Inside the block the model is the stock one (the frozen reference of a distillation);
        afterwards it is as it was before."""
        installed = self.is_installed
        self.remove()
        try:
            yield
        finally:
            if installed:
                self.install()

    def _slot(self, path: str) -> tuple[dict[str, Any], str]:
        """Where the model keeps a parameter or a layer: the dict and its key."""
        parent, _, key = path.rpartition(".")
        owner = self.model.get_submodule(parent)
        return (owner._modules if self.rank else owner._parameters), key

    def _in_place(self) -> dict[str, Any]:
        """What the model holds now where the trained weights belong; None where there is no such
        place any more."""
        found: dict[str, Any] = {}
        for path in self._ours:
            try:
                where, key = self._slot(path)
            except AttributeError:  # A layer on the way is gone
                found[path] = None
            else:
                found[path] = where.get(key)
        return found

    def _expect(self, known: dict[str, Any], cure: str) -> None:
        for path, now in self._in_place().items():
            if now is not known[path]:
                raise ValueError(
                    f"{path} of {type(self.model).__name__} has been replaced from outside: {cure}"
                )

    def tensors(self) -> dict[str, Tensor]:
        """Copies of the trained values on the CPU, by name: what `safetensors` writes and
        `load_state_dict` takes."""
        return {
            name: value.detach().to("cpu", copy=True).contiguous()
            for name, value in self.state_dict().items()
        }

    @property
    def low_rank_paths(self) -> list[str]:
        """The layers that have low-rank adapters."""
        return list(self._ours) if self.rank else []

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def save_stock(self, folder: Path | str, name: str = "unet") -> Path:
        """As `save_stock` for one model, ``name`` its place in the pipeline; gives the file."""
        return save_stock(folder, **{name: self})[0]


def refuse_others(model: nn.Module) -> None:
    """Raises ValueError where ``model`` holds trained weights or adapters."""
    if ATTRIBUTE in model.__dict__ or any(
        ".base_layer." in name for name, _ in model.named_parameters()
    ):
        cure = "take them out first (remove(), or the pipeline's unload_lora_weights())"
        raise ValueError(
            f"{type(model).__name__} holds other trained weights or adapters: expected a stock "
            f"model; {cure}"
        )


def save_stock(folder: Path | str, **models: TrainedWeights) -> list[Path]:
    """Writes what stock diffusers opens, and gives the files; a keyword is the model's place in the
    pipeline (``unet``, ``transformer``, ``text_encoder``, ``text_encoder_2``).

    Low-rank weights of all models make one file, for ``pipeline.load_lora_weights(folder)``, which
    says rank and alpha of each; those
    of PixArt's transformer, whose pipeline has no such call, are in peft's form, for
    ``PeftModel.from_pretrained(pipeline.transformer, folder / "transformer")``. Full ones make one
    ``NAME.safetensors`` each, for ``pipeline.NAME.load_state_dict(load_file(...), strict=False)``.
    """
    folder = as_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, Tensor]] = {}
    alphas: dict[str, TrainedWeights] = {}
    for name, weights in models.items():
        if weights.rank and name == "transformer" and not _loads_adapters(weights.model):
            low_rank_config(weights.low_rank_paths, weights.rank).save_pretrained(folder / name)
            files[f"{name}/adapter_model.safetensors"] = {
                f"base_model.model.{key}": value for key, value in weights.tensors().items()
            }
        elif weights.rank:
            files.setdefault(LORA_FILE, {}).update(
                {f"{name}.{key}": value for key, value in weights.tensors().items()}
            )
            alphas[name] = weights
        else:
            files[f"{name}.safetensors"] = weights.tensors()
    for file, tensors in files.items():
        # One entry alone: of several the order, and so the file's bytes, would differ
        metadata = _describe_lora(alphas) if file == LORA_FILE else {"format": "pt"}
        write_atomically(folder / file, partial(save_file, tensors, metadata=metadata))
    return [folder / file for file in files]


def _loads_adapters(model: nn.Module) -> bool:
    """Whether the stock model, and so its pipeline, opens low-rank weights."""
    return hasattr(model, "load_lora_adapter")


def _describe_lora(models: dict[str, TrainedWeights]) -> dict[str, str]:
    """Rank and alpha as diffusers reads them from the file's head; without it takes alpha = rank,
    which other readers may not."""
    settings: dict[str, Any] = {}
    for name, weights in models.items():
        config = low_rank_config(weights.low_rank_paths, weights.rank).to_dict()
        known = {key: config[key] for key in ("r", "lora_alpha")}
        known["target_modules"] = sorted(weights.low_rank_paths)
        settings |= {f"{name}.{key}": value for key, value in known.items()}
    return {LORA_METADATA: json.dumps(settings, sort_keys=True)}


def adaptable_layers(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """The linear and convolution layers whose weights are among ``names``, by path."""
    owners = (name.removesuffix(".weight") for name in names if name.endswith(".weight"))
    return {
        path: layer
        for path in owners
        if isinstance(layer := model.get_submodule(path), (nn.Linear, nn.Conv2d))
    }


def low_rank_layers(model: nn.Module, names: Iterable[str], rank: int) -> dict[str, nn.Module]:
    """peft's layers around the linear and convolution layers whose weights are among ``names``, by
    path; ``model`` is left as it is.

    Raises ValueError when there is no such layer.
    """
    from peft import inject_adapter_in_model

    layers = adaptable_layers(model, names)
    if not layers:
        raise ValueError(
            f"no linear or convolution layer is chosen in {type(model).__name__}: expected "
            "at least one, or rank=0"
        )
    # peft rebuilds what it is given and marks it: it is given a shell that holds the chosen layers
    # alone.
    shell = nn.Module()
    for path, layer in layers.items():
        _plant(shell, path, layer)
    inject_adapter_in_model(low_rank_config(layers, rank), shell)
    for name, parameter in shell.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
    return {path: shell.get_submodule(path) for path in layers}


def low_rank_config(paths: Iterable[str], rank: int) -> Any:
    """peft's settings of W + BA at the layers ``paths``."""
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=rank, target_modules=list(paths))


def _attention_layers(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if hasattr(module, "fused_projections")]


def _refuse_fused(model: nn.Module, attention: Iterable[Any]) -> None:
    """Raises ValueError where attention computes with copies of its projections."""
    for layer in attention:
        processor = type(layer.processor).__name__
        if processor.startswith("Fused"):
            raise ValueError(
                f"the attention of {type(model).__name__} has fused projections ({processor}), "
                "copies that trained weights do not reach: call unfuse_qkv_projections() first"
            )


def _is_meta(now: Any) -> bool:
    return isinstance(now, nn.Parameter) and now.is_meta


def _is_copy(now: Any, placed: nn.Parameter) -> bool:
    """Whether a parameter has the values of another."""
    if not isinstance(now, nn.Parameter) or now.is_meta or now.shape != placed.shape:
        return False
    return torch.equal(now.detach(), placed.detach().to(now))


def _plant(root: nn.Module, path: str, what: nn.Parameter | nn.Module) -> None:
    """Puts ``what`` at a dotted path below ``root``, whose state dict then has the path as its
    key."""
    step, _, rest = path.partition(".")
    if rest:
        if step not in root._modules:
            root.add_module(step, nn.Module())
        _plant(root.get_submodule(step), rest, what)
    else:
        setattr(root, step, what)


class _Cast:
    """A float32 parameter at work in a half-precision layer: cast anew in each call, so that the
    gradients of every call reach it, also of one that gradient checkpointing makes again. Between
    calls the layer holds a frozen half-precision parameter."""

    def __init__(
        self, layer: nn.Module, name: str, trained: nn.Parameter, dtype: torch.dtype
    ) -> None:
        self.where: dict[str, Any] = layer._parameters
        self.name, self.trained = name, trained
        self.held = self.where[name] = nn.Parameter(trained.detach().to(dtype), requires_grad=False)
        self.handles = [
            layer.register_forward_pre_hook(self._before),
            layer.register_forward_hook(self._after, always_call=True),
            layer.register_state_dict_pre_hook(self._refresh),
        ]

    def _before(self, *_: Any) -> None:
        # No leaf: its gradient goes on to the trained parameter
        self.where[self.name] = self.trained.to(self.held)

    def _after(self, *_: Any) -> None:
        self.held.data = self.where[self.name].detach()
        self.where[self.name] = self.held

    def _refresh(self, *_: Any) -> None:  # before the state dict is read
        self.held.data = self.trained.detach().to(self.held)
