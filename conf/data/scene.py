"""One scene, a few images with a mask of each subject; ``data.root=auto`` renders one."""

from conf.spec import DataSpec

DATA = DataSpec(
    "scene",
    embedded=lambda config: config.data.root == "auto",
    defaults={"evaluation.splits": ["prompts"]},
)
