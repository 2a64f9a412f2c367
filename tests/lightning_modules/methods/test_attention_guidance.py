"""Guidance by attention maps: the step, batches, thresholds, what is given up, and how it goes
together with adapters, stock pipelines and the house."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from helpers.installed_methods import draw_with, install_method
from torch import Tensor

from conf.method.attention_guidance import LOSSES, WITH_MASKS
from conf.method.attention_guidance import AttentionGuidance as Settings
from conf.schema import Gate, Masks, Method, Run, Trainer, Weights
from conf.spec import steering
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import initial_noise, prepare_scheduler, sample
from lightning_modules.evaluation.images import image_facts
from lightning_modules.methods.guidance_steps import plan_steps
from lightning_modules.methods.latent_guidance import GuidedBatch
from lightning_modules.methods.registry import build_method, method_class
from lightning_modules.training.checks import check
from lightning_modules.training.keys import sampling_code, training_facts
from losses.objectives.inputs import ObjectiveInputs, objective
from losses.objectives.table import OBJECTIVES

PROMPTS = ["a red circle and a blue square", "a white ring", "a red ring left of a blue circle"]
SEEDS = [1, 2, 3]
BOTH = {"enhance": 1.0, "separate": 1.0}


def guided(backbone: Backbone, name: str = "attention_guidance", **given: Any) -> Any:
    settings = Settings(**{"losses": BOTH, "step_size": 5.0, "side": 8, **given})
    config = Method(name, attention_guidance=settings, gate=Gate(width=8, bias=0.0, stage="all"))
    torch.manual_seed(0)
    return method_class(name)(backbone, config, Trainer(), 64)


def draw(method: Any, rows: slice = slice(None), steps: int = 3, batch: int = 3, **given: Any):
    return method.generate(PROMPTS[rows], SEEDS[rows], None, steps, 3.0, batch, **given).int()


def begin(method: Any, rows: list[int], steps: int = 4) -> tuple[GuidedBatch, Any, Tensor, Tensor]:
    """A batch before the first of its ``steps``: its mover, scheduler, timestep and latents."""
    backbone, prompts = method.backbone, [PROMPTS[row] for row in rows]
    seeds = [SEEDS[row] for row in rows]
    (guide,) = method.guides
    text = backbone.text.encode(prompts)
    mover = guide.plan(prompts, seeds, None, steps)(slice(None), text, 3.0)
    scheduler = prepare_scheduler(backbone.scheduler, steps)
    latents = initial_noise(seeds, backbone.latent_size(method.resolution))
    return mover, scheduler, scheduler.timesteps[0], latents * scheduler.init_noise_sigma


# --- the schedule ---------------------------------------------------------------------------------


def test_shares_of_the_steps_are_attend_and_excites_of_fifty() -> None:
    settings = Settings(
        BOTH, 20.0, "root", stop=0.5, thresholds={"0": 0.95, "0.2": 0.5, "0.4": 0.2}
    )
    steps = plan_steps(settings, 50)
    assert [step.moves for step in steps] == [1] * 25 + [0] * 25
    assert {i: s.threshold for i, s in enumerate(steps) if s.threshold is not None} == {
        0: 0.95,
        10: 0.5,
        20: 0.2,
    }
    released = 20 * np.sqrt(np.linspace(1.0, 0.5, 50))
    assert np.allclose([step.size for step in steps], released, rtol=1e-12)


def test_steps_begin_and_end_where_their_shares_say() -> None:
    steps = plan_steps(Settings(BOTH, 8.0, "linear", start=0.25, stop=0.58, inner_steps=3), 50)
    # .58 * 50 is 28.999… in floats, and .25 * 50 is rounded up
    assert [i for i, step in enumerate(steps) if step.moves] == [*range(13, 29)]
    assert {step.moves for step in steps} == {0, 3}
    assert [step.size for step in steps[:2]] == [8.0, 8.0 * 49 / 50]
    assert [step.acts for step in plan_steps(Settings(BOTH, start=0.5, stop=0.5), 4)] == [False] * 4


# --- the step -------------------------------------------------------------------------------------


def test_a_latent_moves_down_the_gradient_of_its_own_losses(sd1: Backbone) -> None:
    """Against differences of losses without kinks, for each image by itself."""
    method = guided(sd1, losses={"enhance": 1.0}, step_size=10.0)
    squared = objective()(lambda read: 1000 * read.objects.square().mean((2, 3)).sum(1))
    method.guides[0].reader.objectives = {"enhance": squared}
    method.guides[0].reader.options = {"enhance": {}}
    mover, scheduler, timestep, latents = begin(method, [0, 2])
    moved = mover.move(latents, 0, timestep, scheduler)
    gradient = (latents - moved) / 10

    def losses(latents: Tensor) -> Tensor:
        other, *_ = begin(method, [0, 2])
        other.move(latents, 0, timestep, scheduler)
        return other.trace[0][1].double()

    direction = gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    slope = (losses(latents + 0.02 * direction) - losses(latents - 0.02 * direction)) / 0.04
    assert torch.allclose(slope.float(), gradient.flatten(1).norm(dim=1), rtol=0.03)
    assert (losses(moved) < losses(latents)).all()
    # A move of one image leaves the other where it was
    alone, *_ = begin(method, [0])
    assert torch.allclose(alone.move(latents[:1], 0, timestep, scheduler), moved[:1], atol=1e-6)


def test_the_pass_is_conditional_and_ends_behind_the_last_map(sd1: Backbone) -> None:
    method = guided(sd1, side=4)
    assert {site.resolution for site in method.guides[0].reader.sites} == {4}
    calls: list[int] = []
    unet = sd1.unet
    unet.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    finest: list[int] = []
    unet.up_blocks[-1].register_forward_hook(lambda *_: finest.append(1))
    draw(method, slice(0, 2), steps=2)
    # One guided step of two; PLMS looks three times
    assert calls == [2, 4, 4, 4] and len(finest) == 3


def test_a_move_means_the_same_at_every_scale_of_the_scheduler(sd1: Backbone) -> None:
    """The denoiser's input moves: latents of a large sigma move as much further."""
    from diffusers import DDIMScheduler, EulerDiscreteScheduler

    method = guided(sd1)
    steps: dict[str, Tensor] = {}
    for kind in (DDIMScheduler, EulerDiscreteScheduler):
        sd1.pipeline.scheduler = kind.from_config(
            sd1.scheduler.config, timestep_spacing="leading", steps_offset=0
        )
        mover, scheduler, timestep, latents = begin(method, [0])
        inputs = scheduler.scale_model_input(latents, timestep)
        moved = mover.move(latents, 0, timestep, scheduler)
        steps[kind.__name__] = scheduler.scale_model_input(moved, timestep) - inputs
        if kind is DDIMScheduler:
            first = inputs
    same = first * (inputs.norm() / first.norm())
    assert torch.allclose(inputs, same, rtol=1e-4)
    assert float(steps["EulerDiscreteScheduler"].norm()) == pytest.approx(
        float(steps["DDIMScheduler"].norm()), rel=0.1
    )


