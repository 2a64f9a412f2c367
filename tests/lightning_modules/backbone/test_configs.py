"""Backbones that cannot be used are refused by their configs: the folders here hold no weights, so
that what looks for these first says something else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest

from conf import load as conf
from conf.schema import Run
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.configs import read_configs
from lightning_modules.embedded.pipeline import CONTEXT
from lightning_modules.training.checks import check
from lightning_modules.training.run import run

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SDXL: dict[str, Any] = {
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """An SDXL without its weights."""
    keep = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(tiny_folder, tmp_path / "model", ignore=keep)
    assert not [*(tmp_path / "model").rglob("*.safetensors")]
    return tmp_path / "model"


def change(folder: Path, name: str, **changes: Any) -> None:
    write_json(folder / name, json.loads((folder / name).read_text()) | changes)


def set_scheduler(folder: Path, kind: str, **settings: Any) -> None:
    getattr(diffusers, kind)(**settings).save_pretrained(folder / "scheduler")
    change(folder, "model_index.json", scheduler=["diffusers", kind])


def become(folder: Path, kind: str, **parts: Any) -> None:
    write_json(folder / "model_index.json", {"_class_name": kind, **SDXL, **parts})


def make_sana(folder: Path) -> None:
    become(folder, "SanaPipeline", transformer=["diffusers", "SanaTransformer2DModel"])
    set_scheduler(folder, "FlowMatchEulerDiscreteScheduler")


def make_inpainting_flux(folder: Path) -> None:
    become(folder, "FluxInpaintPipeline", transformer=["diffusers", "FluxTransformer2DModel"])
    set_scheduler(folder, "FlowMatchEulerDiscreteScheduler")


def make_flow(folder: Path) -> None:
    set_scheduler(folder, "FlowMatchEulerDiscreteScheduler")


def make_refiner(folder: Path) -> None:
    become(folder, "StableDiffusionXLImg2ImgPipeline", text_encoder=[None, None])


def make_refiner_of_the_base_class(folder: Path) -> None:
    become(folder, "StableDiffusionXLPipeline", text_encoder=[None, None], tokenizer=[None, None])


def make_refiner_by_its_sizes(folder: Path) -> None:
    unet = json.loads((folder / "unet" / "config.json").read_text())
    width = unet["projection_class_embeddings_input_dim"] - unet["addition_time_embed_dim"]
    change(folder, "unet/config.json", projection_class_embeddings_input_dim=width)


def make_kandinsky(folder: Path) -> None:
    become(folder, "KandinskyV22Pipeline", movq=["diffusers", "VQModel"], vae=[None, None])


def make_unknown(folder: Path) -> None:
    become(folder, "HomemadePipeline")


def make_own_code(folder: Path) -> None:
    become(folder, ["my_pipeline", "MyPipeline"])  # type: ignore[arg-type]


def make_inpainting(folder: Path) -> None:
    change(folder, "unet/config.json", in_channels=9)


def make_without_a_denoiser(folder: Path) -> None:
    become(folder, "StableDiffusionXLPipeline", unet=[None, None])


def make_noisy_vae(folder: Path) -> None:
    become(folder, "StableDiffusionXLPipeline", vae=["diffusers", "ConsistencyDecoderVAE"])


def make_without_a_tokenizer(folder: Path) -> None:
    become(folder, "StableDiffusionXLPipeline", tokenizer_2=[None, None])


def make_short_tokenizer(folder: Path) -> None:
    change(folder, "tokenizer_2/tokenizer_config.json", model_max_length=12)


def make_unknown_scheduler(folder: Path) -> None:
    change(folder, "model_index.json", scheduler=["diffusers", "OfTomorrowScheduler"])


def make_senseless_scheduler(folder: Path) -> None:
    change(folder, "model_index.json", scheduler=["diffusers", "VQDiffusionScheduler"])


KNOWN = r"expected .*PixArt .*Stable Diffusion 1\.x or 2\.x .*Stable Diffusion XL"
REFUSED = [
    (make_sana, f"is a SanaPipeline: {KNOWN}"),
    (make_inpainting_flux, f"is a FluxInpaintPipeline: {KNOWN}"),
    (make_flow, "FlowMatchEulerDiscreteScheduler is not one of diffusion, but of flows.*expected"),
    (make_refiner, f"is a StableDiffusionXLImg2ImgPipeline: {KNOWN}"),
    (make_refiner_of_the_base_class, "has text_encoder=None, .*expected CLIP"),
    (make_refiner_by_its_sizes, "projection_class_embeddings_input_dim=.*expected .*6 sizes"),
    (make_kandinsky, f"is a KandinskyV22Pipeline: {KNOWN}"),
    (make_unknown, f"is a HomemadePipeline: {KNOWN}"),
    (make_own_code, f"is a MyPipeline: {KNOWN}"),
    (make_inpainting, "unet.in_channels=9, .*expected as many as the VAE, 8"),
    (make_without_a_denoiser, "has unet=None, .*expected a denoiser"),
    (make_noisy_vae, "has vae=ConsistencyDecoderVAE, .*expected AutoencoderKL"),
    (make_without_a_tokenizer, "has tokenizer_2=None, .*expected CLIP's"),
    (make_short_tokenizer, f"tokenizer_2.model_max_length=12, .*as the first, {CONTEXT}"),
    (make_unknown_scheduler, "has the scheduler OfTomorrowScheduler: expected one of diffusers"),
    (
        make_senseless_scheduler,
        "scheduler_config.json that makes no VQDiffusion.*expected",
    ),
]
every = pytest.mark.parametrize(("make", "said"), REFUSED)


@every
def test_a_folder_is_refused_by_its_configs(make: Any, said: str, folder: Path):
    make(folder)
    for refuse in (
        lambda: Backbone.load(str(folder)),
        lambda: check(conf.replace(Run(), {"backbone.path": str(folder)})),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            refuse()
        assert "\n" not in str(caught.value)


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as the hub's cache keeps org/model, which cannot be reached."""
    cached = tmp_path / "cache" / "models--org--model"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("1" * 40)
    (cached / "snapshots").mkdir()
    snapshot = cached / "snapshots" / ("1" * 40)
    shutil.move(folder, snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return snapshot


@every
def test_a_model_of_the_hub_is_refused_by_its_configs(make: Any, said: str, hub: Path):
    make(hub)
    words = {"backbone.path": "org/model", "backbone.name": "model"}
    for refuse in (
        lambda: Backbone.load("org/model"),
        lambda: check(conf.replace(Run(), words)),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            refuse()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheduler", "settings", "changes", "said"),
    [
        (
            "EDMEulerScheduler",
            {},
            {},
            "EDMEulerScheduler does not add noise by timesteps: expected",
        ),
        ("DDIMScheduler", {"prediction_type": "sample"}, {}, "predicts 'sample': expected"),
        (
            "LCMScheduler",
            {**BETAS, "original_inference_steps": 4},
            {"evaluation.steps": 5},
            "evaluation.steps=5: the scheduler LCMScheduler cannot sample in 5 steps",
        ),
        (
            "DDIMScheduler",
            BETAS,
            {"backbone.resolution": 62, "data": "coco", "data.root": "/x"},
            "62",
        ),
    ],
)
def test_what_a_trial_cannot_do_with_it_is_refused_by_its_configs(
    scheduler: str, settings: Any, changes: Any, said: str, folder: Path, tmp_path: Path
):
    set_scheduler(folder, scheduler, **settings)
    given = {"backbone.path": str(folder), "evaluation.prompts": 1, "evaluation.extractor": "none"}
    if changes.get("data"):
        changes = {**changes, "evaluation.detector": "none", "evaluation.aligners": ["clip"]}
    config = conf.replace(Run(), given | changes)
    with pytest.raises(ValueError, match=said):
        check(config)
    with pytest.raises(ValueError, match=said):
        run(config, tmp_path / "trial")
    assert not (tmp_path / "trial").exists()
    if scheduler == "EDMEulerScheduler":  # It draws, though
        check(conf.replace(config, {"method": "untouched"}))


@pytest.mark.parametrize("name", ["embedded", "sd1", "pixart"])
def test_what_configs_say_is_what_the_loaded_pipeline_says(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
):
    backbone = request.getfixturevalue(name)
    backbone.pipeline.save_pretrained(tmp_path)
    for weights in tmp_path.rglob("*.safetensors"):
        weights.unlink()
    configs = read_configs(str(tmp_path))
    assert configs is not None and type(configs.family) is type(backbone.family)
    assert configs.latent_size() == backbone.latent_size()
    assert configs.latent_size(64) == backbone.latent_size(64)
    assert configs.vae_scale_factor == backbone.autoencoder.scale_factor
    assert type(configs.scheduler) is type(backbone.scheduler)


def lose_a_vae_scale(folder: Path) -> None:
    change(folder, "vae/config.json", scaling_factor=None)


def lose_the_class(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    del index["_class_name"]
    write_json(folder / "model_index.json", index)


def lose_a_length(folder: Path) -> None:
    content = json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text())
    del content["model_max_length"]
    write_json(folder / "tokenizer" / "tokenizer_config.json", content)


def cut(name: str) -> Any:
    return lambda folder: (folder / name).write_text((folder / name).read_text()[:20])


LACKING = [
    (lose_the_class, "model_index.json names no _class_name"),
    (cut("model_index.json"), "model_index.json is damaged"),
    (cut("unet/config.json"), "unet/config.json is damaged"),
    (cut("scheduler/scheduler_config.json"), "scheduler/scheduler_config.json is damaged"),
    (lambda folder: (folder / "vae" / "config.json").unlink(), "vae/config.json is missing"),
    (lambda folder: shutil.rmtree(folder / "text_encoder_2"), "text_encoder_2/config.json is miss"),
    (lambda folder: shutil.rmtree(folder / "tokenizer"), "tokenizer has no vocabulary"),
    (lose_a_length, "tokenizer.model_max_length=none.*tokenizer/tokenizer_config.json"),
    (lose_a_vae_scale, "vae.scaling_factor=None.*expected a number above 0"),
]


@pytest.mark.parametrize(("lose", "said"), LACKING)
def test_what_a_folder_lacks_is_told_by_the_plan_and_by_loading(lose: Any, said: str, folder: Path):
    lose(folder)
    for refuse in (
        lambda: check(conf.replace(Run(), {"backbone.path": str(folder)})),
        lambda: Backbone.load(str(folder)),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=said) as caught:
            refuse()
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_a_scheduler_whose_package_is_missing_is_refused_by_the_plan(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def from_config(content: Any) -> None:
        raise ImportError("CosineDPMSolverMultistepScheduler requires the torchsde library")

    kind = "CosineDPMSolverMultistepScheduler"
    change(folder, "model_index.json", scheduler=["diffusers", kind])
    monkeypatch.setattr(getattr(diffusers, kind), "from_config", from_config)
    with pytest.raises(ValueError, match=r"cannot be loaded: .*torchsde: pip install"):
        check(conf.replace(Run(), {"backbone.path": str(folder)}))


def test_of_a_hub_id_nothing_is_invented(hub: Path):
    (hub / "unet" / "config.json").write_text('{"in_chan')
    assert read_configs("org/model") is None
    (hub / "model_index.json").write_text("")
    assert read_configs("org/model") is None


@pytest.mark.parametrize("path", ["/nowhere/model", "./model", "sdxl"])
def test_a_folder_that_is_not_there_is_refused_by_the_plan(path: str):
    with pytest.raises(ValueError, match=rf"backbone.path='{path}': no such folder"):
        check(conf.replace(Run(), {"backbone.path": path}))
