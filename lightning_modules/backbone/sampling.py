"""Noise, and how sampling takes it away."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from conf.describe import show_count
from lightning_modules.backbone.guiders import Guider
from lightning_modules.backbone.precision import resolve_precision
from lightning_modules.backbone.schedules import is_flow
from lightning_modules.backbone.weakened import weakened

if TYPE_CHECKING:
    from conf.schema import Evaluation
    from lightning_modules.backbone.backbone import Backbone
    from lightning_modules.backbone.configs import BackboneConfigs
    from lightning_modules.backbone.text import TextCondition

# Some schedulers need several steps, some take only a few
ANY_STEPS = (8, 4, 2, 1)
FEW_STEPS = 64  # No scheduler of diffusers asks for more than a handful
CURE = "give the backbone another scheduler, such as {}"
DIFFUSION, FLOWS = "DDIMScheduler", "FlowMatchEulerDiscreteScheduler"
# What ``set_timesteps`` is given beside so many steps
StepOptions = Callable[[int], Mapping[str, Any]]


class Mover(Protocol):
    """Moves the latents of one batch between the sampler's steps. What it does to an image depends
    on that image alone."""

    def begin(self, noise: Tensor, generators: Sequence[torch.Generator], scheduler: Any) -> Tensor:
        """The first noise [B, C, h, w], of spread 1, of which the given one is the first that the
        rows' ``generators`` drew."""
        ...

    def move(self, latents: Tensor, number: int, timestep: Tensor, scheduler: Any) -> Tensor:
        """The latents [B, C, h, w] before the denoiser is called for the ``number``-th time, at
        ``timestep``."""
        ...

    def finish(self, finite: Tensor) -> Tensor:
        """bool [B]: the images that it gave up, which are drawn without it; all those that are not
        ``finite`` [B] at the end are among them."""
        ...


def no_options(steps: int) -> Mapping[str, Any]:
    """Nothing beside the number of steps."""
    return {}


# The rows of a batch, its encoded prompts and the scale of guidance -> what moves its latents
Steering = Callable[[slice, "TextCondition", float], Mover]


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """float32 [B, C, h, w]; each row depends on its own seed alone, so that the batching changes no
    image."""
    return _draw_noise(_seed_rows(seeds), shape)


@contextmanager
def sampling_as(backbone: Backbone, evaluation: Evaluation) -> Iterator[None]:
    """Inside the block images are drawn with the guider and in the precision of ``evaluation``."""
    before = backbone.guider, backbone.precision
    backbone.guider = Guider(evaluation.guider, dict(evaluation.guider_options))
    backbone.precision = resolve_precision(evaluation, backbone.device.type, backbone.dtype)
    try:
        yield
    finally:
        backbone.guider, backbone.precision = before


@torch.no_grad()
def sample(
    backbone: Backbone,
    prompts: list[str],
    seeds: list[int],
    steps: int,
    guidance: float,
    resolution: int,
    batch: int = 64,
    steering: Sequence[Steering] = (),
) -> Tensor:
    """uint8 images [N, 3, H, W]: the backbone's own scheduler, both halves of classifier-free
    guidance in one call of the denoiser, joined by its guider.

    An image is what the stock pipeline draws from ``torch.Generator().manual_seed(seed)``, whatever
    the batch: its row's generator draws the first noise and that of each step. No safety checker
    blackens it, no watermark is put in. ``steering`` moves the latents before steps; an image that
    it gives up is the one without it. Raises ValueError when ``prompts`` and ``seeds`` differ in
    length.
    """
    if len(prompts) != len(seeds):
        raise ValueError(
            f"{show_count(len(prompts), 'prompt')} but {show_count(len(seeds), 'seed')}: expected "
            "one seed for each prompt"
        )
    shape, family = backbone.latent_size(resolution), backbone.family
    guided, images = family.is_guided(guidance), []
    for start in range(0, len(prompts), batch):
        rows = slice(start, start + batch)
        text = backbone.text.encode(prompts[rows])
        movers, conditional_text = [steer(rows, text, guidance) for steer in steering], text
        if guided:
            text = backbone.text.encode_empty(len(text.hidden)) + text

        def draw(
            movers: Sequence[Mover],
            seeds: Sequence[int] = seeds[rows],
            text: TextCondition = text,
            conditional_text: TextCondition = conditional_text,
        ) -> Tensor:
            scheduler = prepare_scheduler(
                backbone.scheduler,
                steps,
                family.starts_at_first_sigma,
                backbone.device,
                backbone.step_options(resolution),
            )
            join, numbers = backbone.guider.start(guidance, steps), itertools.count()
            calls = len(scheduler.timesteps)  # Some schedulers look several times in a step

            def compute(inputs: Tensor, t: Tensor, text: TextCondition) -> Tensor:
                mixed = backbone.precision == "bf16-mixed"
                with torch.autocast(inputs.device.type, torch.bfloat16) if mixed else nullcontext():
                    timesteps = t.expand(len(inputs))
                    prediction = backbone.predict(inputs, timesteps, text, resolution, guidance)
                return prediction.to(inputs.dtype)

            def predict(inputs: Tensor, t: Tensor) -> Tensor:
                prediction = compute(inputs, t, text)
                if not guided:
                    return prediction
                unconditional, conditional = prediction.chunk(2)
                joined = join(unconditional, conditional, t)
                if away := backbone.guider.weakens(next(numbers), calls):
                    kind, sigma = backbone.guider.name, backbone.guider.sigma
                    with weakened(backbone.denoiser, kind, shape[1:], sigma):
                        weak = compute(inputs.chunk(2)[1], t, conditional_text)
                    joined = joined + away * (conditional - weak)
                return joined

            return denoise(
                scheduler,
                seeds,
                shape,
                predict,
                copies=2 if guided else 1,
                keep_estimate=steps == 1 and family.keeps_single_estimate,
                like=torch.empty((), device=backbone.device, dtype=backbone.dtype),
                movers=movers,
            )

        latents = draw(movers)
        if movers:
            finite = latents.flatten(1).isfinite().all(1)
            given_up = torch.stack([mover.finish(finite) for mover in movers]).any(0)
            if given_up.any():
                latents = torch.where(given_up[:, None, None, None], draw(()), latents)
        images.append(backbone.autoencoder.decode(latents))
    return torch.cat(images)


