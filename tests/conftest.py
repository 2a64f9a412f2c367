"""The environment of all tests: no network, no GPU, no telemetry, no display, one thread each."""

import os

os.environ.update(
    CUDA_VISIBLE_DEVICES="",
    HF_HUB_OFFLINE="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    MPLBACKEND="Agg",
    OMP_NUM_THREADS="1",
)
