"""Backbones that are no file of ``conf/backbone``: folders and models of the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conf import load as conf
from conf.custom_backbone import describe_widening


def test_a_backbone_without_a_file_is_read_from_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def own(name: str) -> Any:
        return conf.load([f"backbone={name}"], required=False).backbone

    folder = tmp_path / "mine"
    for part, content in {
        "unet": {"sample_size": 64},
        "vae": {"block_out_channels": [1, 2, 3, 4]},
    }.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(content))
    assert (own(str(folder)).name, own(str(folder)).resolution, own(str(folder)).dtype) == (
        "mine",
        512,
        "float32",
    )
    head = json.dumps(
        {"w": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}, "__metadata__": {}}
    ).encode()
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(
        len(head).to_bytes(8, "little") + head + b"\0\0"
    )
    # Hours on a CPU, unless asked for
    assert own(str(folder)).dtype == "float32"
    gpu = [f"backbone={folder}", "trainer.accelerator=gpu"]
    assert conf.load(gpu, required=False).backbone.dtype == "float16"
    for dtype in ("float16", "bfloat16"):
        words = [f"backbone={folder}", f"backbone.dtype={dtype}", "trainer.accelerator=cpu"]
        assert conf.load(words, required=False).backbone.dtype == dtype
    asked = conf.load(words, required=False)
    conf.write(conf.as_run(asked), tmp_path / "run.yaml")
    assert conf.read_run(tmp_path / "run.yaml").backbone.dtype == "bfloat16"
    line = describe_widening(str(folder), "float32", cpu=True)
    assert line and "stored in float16" in line and "backbone.dtype=float16" in line
    assert describe_widening(str(folder), "float16", cpu=True) is None
    assert describe_widening(str(folder), "float32", cpu=False) is None
    words = [f"backbone={folder}", "backbone.dtype=bfloat16"]
    assert conf.load(words, required=False).backbone.dtype == "bfloat16"
    with pytest.raises(
        conf.ConfigError, match="is no diffusers model with a unet or transformer and a vae"
    ):
        own(str(tmp_path))
    (folder / "vae" / "config.json").write_text("{}")
    with pytest.raises(conf.ConfigError, match="vae/config.json has no block_out_channels"):
        own(str(folder))
    # a folder that happens to be called as a file of conf/backbone hides nothing
    (tmp_path / "sd15").mkdir()
    monkeypatch.chdir(tmp_path)
    assert own("sd15").resolution == 512
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        conf.ConfigError, match="org/model is not downloaded yet.*hf download org/model"
    ):
        own("org/model")
    # the revision that is loaded where none is named
    cached = tmp_path / "cache" / "models--org--model"
    for revision, side in (("1" * 40, 96), ("2" * 40, 128)):
        for part, content in {
            "unet": {"sample_size": side},
            "vae": {"block_out_channels": [1, 2, 3, 4]},
        }.items():
            (cached / "snapshots" / revision / part).mkdir(parents=True)
            (cached / "snapshots" / revision / part / "config.json").write_text(json.dumps(content))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("1" * 40)
    assert (own("org/model").resolution, own("org/model").name) == (768, "model")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"transformer": {"axes_dims_rope": [16]}, "vae": {"block_out_channels": [1]}}, "FluxPipe"),
        ({"unet": {"sample_size": 64}, "movq": {}}, "FluxPipeline.*expected a Stable Diffusion"),
    ],
)
def test_a_folder_of_another_kind_is_called_by_its_name(
    parts: dict[str, Any], said: str, tmp_path: Path
) -> None:
    for part, content in parts.items():
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(content))
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(conf.ConfigError, match=said) as caught:
        conf.load([f"backbone={tmp_path}"], required=False)
    assert "\n" not in str(caught.value)


def test_a_config_that_is_cut_off_is_named(tmp_path: Path) -> None:
    for part in ("unet", "vae"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text('{"sample_si')
    with pytest.raises(conf.ConfigError, match="unet/config.json is damaged .*get the model again"):
        conf.load([f"backbone={tmp_path}"], required=False)