def prepare_scheduler(
    scheduler: Any,
    steps: int,
    at_first_sigma: bool = False,
    device: torch.device | str = "cpu",
    options: StepOptions = no_options,
) -> Any:
    """A scheduler of the same settings, since some remember their past steps, before the first of
    ``steps``. ``at_first_sigma``: it is told that it begins there, and need not look for the first
    timestep, which may come twice. ``options`` is what the stock pipeline gives it besides."""
    fresh = type(scheduler).from_config(scheduler.config)
    fresh.set_timesteps(steps, device=device, **options(steps))
    if at_first_sigma and hasattr(fresh, "set_begin_index"):
        fresh.set_begin_index(0)
    return fresh


def denoise(
    scheduler: Any,
    seeds: Sequence[int],
    shape: tuple[int, int, int],
    predict: Callable[[Tensor, Tensor], Tensor],
    copies: int = 1,
    keep_estimate: bool = False,
    like: Tensor | None = None,
    movers: Sequence[Mover] = (),
) -> Tensor:
    """Latents [B, C, h, w] of ``shape``, with dtype and device of ``like``, by a diffusers
    ``scheduler`` that
    `prepare_scheduler` made. All its noise comes from one generator a row.

    ``predict`` maps the scaled latents, ``copies`` times one after the other, and a timestep to the
    prediction [B, C, h, w]. ``keep_estimate``: whether the last step's estimate of the clean
    latents is wanted instead, where the scheduler gives one. ``movers`` change the first noise, and
    move the latents before ``predict`` is called.
    """
    like = torch.zeros(()) if like is None else like
    generators = _seed_rows(seeds)
    latents = _draw_noise(generators, shape).to(like.device, like.dtype)
    for mover in movers:
        latents = mover.begin(latents, generators, scheduler)
    latents = latents * initial_spread(scheduler)
    # As stock pipelines call any scheduler: without noise where its share can be chosen
    known = inspect.signature(scheduler.step).parameters
    options = {"eta": 0.0, "generator": generators}
    options = {name: value for name, value in options.items() if name in known}
    if hasattr(scheduler, "noise_sampler_seed"):  # DPMSolverSDE takes seeds, not generators
        scheduler.noise_sampler_seed = [seed % 2**63 for seed in seeds]
    for number, t in enumerate(scheduler.timesteps):
        for mover in movers:
            latents = mover.move(latents, number, t, scheduler)
        inputs = torch.cat([latents] * copies) if copies > 1 else latents
        prediction = predict(scale_input(scheduler, inputs, t), t)
        latents, *estimate = scheduler.step(prediction, t, latents, **options, return_dict=False)
        if keep_estimate and estimate:
            latents = estimate[0]
    return latents


def initial_spread(scheduler: Any) -> Any:
    """The spread of the first noise: 1 of a flow."""
    return 1.0 if is_flow(scheduler) else scheduler.init_noise_sigma


def scale_input(scheduler: Any, latents: Tensor, timestep: Tensor) -> Tensor:
    """The latents as the denoiser is given them: these themselves of a flow."""
    return latents if is_flow(scheduler) else scheduler.scale_model_input(latents, timestep)


