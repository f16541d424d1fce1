"""A generator folder with what draws its images in PyTorch without ptarmigan: a program, and a short plain file."""

from __future__ import annotations

import runpy
from pathlib import Path

import torch

from ptarmigan.core.files import write_atomic
from ptarmigan.generator.generator import TrainedGenerator
from ptarmigan.sharing.inference import check_parity, quiet, traced
from ptarmigan.sharing.plain import plain_file


def add_programs(folder: Path, generator: TrainedGenerator) -> None:
    """Write generator.pt2, which torch.export.load reads, and generator.py beside the generator's model.safetensors.

    Both have drawn the generator's images.  Raises UserError (export-differs) if one draws other images.
    """
    plain, program = folder / "generator.py", folder / "generator.pt2"
    write_atomic(plain, plain_file(generator).encode())
    check_parity(generator, runpy.run_path(str(plain))["generate"], plain.name)
    with quiet():
        write_atomic(program, lambda file: torch.export.save(traced(generator), file))
        loaded = torch.export.load(program).module()
    check_parity(generator, loaded, program.name)
