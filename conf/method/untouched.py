"""The untouched backbone: nothing is trained."""

from conf.spec import MethodSpec

METHOD = MethodSpec(data_kinds=("captions", "scene", "prompts"), trains=lambda method: False)
