"""Untrained pipelines that are built once: the embedded wiring (on disk, too), a small SDXL, a
small SD1 and a small PixArt."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

# diffusers and transformers take seconds to import: tests that need no pipeline should not wait for
# them.


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Fresh weights are the same whichever tests ran before: some of a few numbers lie beside what
    a test asks for."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder of the untrained embedded backbone."""
    from lightning_modules.embedded.pipeline import build_pipeline

    folder = tmp_path_factory.mktemp("backbone")
    build_pipeline(folder / "work").save_pretrained(folder / "tiny")
    return folder / "tiny"


@pytest.fixture(scope="session")
def tiny_pipeline(tiny_folder: Path) -> Any:
    from lightning_modules.backbone.backbone import Backbone

    return Backbone.load(str(tiny_folder)).pipeline


@pytest.fixture
def embedded(tiny_pipeline: Any, tiny_folder: Path) -> Any:
    """A backbone of its own for each test: copying takes a tenth of loading."""
    from copy import deepcopy

    from lightning_modules.backbone.backbone import Backbone

    return Backbone(deepcopy(tiny_pipeline), str(tiny_folder))


@pytest.fixture(scope="session")
def sdxl_unet() -> Any:
    """SDXL's blocks at a twentieth of its width: no cross-attention at the finest level, two layers
    in the last block."""
    from helpers.architectures import build_unet

    return build_unet("sdxl", "cpu", scale="tiny")


@pytest.fixture(scope="session")
def sd1_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """SD1's wiring with a level less: one text encoder, no pooled embedding, epsilon,
    cross-attention at all levels but the coarsest."""
    from helpers.architectures import build_pipeline

    return build_pipeline(
        "sd15",
        tmp_path_factory.mktemp("sd1"),
        scale="tiny",
        block_out_channels=(16, 32, 32),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )


@pytest.fixture
def sd1(sd1_pipeline: Any) -> Any:
    from copy import deepcopy

    from lightning_modules.backbone.backbone import Backbone

    return Backbone(deepcopy(sd1_pipeline), "sd1")


@pytest.fixture(scope="session")
def pixart_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """PixArt-alpha's wiring for images of 64 pixels: six blocks, four times four patches."""
    from helpers.architectures import build_pipeline

    return build_pipeline("pixart", tmp_path_factory.mktemp("pixart"), scale="tiny", sample_size=8)


@pytest.fixture
def pixart(pixart_pipeline: Any) -> Any:
    from copy import deepcopy

    from lightning_modules.backbone.backbone import Backbone

    return Backbone(deepcopy(pixart_pipeline), "pixart")


@pytest.fixture(scope="session")
def base(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The config of one run: three training steps and eight images; gates start at the threshold,
    so that some are closed."""
    from conf.schema import Backbone, Data, Evaluation, Gate, Method, Run, Trainer

    return Run(
        backbone=Backbone("tiny", str(tiny_folder)),
        method=Method("maskattn", gate=Gate(width=8, bias=0.0, stage="all")),
        data=Data(train_images=16, eval_images=4),
        trainer=Trainer(steps=3, batch=4, warmup=1, accelerator="cpu", log_every=1),
        evaluation=Evaluation(splits=["val", "heldout"], prompts=4, steps=2, keep_images=1),
        output=str(tmp_path_factory.mktemp("runs")),
    )


@cache
def build(name: str) -> Any:
    from helpers.architectures import build_transformer, build_unet

    from lightning_modules.embedded.pipeline import build_unet as build_embedded

    if name == "pixart":
        # Takes texts as its cross-attention does
        return build_transformer(name, "cpu", scale="tiny", caption_channels=None)
    return build_embedded().eval() if name == "embedded" else build_unet(name, "cpu", scale="tiny")


# Hooks run the same code in all of them: two by default, the others are slow.
WIRINGS = [
    "sd21",
    "pixart",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("sd15", "sdxl", "embedded")),
]


@pytest.fixture(params=WIRINGS)
def any_unet(request: pytest.FixtureRequest) -> Any:
    """A frozen UNet, or PixArt's transformer, of its own for each test."""
    from copy import deepcopy

    return deepcopy(build(request.param)).requires_grad_(False)