def test_checkpointing_changes_no_move(sd1: Backbone) -> None:
    moved = []
    for checkpointed in (False, True):
        method = guided(sd1, gradient_checkpointing=checkpointed)
        mover, scheduler, timestep, latents = begin(method, [0, 1])
        moved.append(mover.move(latents, 0, timestep, scheduler))
        method.remove()
    assert torch.allclose(*moved, atol=1e-6) and not torch.equal(moved[0], latents)
    assert not sd1.unet.is_gradient_checkpointing


def test_the_control_goes_as_far_in_a_random_direction(sd1: Backbone) -> None:
    moves = {}
    for direction in ("gradient", "random"):
        method = guided(sd1, direction=direction)
        mover, scheduler, timestep, latents = begin(method, [0, 2])
        moves[direction] = (mover.move(latents, 0, timestep, scheduler) - latents).flatten(1)
        method.remove()
    alike = torch.cosine_similarity(*moves.values(), dim=1).abs()
    norms = [move.norm(dim=1) for move in moves.values()]
    assert torch.allclose(*norms, rtol=1e-3) and (alike < 0.3).all()


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sd1", "pixart", "embedded"])
def test_an_image_depends_on_its_own_prompt_and_seed_alone(
    name: str, request: pytest.FixtureRequest
) -> None:
    backbone = request.getfixturevalue(name)
    method = guided(backbone, thresholds={"0": 0.9}, refinements=2, step_size=50.0)
    together = draw(method)
    singles = torch.cat([draw(method, slice(row, row + 1)) for row in range(3)])
    assert (together - singles).abs().max() <= 1
    method.remove()
    assert (together != draw(method)).flatten(1).any(1).all()


