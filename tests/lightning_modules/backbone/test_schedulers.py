"""Every scheduler that a pipeline can bring: images follow their seeds alone, whatever the batch,
and are the stock pipeline's; what cannot be seeded, or cannot be trained on, is refused."""

from __future__ import annotations

import re
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers import KarrasDiffusionSchedulers

from conf import load as conf
from conf.schema import Run
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import (
    check_scheduler,
    check_steps,
    denoise,
    initial_noise,
    no_options,
    prepare_scheduler,
    sample,
)
from lightning_modules.backbone.schedules import NoiseSchedule
from lightning_modules.training.checks import check_backbone

# Class and settings; "stochastic" ones draw noise in their steps
DETERMINISTIC: list[tuple[str, dict[str, Any]]] = [
    ("DDIMScheduler", {}),
    ("DDIMScheduler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ("DDIMParallelScheduler", {}),
    ("DEISMultistepScheduler", {}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}),
    ("DPMSolverSinglestepScheduler", {"lower_order_final": True}),
    ("EDMDPMSolverMultistepScheduler", {}),
    ("EDMEulerScheduler", {}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}),
    (
        "EulerDiscreteScheduler",
        {
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": True,
            "timestep_spacing": "trailing",
        },
    ),
    ("EulerDiscreteScheduler", {"prediction_type": "sample", "use_exponential_sigmas": True}),
    ("DDIMScheduler", {"thresholding": True, "set_alpha_to_one": False, "steps_offset": 1}),
    ("HeunDiscreteScheduler", {}),
    ("KDPM2DiscreteScheduler", {}),
    ("LMSDiscreteScheduler", {}),
    ("PNDMScheduler", {"skip_prk_steps": True}),
    ("PNDMScheduler", {"skip_prk_steps": False}),
    ("TCDScheduler", {}),  # With the eta of stock pipelines, 0, not its own .3
    ("UniPCMultistepScheduler", {"solver_type": "bh2"}),
]
STOCHASTIC: list[tuple[str, dict[str, Any]]] = [
    ("DDPMScheduler", {"clip_sample": False}),
    ("DDPMScheduler", {"clip_sample": False, "variance_type": "fixed_large"}),
    ("DDPMParallelScheduler", {"clip_sample": False}),
    (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"},
    ),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}),
    ("DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    ("DPMSolverSDEScheduler", {}),
    ("EDMDPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    ("EulerAncestralDiscreteScheduler", {}),
    ("KDPM2AncestralDiscreteScheduler", {}),
    ("LCMScheduler", {}),
    ("SASolverScheduler", {}),
]
EVERY = [
    pytest.param(name, settings, id=f"{name}-{'-'.join(map(str, settings.values()))}")
    for name, settings in DETERMINISTIC + STOCHASTIC
]
# Images by default of those that are met most and differ most; toys are drawn by all
USUAL = (
    "DDIM",
    "DDPMS",
    "EDMEuler",
    "Euler",
    "Heun",
    "LCM",
    "PNDM",
    "SASolver",
    "SDE",
    "TCD",
    "sde-",
)
IMAGES = [
    pytest.param(*each.values, id=each.id)
    if any(usual in str(each.id) for usual in USUAL)
    else pytest.param(*each.values, id=each.id, marks=pytest.mark.slow)
    for each in EVERY
]
every = pytest.mark.parametrize(("name", "settings"), EVERY)
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SEEDS = [3, 14, 15, 92, 65, 35, 89, 79]
PROMPTS = ["a red circle", "a white ring above a dog"]


def build(name: str, settings: dict[str, Any]) -> Any:
    if name == "DPMSolverSDEScheduler" and find_spec("torchsde") is None:
        pytest.skip("torchsde is not installed")
    betas = {} if name.startswith("EDM") else BETAS
    return getattr(diffusers, name)(**betas | settings)


def draw(scheduler: Any, seeds: list[int], steps: int = 6) -> torch.Tensor:
    """Latents of a model that says half of what it sees."""
    return denoise(
        prepare_scheduler(scheduler, steps), seeds, (4, 4, 4), lambda inputs, _: inputs / 2
    )


def with_scheduler(backbone: Backbone, scheduler: Any) -> Backbone:
    backbone.pipeline.scheduler = scheduler
    return Backbone(backbone.pipeline, "given")


def stock(pipeline: Any, seeds: list[int], steps: int, guidance: float, side: int) -> torch.Tensor:
    # A DPMSolverSDE takes seeds
    pipeline.scheduler.noise_sampler_seed = seeds
    images = pipeline(
        PROMPTS[: len(seeds)],
        num_inference_steps=steps,
        guidance_scale=guidance,
        height=side,
        width=side,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="pt",
    ).images
    return (images * 255).round().to(torch.uint8)


def apart(a: torch.Tensor, b: torch.Tensor) -> int:
    return int((a.int() - b.int()).abs().max())


def test_all_that_pipelines_declare_to_be_compatible_are_here():
    tested = {name for name, _ in DETERMINISTIC + STOCHASTIC}
    assert {scheduler.name for scheduler in KarrasDiffusionSchedulers} <= tested


@every
def test_latents_follow_their_own_seed_alone(name: str, settings: dict[str, Any]):
    scheduler = build(name, settings)
    torch.manual_seed(1)
    together = draw(scheduler, SEEDS)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    alone = torch.cat([draw(scheduler, [seed]) for seed in SEEDS])
    assert torch.equal(torch.get_rng_state(), state), "nothing comes from the global generator"
    assert together.isfinite().all() and torch.equal(draw(scheduler, SEEDS), together)
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5 * float(together.abs().max()))
    assert not torch.allclose(together[0], together[1], rtol=0.1)


