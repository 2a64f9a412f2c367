"""What it costs and what it changes to draw in bfloat16: the embedded backbone's images of the same
prompts and noise in float32 and in bfloat16, judged.

    python tests/benchmarks/precision.py
    python tests/benchmarks/precision.py --images 40 --splits two

Time is CPU seconds an image, in turns of one batch each. `apart` is the mean difference of levels,
`alike` the share of images of which the judge says the same, and the interval that of the
difference of success (95 %, images alone).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (2, 1)]

from measure import hardware  # noqa: E402

from conf.schema import Evaluation  # noqa: E402
from lightning_modules.backbone.backbone import Backbone  # noqa: E402
from lightning_modules.backbone.sampling import sample, sampling_as  # noqa: E402
from lightning_modules.embedded.grade import draw_prompts  # noqa: E402
from lightning_modules.embedded.judge import Judge  # noqa: E402
from lightning_modules.embedded.targets import read_target  # noqa: E402
from lightning_modules.metrics.detection import judge_image  # noqa: E402

SCENES, NOISE, BATCH = 991, 5_000_000, 16
WAYS = ("32-true", "bf16-mixed")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200, help="of each split")
    parser.add_argument("--splits", nargs="+", default=["two", "heldout", "three"])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=3.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    backbone, judge = Backbone.load("embedded"), Judge.load()
    print(hardware("cpu"), flush=True)
    print("| prompts | CPU s, float32 | bfloat16 | ratio | apart | alike | success | difference |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for split in args.splits:
        prompts = draw_prompts(split, args.images, SCENES)
        images: dict[str, list[Tensor]] = {way: [] for way in WAYS}
        seconds = dict.fromkeys(WAYS, 0.0)
        for start in range(0, args.images, BATCH):
            texts = prompts[start : start + BATCH]
            noises = [NOISE + start + i for i in range(len(texts))]

            for way in WAYS:
                began = time.process_time()
                with sampling_as(backbone, Evaluation(precision=way)):
                    drawn = sample(backbone, texts, noises, args.steps, args.guidance, 64, BATCH)
                images[way].append(drawn)
                seconds[way] += time.process_time() - began
        both = [torch.cat(images[way]) for way in WAYS]
        targets = [read_target(prompt) for prompt in prompts]
        right = [
            torch.tensor(
                [
                    float(judge_image(found, target).success)
                    for found, target in zip(judge.detect(drawn), targets, strict=True)
                ]
            )
            for drawn in both
        ]
        change = right[1] - right[0]
        half = 1.96 * float(change.std()) / len(change) ** 0.5
        each = [seconds[way] / args.images for way in WAYS]
        print(
            (
                f"| {split} | {each[0]:.3f} | {each[1]:.3f} | {each[1] / each[0]:.2f} | "
                f"{(both[1].float() - both[0].float()).abs().mean():.2f} | "
                f"{float((change == 0).float().mean()):.3f} | {right[0].mean():.3f} | "
                f"{change.mean():+.3f} ± {half:.3f} |"
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