def test_each_image_stops_at_its_own_threshold(sd1: Backbone) -> None:
    method = guided(sd1, stop=0.0, thresholds={"0": 2.0}, step_size=50.0)
    mover, scheduler, timestep, latents = begin(method, [0, 1, 2])
    mover.move(latents, 0, timestep, scheduler)
    losses = mover.trace[0][1]
    assert not mover.moves.any() and len(mover.trace) == 1  # All below the threshold at once
    highest = int(losses.argmax())
    threshold = float(losses.sort().values[1:].mean())  # One image is above
    settings = {"thresholds": {"0": threshold}, "refinements": 4}
    method.guides[0].settings = dataclasses.replace(method.config.attention_guidance, **settings)
    mover, *_ = begin(method, [0, 1, 2])
    moved = mover.move(latents, 0, timestep, scheduler)
    still = [row for row in range(3) if row != highest]
    assert torch.equal(moved[still], latents[still])
    assert mover.moves[highest] > 0 and not mover.moves[still].any()
    # It ends when it is there, or after as many moves as are allowed
    own = torch.stack([known[highest] for _, known in mover.trace])
    assert (own[:-1] > threshold).all()
    assert own[-1] <= threshold or mover.moves[highest] == 4
    # Who is there is not looked at again
    assert torch.stack([known[still] for _, known in mover.trace[1:]]).isnan().all()


@pytest.mark.parametrize("group", [0, 1, 2])
def test_every_objective_is_read_of_each_image_alone(sd1: Backbone, group: int) -> None:
    """A batch of ragged prompts has the losses and moves of its images by themselves."""
    for name in sorted(LOSSES.keys() - WITH_MASKS.keys())[group::3]:
        heads = "mean" if OBJECTIVES[name].token_softmax else "each"
        given = {"tokens": "noun", "heads": heads, "side": 4, "step_size": 1.0, "stop": 1.0}
        method = guided(sd1, losses={name: 1.0}, **given)
        method.guides[0].fewest = 1  # The ring has nothing to be parted from
        if name == "self_cross":  # Which waits for a response that random weights do not give
            method.guides[0].reader.options[name]["response_limit"] = None
        together, scheduler, timestep, latents = begin(method, [0, 1, 2])
        moved = latents
        for number in (0, 1):
            moved = together.move(moved, number, timestep, scheduler)
        for row in range(3):
            alone, *_ = begin(method, [row])
            own = latents[row : row + 1]
            for number in (0, 1):
                own = alone.move(own, number, timestep, scheduler)
            traces = [torch.stack([losses for _, losses in one.trace]) for one in (alone, together)]
            assert torch.allclose(traces[0][:, 0], traces[1][:, row], atol=1e-4), name
            assert torch.allclose(own[0], moved[row], atol=1e-3), name
        acts = [not torch.equal(moved[row], latents[row]) for row in range(3)]
        if name not in ("initno_clean", "predicated_possession"):  # Clean maps, nobody who has any
            assert acts[0] and acts[2], name
            # The ring has nothing to be kept apart from
            assert acts[1] == (LOSSES[name] == 1), name
        method.remove()


