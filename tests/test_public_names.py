"""Names that others import stay importable, wherever the code behind them moves."""

from __future__ import annotations

from importlib import import_module

import pytest

NAMES = {
    "losses.denoising": ["denoising_loss", "min_snr_weight"],
    "losses.attention": [
        *("gaussian_kernel", "smooth", "separate_loss", "enhance_loss", "mask_attention_loss"),
    ],
    "losses.regularisation": ["prior_loss", "distillation_loss", "gate_density"],
    "lightning_modules.attention": ["Site", "nearest", "select", "sites"],
    "lightning_modules.attention.capture": ["Capture"],
    "lightning_modules.backbone": ["Backbone", "sample"],
    "lightning_modules.metrics": ["Detection"],
    "lightning_modules.metrics.functional": [
        *("frechet_distance", "kernel_distance", "precision_recall", "density_coverage"),
        *("mask_iou", "geneval_correct", "spatial_score"),
    ],
    "lightning_modules": [
        *("MaskAttn", "MCGM", "BreakAScene", "SeparateEnhance", "Untouched", "Baseline"),
    ],
    "lightning_modules.train": ["check", "main", "run"],
    "lightning_modules.pretrain": ["main"],
    "lightning_modules.grade": ["main"],
    "lightning_modules.metrics.train_judge": ["main"],
    "datamodules": [
        *("CocoDataModule", "Flickr30kDataModule", "SceneDataModule", "ShapesDataModule"),
        "PromptDataModule",
    ],
    "sweeps.sweep": ["Factor", "Metric", "Sweep"],
    "sweeps.command": ["main"],
    "sweeps": ["Cell", "Factor", "Metric", "Sweep", "results", "run"],
    "sweeps.maskattn_shared": ["DETAILS", "HEADLINES", "TAUGHT"],
    "reports.statistics": ["mean_interval", "paired"],
}


@pytest.mark.parametrize("module", NAMES)
def test_a_public_name_is_importable(module: str):
    found = import_module(module)
    assert [name for name in NAMES[module] if not hasattr(found, name)] == []