@pytest.mark.parametrize(("name", "settings"), EVERY[len(DETERMINISTIC) :])
def test_what_is_called_stochastic_draws_in_its_steps(name: str, settings: dict[str, Any]):
    fresh = prepare_scheduler(build(name, settings), 6)
    zero = denoise(fresh, SEEDS[:2], (4, 4, 4), lambda inputs, _: inputs * 0)
    # Without noise every row would be the same multiple of its first noise
    ratio = (zero / initial_noise(SEEDS[:2], (4, 4, 4))).flatten()
    assert ratio.std() > 1e-2 * ratio.abs().mean()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("name", "settings"), IMAGES)
def test_images_are_those_of_the_stock_pipeline(name: str, settings: dict[str, Any], sd1: Backbone):
    backbone = with_scheduler(sd1, build(name, settings))
    images = sample(backbone, PROMPTS, SEEDS[:2], 4, 3.0, 16)
    assert images.float().std() > 10
    assert apart(images, stock(backbone.pipeline, SEEDS[:2], 4, 3.0, 16)) <= 1


def test_what_a_stock_pipeline_changes_in_an_old_config_is_changed_here_too(
    sd1: Backbone, tmp_path: Path
):
    # Stable Diffusion's opens a scheduler with clip_sample=False and steps_offset=1
    pipeline = with_scheduler(sd1, diffusers.DDIMScheduler(**BETAS, clip_sample=True)).pipeline
    pipeline.save_pretrained(tmp_path)
    backbone = Backbone.load(str(tmp_path))
    images = sample(backbone, PROMPTS, SEEDS[:2], 4, 3.0, 16)
    assert apart(images, stock(backbone.pipeline, SEEDS[:2], 4, 3.0, 16)) <= 1
    assert apart(images, sample(sd1, PROMPTS, SEEDS[:2], 4, 3.0, 16)) > 1


@pytest.mark.parametrize(("name", "settings"), IMAGES[len(DETERMINISTIC) :])
def test_a_batch_of_one_draws_what_a_batch_of_eight_draws(
    name: str, settings: dict[str, Any], sd1: Backbone
):
    backbone = with_scheduler(sd1, build(name, settings))
    prompts = [PROMPTS[i % 2] for i in range(8)]
    together = sample(backbone, prompts, SEEDS, 3, 3.0, 16)
    alone = sample(backbone, prompts[4:6], SEEDS[4:6], 3, 3.0, 16, batch=1)
    assert apart(together[4:6], alone) <= 1