def test_what_one_has_moves_to_its_owner(sd1: Backbone) -> None:
    method = guided(sd1, losses={"predicated_possession": 1.0}, tokens="noun", side=4)
    losses = {}
    for joined in ("and", "with"):
        prompts = [f"a red circle {joined} a blue square", "a white ring and a red ring"]
        (guide,) = method.guides
        text = sd1.text.encode(prompts)
        mover = guide.plan(prompts, [1, 2], None, 4)(slice(None), text, 3.0)
        scheduler = prepare_scheduler(sd1.scheduler, 4)
        latents = initial_noise([1, 2], sd1.latent_size(64)) * scheduler.init_noise_sigma
        moved = mover.move(latents, 0, scheduler.timesteps[0], scheduler)
        losses[joined] = mover.trace[0][1].tolist()
        assert torch.equal(moved[1], latents[1])
        assert torch.equal(moved[0], latents[0]) == (joined == "and")
    assert losses["and"] == [0, 0] and losses["with"][0] > 0 and losses["with"][1] == 0


def test_objects_go_to_their_masks_and_prompts_without_are_left_alone(sd1: Backbone) -> None:
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[:, :16] = True
    right = mask.flip(1)
    masks: list[Any] = [{"red circle": mask, "blue square": right}, None, {"blue circle": mask}]
    for name in WITH_MASKS:
        method = guided(sd1, losses={name: 1.0}, side=4, step_size=20.0)
        with pytest.raises(ValueError, match="masks=None: give for each prompt"):
            draw(method, steps=1)
        images = method.generate(PROMPTS, SEEDS, masks, 2, 3.0, 3).int()
        single = method.generate(PROMPTS[2:], SEEDS[2:], masks[2:], 2, 3.0, 1).int()
        assert (images[2:] - single).abs().max() <= 1, name
        elsewhere = method.generate(PROMPTS[2:], SEEDS[2:], [{"blue circle": right}], 2, 3.0, 1)
        assert not torch.equal(elsewhere.int(), single), name
        method.remove()
        untouched = sample(sd1, PROMPTS, SEEDS, 2, 3.0, 64, 3).int()
        assert torch.equal(images[1], untouched[1]), name
        assert not torch.equal(images[0], untouched[0]), name


# --- what is given up -----------------------------------------------------------------------------


