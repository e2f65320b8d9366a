"""The GPU's kernels, compiled without a GPU at the recipes' shapes, and what each takes of a multiprocessor.

    python -m tests.ops.compiled [80 86 …]

Prints a line of JSON for each: registers of a thread, bytes of its stack, which is where registers are spilled to, and
bytes of shared memory. The launches are those of `layerwise.ops.cuda`, given tensors without content.
"""
# mypy: disable-error-code="import-untyped, no-untyped-call"

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from layerwise.ops import cuda

SHARED = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
"""compute capability without its point: KiB that a program may share"""
RECIPES = {  # (B, C, H, W), s, N, k, pool
    "layer 1": ((256, 3, 32, 32), 5, 256, 64, 2),
    "layer 1 of 1024": ((64, 3, 32, 32), 5, 1024, 256, 4),
    "layer 2": ((256, 64, 14, 14), 3, 512, 16, 2),
    "layer 2 of 4096": ((256, 64, 14, 14), 3, 4096, 16, 2),
}
TYPES = {torch.float32: "*fp32", torch.uint8: "*u8", torch.int16: "*i16", torch.int32: "*i32", torch.int64: "*i64"}
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
Launch = tuple[Any, tuple[Any, ...], dict[str, Any], dict[str, Any]]
"""kernel, arguments, constants, options"""


def launches(shape: tuple[int, ...], size: int, atoms: int, k: int, pool: int) -> list[Launch]:
    """All launches of a training step, none of which is made."""
    found: list[Launch] = []

    def run(
        kernel: Any, *arguments: Any, grid: Any, warmup: bool, num_warps: int, num_stages: int = 3, **own: Any
    ) -> None:
        found.append((kernel, arguments, own, {"num_warps": num_warps, "num_stages": num_stages}))

    JITFunction.run = run
    x = torch.empty(shape, device="meta")
    maps = torch.empty(size * size * shape[1] + 1, atoms, device="meta")
    out, near = cuda.forward(x, maps, maps, size, k, pool)
    cuda.backward(x, out, near, size, pool)
    return found


def source(kernel: Any, arguments: tuple[Any, ...], constants: dict[str, Any]) -> ASTSource:
    """What Triton would compile for a launch: whole numbers that are 1, or multiples of 16, are compiled in as such."""
    constants, types, aligned = dict(constants), dict.fromkeys(constants, "constexpr"), []
    for i, (name, value) in enumerate(zip(kernel.arg_names, arguments, strict=False)):
        if isinstance(value, int) and value == 1:
            types[name], constants[name] = "constexpr", 1
            continue
        types[name] = TYPES[value.dtype] if isinstance(value, Tensor) else "fp32" if isinstance(value, float) else "i32"
        if isinstance(value, Tensor) or value % 16 == 0:
            aligned.append(i)
    attributes = {(i,): [["tt.divisibility", 16]] for i in aligned}
    return ASTSource(kernel, {name: types[name] for name in kernel.arg_names}, constants, attributes)


def main(capabilities: list[int]) -> None:
    """Print what each kernel takes."""
    for recipe, shape in RECIPES.items():
        for kernel, arguments, constants, options in launches(*shape):
            for capability in capabilities:
                target = GPUTarget("cuda", capability, 32)
                compiled = triton.compile(source(kernel, arguments, constants), target=target, options=options)
                with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
                    Path(file.name).write_bytes(compiled.asm["cubin"])
                    told = subprocess.check_output([CUOBJDUMP, "-res-usage", file.name], text=True)
                use = re.search(r"REG:(\d+) STACK:(\d+)", told)
                assert use, told
                name = f"{kernel.fn.__module__.split('.')[-1]}.{kernel.fn.__name__}"
                row = {"recipe": recipe, "kernel": name, "capability": capability}
                row |= {"registers": int(use[1]), "spilled": int(use[2]), "shared": compiled.metadata.shared}
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main([int(given) for given in sys.argv[1:]] or list(SHARED))