@pytest.mark.parametrize("name", ["embedded", "pixart"])
@pytest.mark.parametrize(
    "scheduler", ["EulerAncestralDiscreteScheduler", "EDMEulerScheduler", "DDPMScheduler"]
)
def test_other_families_draw_with_noise_as_their_stock_pipelines(
    name: str, scheduler: str, request: pytest.FixtureRequest
):
    kind = getattr(diffusers, scheduler)
    given = kind() if scheduler.startswith("EDM") else kind(**BETAS)
    backbone = with_scheduler(request.getfixturevalue(name), given)
    extra = {"clean_caption": False, "use_resolution_binning": False} if name == "pixart" else {}
    generators = [seeded(seed) for seed in SEEDS[:2]]
    expected = backbone.pipeline(
        PROMPTS,
        num_inference_steps=3,
        guidance_scale=3.0,
        height=64,
        width=64,
        generator=generators,
        output_type="pt",
        **extra,
    ).images
    images = sample(backbone, PROMPTS, SEEDS[:2], 3, 3.0, 64)
    assert images.float().std() > 10 and apart(images, (expected * 255).round()) <= 1


@pytest.mark.parametrize("name", ["DDPMScheduler", "LCMScheduler"])
def test_of_a_single_step_pixart_takes_the_estimate(name: str, pixart: Backbone):
    backbone = with_scheduler(
        pixart, getattr(diffusers, name)(**BETAS, timestep_spacing="trailing", clip_sample=False)
    )
    expected = backbone.pipeline(
        PROMPTS[0],
        num_inference_steps=1,
        guidance_scale=1.0,
        height=64,
        width=64,
        generator=seeded(5),
        output_type="pt",
        clean_caption=False,
        use_resolution_binning=False,
    ).images
    images = sample(backbone, PROMPTS[:1], [5], 1, 1.0, 64)
    assert images.float().std() > 10 and apart(images, (expected * 255).round()) <= 1


def test_where_the_first_timestep_comes_twice_it_begins_where_the_stock_pipeline_does(
    embedded: Backbone, sd1: Backbone
):
    # SDXL's says that it begins at the first sigma, SD's lets the scheduler look for the timestep
    scheduler = diffusers.EulerDiscreteScheduler(
        **BETAS, num_train_timesteps=5, timestep_spacing="trailing"
    )
    backbone, other = with_scheduler(embedded, scheduler), with_scheduler(sd1, scheduler)
    scheduler.set_timesteps(12)
    assert scheduler.timesteps[0] == scheduler.timesteps[1]
    with pytest.raises(IndexError):
        stock(other.pipeline, SEEDS[:2], 12, 3.0, 32)
    config = conf.replace(Run(), {"method": "untouched", "evaluation.steps": 12})
    for each in (backbone, other):  # A run is refused
        with pytest.raises(ValueError, match="evaluation.steps=12: .* has 5 noise levels"):
            check_backbone(config, each)
    images = sample(backbone, PROMPTS, SEEDS[:2], 12, 3.0, 32)
    assert images.float().std() > 10
    assert apart(images, stock(backbone.pipeline, SEEDS[:2], 12, 3.0, 32)) <= 1


# --- refused --------------------------------------------------------------------------------------


class Careless(diffusers.DDIMScheduler):
    """Draws from the global generator."""

    def step(self, model_output: Any, timestep: Any, sample: Any, return_dict: bool = True) -> Any:
        given = super().step(model_output, timestep, sample, return_dict=return_dict)
        return given[0] + 0.1 * torch.randn(sample.shape), given[1]


class Shared(diffusers.DDIMScheduler):
    """Draws the noise of a whole batch from one generator."""

    def step(self, model_output: Any, timestep: Any, sample: Any, return_dict: bool = True) -> Any:
        given = super().step(model_output, timestep, sample, return_dict=return_dict)
        return given[0] + 0.1 * torch.randn(sample.shape, generator=seeded(7)), given[1]


