"""What all methods share: encode, noise, predict, lose, sample, and an adapter that holds only what
was trained."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import lightning as L
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from conf.schema import Method as MethodConfig
from conf.schema import Run
from conf.schema import Trainer as TrainerConfig
from conf.spec import methods
from datamodules.batch import Batch
from datamodules.loading import ranks
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample
from lightning_modules.backbone.text import TextCondition
from lightning_modules.methods.registry import method_class
from lightning_modules.training import distributed
from losses.denoising import denoising_loss

if TYPE_CHECKING:
    from conf.schema import Run
    from lightning_modules.tracking.mlflow import SeedRun

LIBRARIES = ("torch", "diffusers", "transformers", "lightning", "peft")


class Group(NamedTuple):
    """Parameters that are trained alike: ``rate`` gives the learning rate of a step."""

    parameters: list[nn.Parameter]
    rate: Callable[[int], float]
    decays: bool = True


class Method(L.LightningModule):
    """A way to change a frozen backbone. Subclasses put their trained parameters into
    ``self.adapter`` and install themselves.

    The backbone is no submodule: it is neither optimised nor checkpointed. Timesteps and noise of
    training step k follow from (seed, k) alone, so that runs of different methods with the same
    seed see the same noise. On several processes they are drawn for all their batches, of which
    each takes its own: losses and logged metrics are those of one process with the global batch.
    """

    name: ClassVar[str]
    leaves_out = False  # whether a step may leave trained parameters without a gradient
    takes_masks: ClassVar[bool] = False  # whether `generate` can be told where things shall be
    observes: ClassVar[bool] = False  # whether `observed` measures anything

    def __init__(
        self,
        backbone: Backbone,
        config: MethodConfig,
        trainer: TrainerConfig,
        resolution: int,
        seed: int = 0,
    ) -> None:
        super().__init__()
        # Object attributes that must not become submodules.
        self.__dict__["backbone"] = backbone
        self.config, self.recipe, self.resolution, self.seed = config, trainer, resolution, seed
        self.adapter: nn.Module = nn.Module()

    backbone: Backbone

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return True

    @classmethod
    def check_backbone(cls, config: Run, backbone: Backbone) -> None:
        """Refuses a backbone that the method cannot act on with these settings, before data are
        read. Raises ValueError."""

    @classmethod
    def complete(cls, config: Run, datamodule: Any) -> Run:
        """The settings, completed by what only the data can tell."""
        return config

    def check_data(self, dataset: Any) -> None:
        """Refuses training data that the method cannot learn from, before any long work. Raises
        ValueError."""

    def extend_data(
        self, config: Run, datamodule: Any, emit: Callable[[str, float], None]
    ) -> None:
        """Long work on the data before the training, once nothing is left to refuse; ``emit`` gets a
        line and the share done."""

    # --- training --------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        self.backbone.to(self.device)
        own = set(self.parameters())  # some methods put theirs into the backbone's layers
        frozen = sum(
            p.requires_grad for m in self.frozen_modules() for p in m.parameters() if p not in own
        )
        trained = sum(p.numel() for p in self.parameters() if p.requires_grad)
        if frozen or not trained:
            found = f"{frozen} backbone tensors and {trained} adapter parameters"
            raise RuntimeError(f"{self.name}: {found} would be trained: expected 0 and some")

    def frozen_modules(self) -> list[nn.Module]:
        return [self.backbone.denoiser, self.backbone.vae, *self.backbone.text.encoders]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        latents = self.latents(batch)
        noise, timesteps = self.draw(latents)
        noised, target = self.backbone.schedule.add_noise(latents, noise, timesteps)
        text = self.condition(batch, self.text(batch))
        loss = self.loss(self.predict(noised, timesteps, text), target, batch)
        self.log("train/loss", loss)
        return self.with_extra(loss, batch, timesteps)

    def latents(self, batch: Batch) -> Tensor:
        """What noise is added to, [B, C, h, w]."""
        return (
            batch.latents
            if batch.latents is not None
            else self.backbone.autoencoder.encode(batch.images)
        )

    def text(self, batch: Batch) -> TextCondition:
        """The encoded captions. One that was dropped is what guidance takes for no prompt."""
        text, dropped = (
            self.backbone.text.encode(batch.captions),
            torch.tensor([not caption for caption in batch.captions]),
        )
        if not dropped.any():
            return text
        dropped = dropped.to(text.hidden.device)
        empty = self.backbone.text.encode_empty(len(batch))
        return text.map(
            lambda part, none: torch.where(dropped.view(-1, *[1] * (part.dim() - 1)), none, part),
            empty,
        )

    def condition(self, batch: Batch, text: TextCondition) -> TextCondition:
        """What the denoiser is told of a training batch, whose encoded captions are ``text``."""
        return text

    def with_extra(self, loss: Tensor, batch: Batch, timesteps: Tensor) -> Tensor:
        """The training loss with what a method adds to the denoising loss of the forward pass that
        has just been made."""
        return loss

    def draw(self, latents: Tensor, stream: int = 0) -> tuple[Tensor, Tensor]:
        """(noise like ``latents``, timesteps [B]) of this step, uniform over `span`; each
        ``stream`` has others."""
        generator, count = self.generator(stream), len(latents)
        noise = self.own(
            lambda samples: torch.randn(samples, *latents.shape[1:], generator=generator), count
        )
        timesteps = self.own(
            lambda samples: torch.randint(*self.span, (samples,), generator=generator), count
        )
        return noise.to(latents), timesteps.to(latents.device)

    def own(self, draw: Callable[[int], Tensor], count: int) -> Tensor:
        """Of what ``draw`` gives for so many samples as all processes have in this step, ``count``
        each, that of this process's."""
        number, world = self.place
        return draw(count * world)[number * count : (number + 1) * count]

    def generator(self, stream: int) -> torch.Generator:
        """Random numbers of this training step, the same in all processes; each ``stream`` (0:
        noise and timesteps) has its own."""
        return torch.Generator().manual_seed(
            (self.seed * 1_000_003 + self.step) * 1009 + stream * 10**15
        )

    @property
    def place(self) -> tuple[int, int]:
        """The number of this process, and how many share a training step: one outside of the
        Trainer."""
        return ranks() if self._trainer is not None else (0, 1)

    def counts(self, number: int) -> list[int]:
        """``number`` of each process that shares this training step; all of them have to ask."""
        return distributed.all_gather_int(number) if self.place[1] > 1 else [number]

    def weighed(self, mean: Tensor, counts: Sequence[int]) -> Tensor:
        """A mean over this process's of ``counts`` samples -> what makes the mean over processes
        that over all of these samples."""
        number, world = self.place
        return mean * (counts[number] * world / max(sum(counts), 1))

    def log(self, *args: Any, **kwargs: Any) -> None:
        """As Lightning's; the mean over all processes, which all have to log it."""
        super().log(*args, **{**kwargs, "sync_dist": True})

    @property
    def step(self) -> int:
        """The number of this training batch, from 0."""
        return self.trainer.fit_loop.total_batch_idx if self._trainer is not None else 0

    noisier = False  # whether training sees the noisier half of the timesteps alone

    @property
    def span(self) -> tuple[int, int]:
        """The timesteps of training: from the first up to, and without, the second."""
        last = self.backbone.schedule.num_timesteps
        return (last // 2 if self.noisier else 0), last

    def predict(self, noised: Tensor, timesteps: Tensor, text: TextCondition) -> Tensor:
        return self.backbone.predict(noised, timesteps, text, self.resolution)

    def loss(self, prediction: Tensor, target: Tensor, batch: Batch) -> Tensor:
        return denoising_loss(prediction, target)

    def configure_optimizers(self) -> Any:
        groups = [group for group in self.parameter_groups() if group.parameters]
        # The rates are in the schedules: 1 here, so that a rate of zero in one phase does not end
        # the next.
        decay = self.recipe.weight_decay
        parameters = [
            {"params": group.parameters, "lr": 1.0, "weight_decay": decay * group.decays}
            for group in groups
        ]
        optimizer = torch.optim.AdamW(parameters)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [group.rate for group in groups])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def parameter_groups(self) -> list[Group]:
        """What is trained, and at which learning rate in which step."""
        return [
            Group(list(self.adapter.parameters()), lambda step: self.recipe.lr * self.factor(step))
        ]

    def factor(self, step: int, first: int = 0, last: int | None = None) -> float:
        """The recipe's learning rate over its peak at ``step`` of a phase from ``first`` to
        ``last``: warm-up, then cosine or constant."""
        recipe, last = self.recipe, self.recipe.steps if last is None else last
        if step < first + recipe.warmup:
            return (step - first + 1) / recipe.warmup
        if recipe.schedule == "constant":
            return 1.0
        done = (step - first - recipe.warmup) / max(last - first - recipe.warmup, 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    # --- use --------------------------------------------------------------------------------

    def install(self) -> None:
        """Puts the adapter into the backbone. A method that has none leaves the backbone as it
        is."""

    def remove(self) -> None:
        """Takes it out again: the backbone is the stock one afterwards."""

    @torch.no_grad()
    def generate(
        self,
        prompts: list[str],
        seeds: list[int],
        masks: Any = None,
        steps: int = 30,
        guidance: float = 7.5,
        batch: int = 64,
    ) -> Tensor:
        """uint8 images [N, 3, H, W] on the CPU, one for each prompt; image i depends on prompt i
        and seed i alone.

        Raises ValueError when ``masks`` are given to a method that is not steered by masks.
        """
        if masks is not None:
            raise ValueError(f"{self.name} takes no masks: leave masks=None")
        return sample(self.backbone, prompts, seeds, steps, guidance, self.resolution, batch)

    @contextmanager
    def observed(self, guidance: float) -> Iterator[dict[str, float]]:
        """Measures how the method acts on what is generated with ``guidance`` inside the block, by
        all processes, each of which needs one; the dict is filled when the block ends."""
        yield {}

    def callbacks(self, dataset: Any, every: int, tracker: SeedRun | None) -> list[L.Callback]:
        """The method's own callbacks of a training on ``dataset`` that is tracked; they look every
        ``every`` optimiser steps. Of several processes all have them, the first alone has a
        ``tracker``, which gets the numbers and pictures."""
        return []

    def diagnostics(self, datamodule: Any, config: Run, folder: Path) -> dict[str, float]:
        """What is measured of the method itself after its images were scored, under ``eval/``;
        ``config`` is that of the evaluation, pictures land in ``folder``."""
        return {}

    def to_pipeline(self) -> Any:
        """A stock diffusers pipeline with the adapter in it."""
        return self.backbone.restored_pipeline()

    # --- adapters --------------------------------------------------------------------------------

    def save_adapter(self, folder: Path | str) -> None:
        """Writes ``adapter.safetensors`` and ``adapter.json`` (method, config, backbone, versions);
        never a frozen weight."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            k: v.detach().cpu().clone().contiguous() for k, v in self.adapter.state_dict().items()
        }
        card = {
            "method": self.name,
            "config": self.adapter_config(),
            "resolution": self.resolution,
            "backbone": {"source": self.backbone.source, "revision": self.backbone.revision},
            "versions": {library: version(library) for library in LIBRARIES},
        }
        save_file(tensors, folder / "adapter.safetensors")
        # The card last, and as a whole: a folder without it is unfinished.
        draft = folder / ".adapter.json"
        draft.write_text(json.dumps(card, indent=1))
        draft.replace(folder / "adapter.json")

    def adapter_config(self) -> dict[str, Any]:
        """The part of the method's config that the adapter's shape and use depend on."""
        return {}

    def load_weights(self, folder: Path | str) -> None:
        """Reads the weights of an adapter folder; raises ValueError when another method, or other
        settings, made it."""
        card = json.loads((Path(folder) / "adapter.json").read_text())
        if card["method"] != self.name:
            raise ValueError(f"{folder} holds a {card['method']!r} adapter: expected {self.name!r}")
        tensors = self.own_tensors() | load_file(Path(folder) / "adapter.safetensors")
        here = self.adapter.state_dict()
        shapes, found = (
            {key: tensor.shape for key, tensor in some.items()} for some in (here, tensors)
        )
        wrong = sorted(
            key for key in shapes.keys() | found.keys() if shapes.get(key) != found.get(key)
        )
        if wrong:
            cure = "give the settings that the adapter was made with (its adapter.json)"
            raise ValueError(
                f"{folder} does not fit: {wrong[0]} and {len(wrong) - 1} more are missing, "
                f"new or of another shape; {cure}"
            )
        self.adapter.load_state_dict(tensors)

    def own_tensors(self) -> dict[str, Tensor]:
        """Those of the adapter's tensors that stay as they are where an adapter folder has none of
        them."""
        return {}

    @classmethod
    def load_adapter(cls, folder: Path | str, backbone: Backbone) -> Method:
        """The method that an adapter folder holds, installed into ``backbone`` and ready to
        generate.

        Raises ValueError when the adapter was made by another method; called on `Method` itself it
        takes all of them.
        """
        card = json.loads((Path(folder) / "adapter.json").read_text())
        name = card["method"]
        kind = method_class(name) if name in methods() else None
        if kind is None or not issubclass(kind, cls):
            expected = " or ".join(map(repr, methods() if cls is Method else [cls.name]))
            raise ValueError(f"{folder} holds a {name!r} adapter: expected {expected}")
        method = kind.from_card(card, backbone)
        method.load_weights(folder)
        return method.eval()

    @classmethod
    def from_card(cls, card: dict[str, Any], backbone: Backbone) -> Method:
        return cls(backbone, MethodConfig(name=cls.name), TrainerConfig(), card["resolution"])
