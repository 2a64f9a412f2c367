"""Images -> feature vectors for distribution metrics: the embedded world's judge, Inception,
VGG-16, DINOv2, CLIP.

An extractor is no Module: whoever holds one trains none of its weights and writes none into a
checkpoint. It computes in float32, also under autocast. Images are brought to its size by `resize`,
whose filter stands in the facts.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.shapes.rendering import SIZE
from lightning_modules.embedded.judge import Judge
from lightning_modules.metrics.loading import first_line, one_line_errors
from lightning_modules.metrics.registry import check_images

INCEPTION_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
# torch-fidelity's own forward takes only uint8 and resizes by itself; these are its layers up to
# the 2,048 pooled features.
INCEPTION_LAYERS = (
    "Conv2d_1a_3x3",
    "Conv2d_2a_3x3",
    "Conv2d_2b_3x3",
    "MaxPool_1",
    "Conv2d_3b_1x1",
    "Conv2d_4a_3x3",
    "MaxPool_2",
    "Mixed_5b",
    "Mixed_5c",
    "Mixed_5d",
    "Mixed_6a",
    "Mixed_6b",
    "Mixed_6c",
    "Mixed_6d",
    "Mixed_6e",
    "Mixed_7a",
    "Mixed_7b",
    "Mixed_7c",
    "AvgPool",
)
VGG16_STAGES = (2, 2, 3, 3, 3)  # Convolutions before each pooling
IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _bicubic(images: Tensor, side: int) -> Tensor:
    planes = images.float().flatten(0, 1).numpy()  # [N * 3, H, W]
    resized = [
        np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC))
        for plane in planes
    ]
    return torch.from_numpy(np.stack(resized)).unflatten(0, images.shape[:2])


def _bilinear(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images.float(), (side, side), mode="bilinear", align_corners=False)


def _tf1(images: Tensor, side: int) -> Tensor:
    result = images.float()
    for dim in (3, 2):
        most = result.shape[dim] - 1
        at = torch.arange(side, dtype=torch.float32) * (result.shape[dim] / side)
        low = at.long()
        share = (at - low).view(-1, *[1] * (3 - dim))
        before, after = (
            result.index_select(dim, low),
            result.index_select(dim, (low + 1).clamp(max=most)),
        )
        result = before + (after - before) * share
    return result


FILTERS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "bicubic": _bicubic,
    "bilinear": _bilinear,
    "tf1": _tf1,
}


def resize(images: Tensor, side: int, filter: str = "bicubic") -> Tensor:
    """Images uint8 [N, 3, H, W] -> float32 [N, 3, side, side] in units of 0 to 255, not rounded;
    images of that size stay as they are.

    ``filter``: "bicubic" is PIL's, antialiased, each channel in floating point (clean-fid; it may
    overshoot 0 and 255); "bilinear" is torch's without antialiasing (pytorch-fid); "tf1" that of
    TensorFlow 1, whose grid begins in the corner (torch-fidelity). Raises ValueError on an unknown
    filter and other images.
    """
    check_images(images)
    if filter not in FILTERS:
        raise ValueError(
            f"resize filter {filter!r} is unknown: expected one of {', '.join(FILTERS)}"
        )
    if images.shape[2:] == (side, side):
        return images.float()
    if len(images) == 0:
        return torch.zeros(0, 3, side, side)
    return FILTERS[filter](images, side)


class Extractor(Protocol):
    """``name``: short, for the keys of metrics. ``size``: features per image. ``facts``: what the
    features are, as JSON values, among them ``extractor`` (the name), ``weights`` (their digest),
    ``side`` (pixels that the network sees) and ``filter`` (of the resize to it)."""

    name: str
    size: int
    facts: dict[str, Any]

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] -> float32 [N, size] on the CPU."""
        ...