class Single(diffusers.DDIMScheduler):
    """Takes one generator, not one a row."""

    def step(
        self, model_output: Any, timestep: Any, sample: Any, generator: Any, return_dict: bool
    ) -> Any:
        given = super().step(model_output, timestep, sample, return_dict=return_dict)
        return given[0] + 0.1 * torch.randn(sample.shape, generator=generator), given[1]


class Other(ConfigMixin):
    """No scheduler of images."""

    config_name = "scheduler_config.json"

    @register_to_config
    def __init__(self) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Careless, "the scheduler Careless draws noise that no seed decides: expected one"),
        (Shared, "the scheduler Shared draws noise that no seed decides: expected one"),
        (Single, "Single cannot sample in any number of steps .*: expected"),
        (partial(diffusers.UniPCMultistepScheduler, solver_type="bh1"), "that are not finite"),
        (Other, "Other cannot sample in any number of steps .it has no set_timesteps.: expected"),
        (diffusers.DDIMInverseScheduler, "goes from images to noise: expected one"),
        (
            partial(
                diffusers.DPMSolverMultistepScheduler,
                prediction_type="flow_prediction",
                use_flow_sigmas=True,
            ),
            "with these settings is not one of diffusion, but of flows",
        ),
        (
            diffusers.FlowMatchEulerDiscreteScheduler,
            "FlowMatchEulerDiscreteScheduler is not one of diffusion, but of flows",
        ),
    ],
)
def test_a_scheduler_that_cannot_be_seeded_is_refused_at_once(kind: Any, said: str, sd1: Backbone):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=said) as caught:
        with_scheduler(sd1, kind())
    assert "\n" not in str(caught.value) and torch.equal(torch.get_rng_state(), state)


ARGUMENTS = {
    "AmusedScheduler": {"mask_token_id": 5},
    "RFD4ProteinaScheduler": None,  # Of structures of proteins, without defaults
    "VQDiffusionScheduler": {"num_vec_classes": 5},
}
EXPORTED = [
    name
    for name in dir(diffusers)
    if name.endswith("Scheduler") and ARGUMENTS.get(name, {}) is not None
]
# Words of numpy, torch, Python and diffusers, which tell no user what to set
RAW = re.compile(r"operand|broadcast|dimension|attribute|argument|zero|num_inference_steps|None")
NO_IMAGES = re.compile(
    "BlockRef|CogVideoXDPM|DiscreteDDIM|EntropyBound|Flow|Helios|Inverse|KarrasVe|LTX|MiniMax|"
    "Piflow|RePaint|SCM|ScoreSde|Wuerstchen|Amused|VQ"
)


def check_any_steps(name: str, counts: list[int]) -> list[int]:
    """Those of the counts that the scheduler takes; all others are refused in one line."""
    try:
        scheduler = getattr(diffusers, name)(**ARGUMENTS.get(name, {}))
    except ImportError as error:
        pytest.skip(str(error).strip().splitlines()[0])
    family = SimpleNamespace(starts_at_first_sigma=False)
    backbone: Any = SimpleNamespace(
        scheduler=scheduler, family=family, step_options=lambda: no_options
    )
    taken = []
    try:
        check_scheduler(scheduler)
        for steps in counts:
            try:
                check_steps(backbone, "evaluation.steps", steps)
            except ValueError as error:
                line = str(error)
                assert line.startswith(f"evaluation.steps={steps}: the scheduler {name} cannot")
                works = int(re.search(r"; set evaluation.steps=(\d+), or", line)[1])
                check_steps(backbone, "evaluation.steps", works)
                assert "\n" not in line and not RAW.search(line)
            else:
                assert draw(scheduler, SEEDS[:2], steps).isfinite().all()
                taken.append(steps)
    except ValueError as error:
        line = str(error)
        assert line.startswith(f"the scheduler {name} ") and "expected" in line
        assert "\n" not in line and not RAW.search(line)
    return taken


