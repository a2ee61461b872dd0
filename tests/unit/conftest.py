"""Triton's kernels run on the GPU, or without a GPU in Triton's interpreter, with numpy."""

import importlib
import os
from types import ModuleType

import pytest
import torch

from carvana_ray.inference import mask_kernels

if not torch.cuda.is_available():
    # Triton reads this when it is imported. torch imports it with the first optimizer, and no test
    # makes one before all tests are collected.
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where Triton's kernels run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="module")
def triton_kernels(request: pytest.FixtureRequest, device: torch.device) -> ModuleType:
    """The module of kernels that the test module is named after, in the mirrored package."""
    path = request.path
    name = f"carvana_ray.{path.parent.name}.{path.stem.removeprefix('test_')}"
    if device.type == "cpu":
        return importlib.import_module(name)
    kernels = mask_kernels.load_triton(device, name)
    assert kernels, "GPU tests need Triton"
    return kernels
