"""What moves the latents of a method's images while they are drawn (`latent_guidance`): declared
with ``steers`` in ``conf/method/NAME.py``, built by `Steered.guide` of the method of that name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from conf.spec import steering
from lightning_modules.methods.registry import method_class

if TYPE_CHECKING:
    from torch import Tensor

    from conf.schema import Method as MethodConfig
    from lightning_modules.backbone.sampling import Steering
    from lightning_modules.methods.latent_guidance import LatentGuidance

ImageStats = dict[str, list[tuple[float, float]]]


class Steered:
    """The part of a method that other methods, or its own settings, steer."""

    name: ClassVar[str]
    config: MethodConfig
    release: Callable[[], None] | None

    @classmethod
    def guide(cls, method: Any) -> LatentGuidance:
        """What this method does, by its settings, while ``method`` draws."""
        raise NotImplementedError(f"no guide() of {cls.name}, which declares steers")

    @property
    def guides(self) -> list[LatentGuidance]:
        """What moves latents while the method draws."""
        if "_guides" not in self.__dict__:
            # They know the method, and are no part of it
            names = steering(self.config)
            self.__dict__["_guides"] = [method_class(name).guide(self) for name in names]
        return self.__dict__["_guides"]

    @property
    def takes_objects(self) -> bool:
        """Whether `generate` looks at ``objects``: the words of each prompt that name its
        objects."""
        return bool(self.guides)

    @property
    def collects_stats(self) -> bool:
        """Whether `collect_stats` measures anything."""
        return bool(self.guides)

    def plan_steering(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        objects: Sequence[Sequence[Any]] | None,
        steps: int,
        masks: Sequence[Sequence[Tensor]] | None = None,
    ) -> list[Steering]:
        """What moves the latents of these images while the method is installed (`LatentGuidance.
        plan`)."""
        guides = self.guides if self.release is not None else []
        return [guide.plan(prompts, seeds, objects, steps, masks) for guide in guides]

    @contextmanager
    def collect_stats(self, guidance: float) -> Iterator[ImageStats]:
        """Measures how the method acts on one batch of images, which is generated with ``guidance``
        inside the block. The dict is filled when the block ends: for each image, in their order, a
        sum and the count that it is over (nothing at all: none of both). The ratio of their totals
        is reported."""
        stats: ImageStats = {}
        with ExitStack() as collecting:
            for guide in self.guides:
                collecting.enter_context(guide.collecting(stats))
            yield stats

    @contextmanager
    def unmeasured(self) -> Iterator[None]:
        """Inside the block forward passes are none of those that `collect_stats` measures."""
        yield