def check_scheduler(
    scheduler: Any,
    at_first_sigma: bool = False,
    flow: bool = False,
    options: StepOptions = no_options,
) -> None:
    """Refuses, before anything is drawn, a scheduler that draws in no number of steps, one of flows
    (``flow``: one of diffusion) or of the way from images to noise, and one whose images would
    depend on more than their own seeds. ``at_first_sigma`` and ``options`` as in
    `prepare_scheduler`. Raises ValueError."""
    name, config = type(scheduler).__name__, getattr(scheduler, "config", {})
    cure = CURE.format(FLOWS if flow else DIFFUSION)
    by_flow = config.get("prediction_type") == "flow_prediction" or config.get("use_flow_sigmas")
    if not flow and (is_flow(scheduler) or by_flow):
        how = " with these settings" if not is_flow(scheduler) else ""
        raise ValueError(
            f"the scheduler {name}{how} is not one of diffusion, but of flows (SD3, FLUX): "
            f"expected one that its text-to-image pipeline draws with; {cure}"
        )
    if flow and (name != FLOWS or config.get("invert_sigmas")):
        how = " with invert_sigmas" if name == FLOWS else ""
        raise ValueError(
            f"the scheduler {name}{how} is not the flow that this model was trained for: expected "
            f"one that its text-to-image pipeline draws with; {cure}"
        )
    if name.endswith("InverseScheduler"):
        raise ValueError(
            f"the scheduler {name} goes from images to noise: expected one that its text-to-image "
            f"pipeline draws with; {cure}"
        )
    failure: Exception | None = None
    for steps in ANY_STEPS:
        if (failure := _find_failure(scheduler, steps, at_first_sigma, options)) is None:
            return
    raise ValueError(
        f"the scheduler {name} cannot sample in any number of steps "
        f"({_explain(scheduler, failure)}): expected class and settings that its text-to-image "
        f"pipeline draws with; {cure}"
    ) from failure


def check_steps(backbone: BackboneConfigs, setting: str, steps: int) -> None:
    """Refuses a ``setting`` of that many ``steps`` where the backbone's scheduler cannot take them,
    and names the nearest number that it takes. Raises ValueError."""
    scheduler, first = backbone.scheduler, backbone.family.starts_at_first_sigma
    options = backbone.step_options()
    failure = _find_failure(scheduler, steps, first, options)
    if failure is None:
        return
    fits = lambda count: _find_failure(scheduler, count, first, options) is None  # noqa: E731
    known, cure = "", CURE.format(FLOWS if is_flow(scheduler) else DIFFUSION)
    if (most := _find_most(fits, steps)) is not None:
        known, cure = f": {most:,} are the most below that work", f"set {setting}={most}, or {cure}"
    elif (fewest := next(filter(fits, range(steps + 1, FEW_STEPS)), None)) is not None:
        known = f": {fewest:,} are the fewest that work"
        cure = f"set {setting}={fewest}, or {cure}"
    raise ValueError(
        f"{setting}={steps}: the scheduler {type(scheduler).__name__} cannot sample in "
        f"{show_count(steps, 'step')}{known}; {cure}"
    ) from failure


def _find_most(fits: Callable[[int], bool], steps: int) -> int | None:
    """The most below ``steps``, which do not fit, that do, where all below fit; None without."""
    if steps > 1 and fits(steps - 1):
        return steps - 1
    low = next((count for count in ANY_STEPS if count < steps and fits(count)), None)
    if low is None:
        return None
    while steps - low > 1:
        middle = (low + steps) // 2
        low, steps = (middle, steps) if fits(middle) else (low, middle)
    return low


def _find_failure(
    scheduler: Any, steps: int, at_first_sigma: bool, options: StepOptions
) -> Exception | None:
    """Why a toy cannot be drawn in ``steps``. Raises ValueError where no seed decides it."""

    def draw(seeds: Sequence[int]) -> Tensor:
        started = prepare_scheduler(scheduler, steps, at_first_sigma, options=options)
        return denoise(started, seeds, (4, 4, 4), lambda inputs, _: inputs / 2)

    # What ignores the seeds draws from the global generator, which is put back
    with torch.random.fork_rng(devices=[]):
        try:
            together, alone = draw([1, 2]), draw([2])
        except Exception as error:
            return error
    if not alone.isfinite().all():
        return FloatingPointError("it ends in numbers that are not finite")
    if not torch.allclose(together[1:], alone, 1e-3, 1e-3 * float(alone.abs().max())):
        raise ValueError(
            f"the scheduler {type(scheduler).__name__} draws noise that no seed decides: expected "
            "one that takes a generator for each image, such as EulerAncestralDiscreteScheduler"
        )
    return None


def _explain(scheduler: Any, failure: Exception | None) -> str:
    """Why a scheduler draws nothing, in words that need no look into diffusers."""
    if isinstance(failure, FloatingPointError):
        return str(failure)
    needed = ["from_config", "set_timesteps", "step"]
    if not is_flow(scheduler):
        needed += ["scale_model_input", "init_noise_sigma"]
    if missing := [name for name in needed if not hasattr(scheduler, name)]:
        return f"it has no {missing[0]}"
    known = ("model_output", "timestep", "sample", "generator", "return_dict")
    asked = inspect.signature(scheduler.step).parameters.values()
    if extra := [p.name for p in asked if p.default is p.empty and p.name not in known]:
        return f"its step() asks for {', '.join(extra)}"
    return f"it fails on latents of 4 channels, {type(failure).__name__}"


def _seed_rows(seeds: Sequence[int]) -> list[torch.Generator]:
    # On the CPU: the numbers of a device's own generator are others
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _draw_noise(generators: Sequence[torch.Generator], shape: tuple[int, int, int]) -> Tensor:
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])