def test_an_image_that_is_not_finite_is_the_unguided_one_and_the_others_go_on(
    sd1: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    method = guided(sd1)
    usual = draw(method)
    method.remove()
    untouched = draw(method)
    method.install()
    enhance = OBJECTIVES["enhance"]

    def broken(read: ObjectiveInputs, **settings: Any) -> Tensor:
        losses = enhance(read, **settings)
        if len(losses) == 3:  # Of the whole batch the second has no loss
            losses = losses * torch.tensor([1.0, torch.nan, 1.0])
        return losses

    broken.__dict__.update(vars(enhance))
    method.guides[0].reader.objectives["enhance"] = broken
    with method.collect_stats(3.0) as stats:
        images = draw(method)
    assert torch.equal(images[1], untouched[1])
    assert (images[[0, 2]] - usual[[0, 2]]).abs().max() <= 1
    assert stats["guidance_fallback"] == [(0, 1), (1, 1), (0, 1)]
    assert stats["guidance_loss"][1] == (0, 0) and stats["guidance_moves"][1] == (0, 1)
    assert "1 image of 3" in caplog.text and "drawn without guidance" in caplog.text


@pytest.mark.parametrize("size", [1e38, 1e9])
def test_a_step_size_that_breaks_latents_draws_the_unguided_images(
    sd1: Backbone, size: float
) -> None:
    """At once, or in the denoiser behind it."""
    method = guided(sd1, step_size=size)
    method.guides[0].settings.step_size = size * 1e3 if size < 1e30 else size
    with method.collect_stats(3.0) as stats:
        images = draw(method)
    method.remove()
    assert images.float().isfinite().all()
    given_up = [bool(failed) for failed, _ in stats["guidance_fallback"]]
    assert torch.equal(images[given_up], draw(method)[given_up])
    assert size < 1e30 or all(given_up)


# --- with others ----------------------------------------------------------------------------------


def test_gates_are_guided_and_count_their_own_passes_alone(sd1: Backbone) -> None:
    counts: dict[bool, Any] = {}
    images: dict[bool, Tensor] = {}
    for losses in ({}, BOTH):
        method = guided(sd1, name="maskattn", losses=losses, step_size=1e-6)
        with method.collect_stats(3.0) as stats:
            images[bool(losses)] = draw(method)
        counts[bool(losses)] = stats
        method.remove()
    assert [n for _, n in counts[True]["gate_closed"]] == [
        n for _, n in counts[False]["gate_closed"]
    ]
    assert counts[True]["guidance_moves"] and "guidance_moves" not in counts[False]
    assert (images[True] - images[False]).abs().max() <= 1
    method = guided(sd1, name="maskattn", step_size=50.0)
    assert (draw(method) - images[False]).abs().float().mean() > 0.1


def test_mask_tokens_of_a_batch_stay_with_their_images_while_some_are_done(sd1: Backbone) -> None:
    settings = Settings({"enhance": 1.0}, 50.0, side=8, thresholds={"0": 0.5}, refinements=1)
    config = Method(
        "mcgm", attention_guidance=settings, weights=Weights("none"), masks=Masks(trained=True)
    )
    torch.manual_seed(0)
    method = method_class("mcgm")(sd1, config, Trainer(), 64)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[:32] = True
    masks = [[("red circle", mask)], None, None]
    together = method.generate(PROMPTS, SEEDS, masks, 2, 3.0, 3).int()
    single = method.generate(PROMPTS[:1], SEEDS[:1], masks[:1], 2, 3.0, 1).int()
    assert (together[:1] - single).abs().max() <= 1


def test_finetuned_keys_get_no_gradient_and_are_guided(sd1: Backbone) -> None:
    method = install_method("weights", sd1)
    plain = draw(method)
    settings = Settings(BOTH, 50.0, side=8)
    method.config.attention_guidance = settings
    method.__dict__.pop("_guides", None)
    method.remove()
    method.install()
    assert (draw(method) - plain).abs().float().mean() > 0.1
    assert all(p.requires_grad and p.grad is None for p in method.parameters())


def test_a_stock_pipeline_with_guidance_draws_nothing_and_says_why(sd1: Backbone) -> None:
    untouched = draw_with(sd1.pipeline)
    method = guided(sd1)
    # Others around its denoiser, as StableDiffusionPAGPipeline.from_pipe gives them, too
    sibling = type(sd1.pipeline).from_pipe(sd1.pipeline)
    for use in (
        lambda: draw_with(sd1.pipeline),
        lambda: draw_with(sibling),
        method.to_pipeline,
    ):
        with pytest.raises(ValueError, match=r"moved by attention_guidance .* generate\(\)"):
            use()
    method.remove()
    assert torch.equal(draw_with(sd1.pipeline), untouched)
    given = PROMPTS, SEEDS, 3, 3.0, 64, 3
    assert torch.equal(draw(method), sample(sd1, *given).int())  # Removed, it guides nothing


# --- objects --------------------------------------------------------------------------------------


def test_objects_are_the_prompts_own_words(sd1: Backbone) -> None:
    method = guided(sd1)
    long = "a red circle " + "and a blue square " * 30
    for prompt, objects, message in (
        (PROMPTS[0], ["green ring"], "'green ring' is not in the caption"),
        (long, None, ""),
        (long, ["red circle", *["blue square"] * 30], "is cut off"),
        ("left of it", None, "names 0 objects"),
    ):
        given = [prompt], [1], None, 1, 3.0, 1
        if not message:
            method.generate(*given)  # Noun phrases count as far as they are read
            continue
        with pytest.raises(ValueError, match=message):
            method.generate(*given, objects=None if objects is None else [objects])
    alone = guided_again(method, losses={"separate": 1.0})
    with pytest.raises(ValueError, match="names 1 object that .* need 2 or more"):
        draw(alone)
    named = alone.generate(PROMPTS[:1], [1], None, 2, 3.0, 1, objects=[["circle", "blue square"]])
    whole = alone.generate(PROMPTS[:1], [1], None, 2, 3.0, 1)
    assert not torch.equal(named, whole)


def guided_again(method: Any, **given: Any) -> Any:
    method.remove()
    return guided(method.backbone, **given)


# --- the house ------------------------------------------------------------------------------------


def config_of(name: str = "attention_guidance", **given: Any) -> Run:
    config = Run(method=Method(name))
    config.method.attention_guidance = Settings(**{"losses": dict(BOTH), **given})
    return config


def test_settings_that_steer_nothing_are_refused_with_the_cure() -> None:
    check(config_of())
    for given, message in (
        ({"losses": {}}, "nothing would be steered; .*enhance: 1.0"),
        ({"losses": {"enhance": 0.0}}, "nothing would be steered"),
        ({"losses": {"enhanced": 1.0}}, "no loss 'enhanced'; .*did you mean enhance"),
        ({"losses": {"enhance": -1.0}}, "enhance: -1; expected a weight of at least 0"),
        ({"start": 0.5}, "start=0.5 with stop=0.5: no step would be guided"),
        ({"thresholds": {"10": 0.5}}, "thresholds has 10: 0.5; expected a share"),
        ({"kernel": 4}, "kernel=4 with side=16"),
        ({"losses": {"layout": 1.0}}, "layout, which looks at masks, with evaluation.follow_masks"),
    ):
        with pytest.raises(ValueError, match=message):
            check(config_of(**given))
    check(config_of("maskattn", losses={}))  # Not guided
    with pytest.raises(ValueError, match="no loss 'enhanced'"):
        check(config_of("maskattn", losses={"enhanced": 1.0}))
    with pytest.raises(ValueError, match="masks are given to method=attention_guidance alone"):
        check(config_of("maskattn", losses={"boxdiff": 1.0}))
    late = config_of("maskattn", losses={})
    late.evaluate_with = {"method.attention_guidance.losses": {"nothing": 1.0}}
    with pytest.raises(ValueError, match="no loss 'nothing'"):
        check(late)


def test_the_losses_are_the_objectives_whose_inputs_are_read() -> None:
    given = {"modifiers", "modifier_of", "others", "others_present", "self_maps", "previous"}
    given |= {"masks", "owner_of"}
    readable = {name: one.fewest for name, one in OBJECTIVES.items() if given.issuperset(one.needs)}
    # What it is compared with is a mean over steps, which nobody keeps
    readable.pop("initno_alignment")
    readable.pop("token_compose_pixel")  # Of sums over tokens
    assert readable == LOSSES


def test_guidance_is_no_part_of_a_training_and_one_of_its_images() -> None:
    plain, steered = config_of("maskattn", losses={}), config_of("maskattn")
    assert training_facts(plain) == training_facts(steered)
    assert image_facts(plain, "key") != image_facts(steered, "key")
    assert sampling_code(plain) != sampling_code(steered)
    assert steering(plain.method) == [] and steering(steered.method) == ["attention_guidance"]
    # It learns nothing: no recipe, and a backbone that cannot be trained is good enough
    assert image_facts(config_of(), None)["training"] == "none"
    assert "attention_guidance" not in image_facts(config_of("untouched"), None)["method"]
    assert steering(config_of("untouched").method) == []


def test_a_method_that_is_built_from_its_config_guides(sd1: Backbone) -> None:
    config = config_of(side=8)
    config.backbone.resolution = 64
    method = build_method(config, sd1)
    assert method.takes_objects and method.collects_stats and not method.trains
    assert [guide.name for guide in method.guides] == ["attention_guidance"]
    method.remove()
    assert not method_class("untouched")(sd1, Method("untouched"), Trainer(), 64).takes_objects