def weights_digest(network: nn.Module) -> str:
    """Digest of a network's weights as they are used, wherever they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


class JudgeExtractor:
    """The embedded world's judge: 52 features of 64 x 64 images (`Judge.features`), which are not
    resized."""

    def __init__(self, judge: Judge | None = None) -> None:
        self.judge = judge if judge is not None else Judge.load()
        self.name, self.size = "judge", self.judge.dimension
        self.facts = {
            "extractor": self.name,
            "weights": weights_digest(self.judge),
            "layer": "first block and layout",
            "side": SIZE,
        }
        self.facts |= {"filter": "none", "features": self.size}

    def __call__(self, images: Tensor) -> Tensor:
        """Raises ValueError for images that are not 64 x 64."""
        with torch.autocast(self.judge.feature_mean.device.type, enabled=False):
            return self.judge.features(images)


class NetworkExtractor:
    """A network over images of one size. ``facts`` of the subclasses differ, the work is the
    same."""

    def __init__(
        self,
        name: str,
        network: nn.Module,
        layer: str,
        size: int,
        side: int,
        mean: Sequence[float],
        sd: Sequence[float],
        filter: str,
        device: torch.device | str,
        batch: int,
    ) -> None:
        """``mean``, ``sd``: of each channel, in units of 0 to 255. Raises ValueError on an unknown
        ``filter``."""
        if filter not in FILTERS:
            raise ValueError(
                f"resize filter {filter!r} is unknown: expected one of {', '.join(FILTERS)}"
            )
        self.name, self.size, self.side, self.filter = name, size, side, filter
        self.network = network.requires_grad_(False).eval().float().to(device)
        self.mean, self.sd = (
            torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
            for values in (mean, sd)
        )
        self.device, self.batch = torch.device(device), batch
        self.facts = {
            "extractor": name,
            "weights": weights_digest(network),
            "layer": layer,
            "side": side,
        }
        self.facts |= {"filter": filter, "features": size}

    def features(self, inputs: Tensor) -> Tensor:
        """Normalised float32 [n, 3, side, side] -> [n, size]."""
        return self.network(inputs)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        check_images(images)
        parts = [torch.zeros(0, self.size)]
        with torch.autocast(self.device.type, enabled=False):
            for start in range(0, len(images), self.batch):
                pixels = resize(
                    images[start : start + self.batch].cpu(), self.side, self.filter
                ).to(self.device)
                parts.append(self.features((pixels - self.mean) / self.sd).float().cpu())
        return torch.cat(parts)


class InceptionExtractor(NetworkExtractor):
    """Inception-v3 of FID, the 2,048 pooled features, from torch-fidelity's port of TensorFlow's
    2015-12-05 weights."""

    def __init__(
        self,
        weights: str | Path | None = None,
        filter: str = "bicubic",
        device: torch.device | str = "cpu",
        batch: int = 32,
    ) -> None:
        """``weights``: a local copy of torch-fidelity's file; by default torch hub's cached one,
        which is downloaded unless HF_HUB_OFFLINE is set. Raises ImportError without torch-fidelity,
        FileNotFoundError or ValueError when there are no such weights."""
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except (
            ImportError,
            RuntimeError,
        ) as error:  # The latter from a torchvision that was built for another torch
            cure = "`pip install .[real-metrics]` brings it"
            raise ImportError(
                f"the Inception extractor needs torch-fidelity ({first_line(error)}): {cure}"
            ) from error
        path = Path(weights) if weights is not None else _inception_weights()
        network = _load(
            path,
            lambda state: _fidelity_network(FeatureExtractorInceptionV3, state),
            "torch-fidelity's Inception weights",
        )
        super().__init__(
            "inception", network, "pool3", 2048, 299, [128] * 3, [128] * 3, filter, device, batch
        )

    def features(self, inputs: Tensor) -> Tensor:
        for layer in INCEPTION_LAYERS:
            inputs = getattr(self.network, layer)(inputs)
        return inputs.flatten(1)


class VGG16Extractor(NetworkExtractor):
    """VGG-16, the second fully connected layer after its ReLU (4,096 features), as improved
    precision / recall were published on.

    ``weights``: safetensors or a state dict in a .pt file, under torchvision's names
    (``features.0.weight`` … ``classifier.3.bias``), for images normalised as torchvision does.
    """

    def __init__(
        self,
        weights: str | Path,
        filter: str = "bicubic",
        device: torch.device | str = "cpu",
        batch: int = 32,
    ) -> None:
        """Raises FileNotFoundError without weights, ValueError for those of another network."""
        network = _load(Path(weights), _vgg16, "a state dict of VGG-16 under torchvision's names")
        mean, sd = ([255 * value for value in values] for values in (IMAGENET_MEAN, IMAGENET_SD))
        super().__init__(
            "vgg16",
            network,
            "fc2 ReLU",
            network[-2].out_features,
            224,
            mean,
            sd,
            filter,
            device,
            batch,
        )


class TransformersExtractor(NetworkExtractor):
    """A model of transformers: the class token of a vision transformer (such as
    facebook/dinov2-base), or the projected image embedding of a CLIP (such as
    openai/clip-vit-large-patch14).

    ``model``: hub id or local folder; only safetensors weights are read. The whole image is brought
    to the side that the model's image processor asks for, without cropping.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        filter: str = "bicubic",
        device: torch.device | str = "cpu",
        batch: int = 32,
    ) -> None:
        """Raises FileNotFoundError when nothing can be loaded from there, ValueError when it gives
        no such features."""
        from transformers import AutoImageProcessor, AutoModel

        expected = "judge, inception, vgg16, a folder, or a hub id"
        with one_line_errors("feature extractor", model, expected):
            processor = AutoImageProcessor.from_pretrained(model, revision=revision)
            network: Any = AutoModel.from_pretrained(model, revision=revision, use_safetensors=True)
        self.projects = hasattr(network, "get_image_features")
        config = network.config
        if not self.projects and not hasattr(getattr(network, "embeddings", None), "cls_token"):
            expected = "expected a CLIP or a vision transformer with a class token"
            raise ValueError(f"feature extractor {model!r} is a {config.model_type}: {expected}")
        size = config.projection_dim if self.projects else config.hidden_size
        layer = "projected image embedding" if self.projects else "class token"
        mean, sd = (
            [255 * value for value in values]
            for values in (processor.image_mean, processor.image_std)
        )
        side = _side(processor) or (config.vision_config if self.projects else config).image_size
        super().__init__(
            Path(model).name, network, layer, size, side, mean, sd, filter, device, batch
        )
        self.facts |= {"model": model, "revision": revision}

    def features(self, inputs: Tensor) -> Tensor:
        if self.projects:
            found = self.network.get_image_features(pixel_values=inputs)
            return found if isinstance(found, Tensor) else found.pooler_output
        return self.network(pixel_values=inputs).last_hidden_state[:, 0]