@pytest.mark.parametrize("name", EXPORTED)
def test_any_scheduler_of_diffusers_draws_or_is_refused_in_one_line(name: str):
    taken = check_any_steps(name, [1, 2, 3, 8, 50])
    assert bool(taken) != bool(NO_IMAGES.search(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_any_scheduler_of_diffusers_takes_a_thousand_steps_or_names_how_many(name: str):
    check_any_steps(name, [1000])


def test_too_few_steps_are_refused_with_the_fewest_that_work(sd1: Backbone):
    backbone = with_scheduler(sd1, diffusers.PNDMScheduler(**BETAS))
    config = conf.replace(Run(), {"method": "untouched", "evaluation.steps": 2})
    said = "evaluation.steps=2: .* PNDMScheduler cannot sample in 2 steps: 4 are the fewest"
    with pytest.raises(ValueError, match=said):
        check_backbone(config, backbone)
    check_backbone(conf.replace(config, {"evaluation.steps": 4}), backbone)


def test_a_scheduler_for_a_single_number_of_steps_is_asked_with_it(sd1: Backbone):
    class Two(diffusers.DDIMScheduler):
        def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
            assert num_inference_steps == 2
            super().set_timesteps(num_inference_steps, device)

    backbone = with_scheduler(sd1, Two(**BETAS))
    config = conf.replace(Run(), {"method": "untouched", "evaluation.steps": 2})
    check_backbone(config, backbone)
    with pytest.raises(ValueError, match="8 steps: 2 are the most below that work"):
        check_backbone(conf.replace(config, {"evaluation.steps": 8}), backbone)


def test_a_scheduler_that_only_draws_is_announced():
    assert not NoiseSchedule(diffusers.DDIMScheduler()).describe()
    line = NoiseSchedule(diffusers.EDMEulerScheduler()).describe()
    assert "EDMEulerScheduler" in line and "nothing can be trained on it" in line


def test_more_steps_than_a_scheduler_takes_are_refused_before_the_run(sd1: Backbone):
    backbone = with_scheduler(sd1, diffusers.LCMScheduler(**BETAS, original_inference_steps=4))
    config = conf.replace(Run(), {"method": "untouched", "evaluation.steps": 5})
    with pytest.raises(ValueError, match="evaluation.steps=5: the scheduler LCMScheduler cannot"):
        check_backbone(config, backbone)
    check_backbone(conf.replace(config, {"evaluation.steps": 4}), backbone)
    scene = {"method": "break_a_scene", "data": "scene", "data.root": "auto", "evaluation.steps": 4}
    with pytest.raises(ValueError, match="method.subjects.prior_steps=30: the scheduler LCM"):
        check_backbone(conf.replace(Run(), scene), backbone)


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        (diffusers.EDMEulerScheduler(), "EDMEulerScheduler does not add noise by timesteps"),
        (diffusers.DDIMScheduler(prediction_type="sample"), "the backbone predicts 'sample'"),
    ],
)
def test_what_cannot_be_trained_on_draws_and_is_refused_before_training(
    scheduler: Any, said: str, sd1: Backbone
):
    backbone = with_scheduler(sd1, scheduler)
    check_backbone(conf.replace(Run(), {"method": "untouched"}), backbone)
    with pytest.raises(ValueError, match=said):
        check_backbone(Run(), backbone)
    with pytest.raises(ValueError, match=said):
        backbone.schedule.add_noise(*torch.zeros(2, 1, 4, 1, 1), torch.tensor([0]))


def test_a_scheduler_that_needs_torchsde_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> None:
        raise ImportError("DPMSolverSDEScheduler requires the torchsde library but\nit was not")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", fail)
    monkeypatch.setattr("lightning_modules.backbone.backbone.read_configs", lambda *_: None)
    with pytest.raises(FileNotFoundError, match=r"needs torchsde: pip install -e \.\[sde\]$"):
        Backbone.load(str(tmp_path))


def test_looking_for_the_seeds_is_quick_and_leaves_the_scheduler_alone():
    scheduler = diffusers.PNDMScheduler(**BETAS, skip_prk_steps=True)
    check_scheduler(scheduler)
    assert scheduler.num_inference_steps is None and not scheduler.ets
