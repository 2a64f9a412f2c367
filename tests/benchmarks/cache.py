"""An epoch from the cache against encoding on the fly: the embedded backbone on its own world, in
one run.

    python tests/benchmarks/cache.py                                    # CPU, a minute or two
    python tests/benchmarks/cache.py --images 8192 --batch 64 --device cuda

Run by hand; figures stand in README.md beside it. An epoch is what the training loader hands over,
batch after batch, up to the latents (and, for texts, the encoder's states) that a training step
begins with; the step itself is the same for both and is not made.
  images   PNG files read, cropped and encoded by the autoencoder, against rows of the latents'
           shards
  texts    captions encoded by both text encoders, against rows of the texts' shards
Both ways take turns, each after an epoch that does not count; figures are medians. Files are in the
page cache for both. Latents and states are compared: those that were computed in batches of another
make-up may differ by rounding.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (2, 1)]

from measure import timed  # noqa: E402

from datamodules.batch import Batch  # noqa: E402
from datamodules.cache import TextCache, cache_latents, latent_facts, text_facts  # noqa: E402
from datamodules.shapes.module import ShapesDataModule  # noqa: E402
from lightning_modules.backbone.backbone import Backbone  # noqa: E402


def told(name: str, seconds: dict[str, list[float]], images: int) -> None:
    fly, cached = (statistics.median(seconds[way]) for way in ("fly", "cache"))
    spread = ", ".join(f"{way} {min(some):.3f} to {max(some):.3f}" for way, some in seconds.items())
    rates = f"{images / fly:.0f} and {images / cached:.0f} a second"
    print(
        (
            f"  {name}: on the fly {fly:.3f} s, from the cache {cached:.3f} s, "
            f"{fly / cached:.0f}x ({rates}; {spread})"
        ),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    backbone = Backbone.load("embedded").to(args.device)
    print(
        (
            f"embedded backbone on {args.device}, torch {torch.__version__}, "
            f"{torch.get_num_threads()} threads; {args}"
        ),
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = ShapesDataModule(
            root / "shapes", args.images, 0, args.batch, args.workers, eval_splits=()
        )
        data.prepare_data()
        data.setup()
        dataset = data.train_set

        def encode(texts: list[str]) -> dict[str, torch.Tensor]:
            text = backbone.text.encode(texts)
            assert text.pooled is not None
            return {"hidden": text.hidden, "pooled": text.pooled}

        facts = latent_facts(
            backbone.autoencoder.fingerprint(),
            "float32",
            dataset.resolution,
            "centre",
            dataset.digest(),
        )
        start = time.perf_counter()
        latents = cache_latents(root / "latents", facts, dataset, backbone.autoencoder.encode)
        filled = time.perf_counter() - start
        start = time.perf_counter()
        captions = [caption.text for record in dataset.records for caption in record.captions]
        texts = TextCache.fill(root / "texts", text_facts("embedded", "float32"), captions, encode)
        size = {
            kind: sum(file.stat().st_size for file in (root / kind).rglob("*.safetensors")) / 2**20
            for kind in ("latents", "texts")
        }
        print(
            (f"  filled with {len(latents)} latents in {filled:.2f} s ({size['latents']:.1f} MiB)"),
            end="",
        )
        print(
            (
                f" and {len(texts)} of {len(captions)} captions in "
                f"{time.perf_counter() - start:.2f} s ({size['texts']:.1f} MiB)"
            ),
            flush=True,
        )

        def epoch(ready: Callable[[Batch], object]) -> None:
            for batch in data.train_dataloader():
                ready(batch)

        def from_images(batch: Batch) -> torch.Tensor:
            assert batch.images is not None
            return backbone.autoencoder.encode(batch.images)

        def from_rows(batch: Batch) -> torch.Tensor:
            assert batch.latents is not None
            return batch.latents.to(args.device)

        batches = [batch.captions for batch in data.train_dataloader()]
        ways: dict[str, dict[str, list[float]]] = {
            "images": {"fly": [], "cache": []},
            "texts": {"fly": [], "cache": []},
        }
        with torch.no_grad():
            for turn in range(args.repeats + 1):
                dataset.latents = None
                fly = timed(lambda: epoch(from_images), args.device)
                dataset.latents = latents
                cached = timed(lambda: epoch(from_rows), args.device)
                encoded = timed(lambda: [encode(some) for some in batches], args.device)
                read = timed(
                    lambda: [
                        {k: v.to(args.device) for k, v in texts.get(some).items()}
                        for some in batches
                    ],
                    args.device,
                )
                if turn:
                    for kind, pair in (("images", (fly, cached)), ("texts", (encoded, read))):
                        ways[kind]["fly"].append(pair[0])
                        ways[kind]["cache"].append(pair[1])
            for kind, seconds in ways.items():
                told(kind, seconds, len(batches) * args.batch)
            both = {
                way: [a + b for a, b in zip(ways["images"][way], ways["texts"][way], strict=True)]
                for way in ("fly", "cache")
            }
            told("together", both, len(batches) * args.batch)
            fresh = backbone.autoencoder.encode(
                torch.stack([dataset.image(i) for i in range(args.batch)])
            ).cpu()
            states = encode(batches[0])["hidden"].cpu()
            apart = (
                (fresh - latents.gather(range(args.batch))).abs().max(),
                (states - texts.get(batches[0])["hidden"]).abs().max(),
            )
            print(f"  largest difference: latents {apart[0]:.1e}, text {apart[1]:.1e}")


if __name__ == "__main__":
    main()