def build_extractor(
    name_or_path: str,
    weights: str | Path | None = None,
    filter: str = "bicubic",
    device: torch.device | str = "cpu",
    batch: int = 32,
) -> Extractor:
    """``judge``, ``inception``, ``vgg16``, or a hub id or local folder for transformers.
    ``weights``: their place for the first three (a folder for the judge), a revision for a hub id.
    Raises FileNotFoundError, ImportError or ValueError in one line."""
    if name_or_path == "judge":
        return JudgeExtractor(Judge.load(weights).to(device))
    if name_or_path == "inception":
        return InceptionExtractor(weights, filter, device, batch)
    if name_or_path == "vgg16":
        if weights is None:
            raise FileNotFoundError(
                "the extractor vgg16 has no weights: give "
                "the path of torchvision's VGG-16 state dict"
            )
        return VGG16Extractor(weights, filter, device, batch)
    return TransformersExtractor(
        name_or_path, None if weights is None else str(weights), filter, device, batch
    )


def _side(processor: Any) -> int | None:
    for size in (getattr(processor, "crop_size", None), getattr(processor, "size", None)):
        for key in ("height", "shortest_edge"):
            if size is not None and (value := dict(size).get(key)):
                return int(value)
    return None


def _inception_weights() -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_URL.rpartition("/")[2]
    if path.is_file():
        return path
    cure = f"download {INCEPTION_URL} and give its path as weights"
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        raise FileNotFoundError(f"{path} is missing and HF_HUB_OFFLINE is set: {cure}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(INCEPTION_URL, str(path), progress=False)
    except OSError as error:
        raise FileNotFoundError(
            f"{path} is missing and cannot be downloaded ({first_line(error)}): {cure}"
        ) from error
    return path


def _load(path: Path, build: Callable[[dict[str, Tensor]], nn.Module], expected: str) -> Any:
    """A network from a file of weights, which is never unpickled beyond tensors."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected {expected}")
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
        return build(dict(state))
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        KeyError,
        TypeError,
        ValueError,
        EOFError,
    ) as error:
        raise ValueError(
            f"{path} cannot be used ({type(error).__name__}: {first_line(error)}): "
            f"expected {expected}"
        ) from error


def _fidelity_network(network: Callable[..., nn.Module], state: dict[str, Tensor]) -> nn.Module:
    # torch-fidelity would unpickle anything in the file: it gets what was read safely
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return network("inception", ["2048"], feature_extractor_weights_path=buffer)


def _vgg16(state: dict[str, Tensor]) -> nn.Sequential:
    """Layers as wide as the weights, under names of their own: the part after them (the classes) is
    left out."""
    layers: list[nn.Module] = []
    named: dict[str, Tensor] = {}
    at = 0

    def take(layer: nn.Module, name: str) -> None:
        named.update(
            {f"{len(layers)}.{kind}": state[f"{name}.{kind}"] for kind in ("weight", "bias")}
        )
        layers.extend([layer, nn.ReLU()])

    with torch.device("meta"):
        for convolutions in VGG16_STAGES:
            for _ in range(convolutions):
                width, channels = state[f"features.{at}.weight"].shape[:2]
                take(nn.Conv2d(channels, width, 3, padding=1), f"features.{at}")
                at += 2  # A ReLU lies between two of them
            layers.append(nn.MaxPool2d(2))
            at += 1
        layers.append(nn.Flatten())
        for index in (0, 3):
            out, into = state[f"classifier.{index}.weight"].shape
            take(nn.Linear(into, out), f"classifier.{index}")
    network = nn.Sequential(*layers)
    network.load_state_dict(named, assign=True)
    return network
