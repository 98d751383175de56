"""What the compiler makes of every CUDA kernel, without a GPU.

`python tests/cuda/compiled/static.py` writes the counts.

Each kernel is compiled and assembled by ptxas for two generations of devices; the counts stand in
bench/cuda_static.json, and test_static.py fails where they get worse. The compiler's text is the same for both but for
the name of the generation, so it is made once.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[3]
COUNTS = ROOT / "bench" / "cuda_static.json"
DEVICES = ((8, 0), (9, 0))


@cache
def assembler():
    """The path of ptxas: that of the wheel, whose version is that of the compiler, or the system's."""
    import nvidia

    found = [p for folder in nvidia.__path__ for p in Path(folder).glob("cu*/bin/ptxas")]
    found += [Path(p) for p in [shutil.which("ptxas")] if p]
    if not found:
        raise RuntimeError('ptxas is missing; pip install "fastloss[cuda-compile]" brings it')
    return str(found[0])


def compiled(kernel, devices=DEVICES[:1]):
    """The PTX of a kernel for each device."""
    import numba.cuda.compiler as compiler
    import numba.cuda.dispatcher as dispatcher

    asked = dispatcher.get_current_device
    # A function called by a kernel asks the driver which device it is compiled for.
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=DEVICES[0])
    try:
        library, _ = compiler._compile_pyfunc_with_fixup(
            kernel.function, kernel.signature, device=False, abi="numba", cc=DEVICES[0], launch_bounds=kernel.bounds
        )
    finally:
        dispatcher.get_current_device = asked
    library._llvm_strs = texts(library)
    return [library.get_asm_strs(cc=cc)[0] for cc in devices]


def for_device(ptx, cc):
    """PTX with the generation that it names replaced."""
    text, found = re.subn(r"^\.target sm_\d+$", f".target sm_{cc[0]}{cc[1]}", ptx, flags=re.M)
    assert found == 1, "PTX that names no generation, or several"
    return text


def texts(library):
    """The text of a library and of those that it links, in one order: Numba keeps them in a set, with numbers."""

    @cache
    def text(one):
        return str(one._module)

    def all_of(one):
        others = sorted(one._linking_libraries, key=lambda other: re.sub(r"\d+", "", text(other)))
        return [text(one), *(found for other in others for found in all_of(other))]

    return all_of(library)


def measured(kernel):
    """Counts by device: registers, spills, local memory, double, wide accesses, approximate instructions, calls."""
    (ptx,) = compiled(kernel)
    return {f"sm_{a}{b}": counts(for_device(ptx, (a, b)), (a, b)) for a, b in DEVICES}


def counts(ptx, cc):
    """What ptxas says of a kernel, and what stands in its text."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [assembler(), f"-arch=sm_{cc[0]}{cc[1]}", "-v", "-o", str(source.with_suffix(".cubin")), str(source)]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
    if said.returncode:
        raise RuntimeError(said.stderr)
    wide = r"{}\.global\S*\.(v2\.[bfu]64|v4\.[bfu]32)"
    return {
        "registers": int(re.search(r"Used (\d+) registers", said.stderr)[1]),
        "spilled": sum(map(int, re.findall(r"(\d+) bytes spill", said.stderr))),
        "local": int(re.search(r"(\d+) bytes stack frame", said.stderr)[1]),
        "double": len(re.findall(r"\.f64", ptx)),
        "wide_loads": len(re.findall(wide.format("ld"), ptx)),
        "wide_stores": len(re.findall(wide.format("st"), ptx)),
        "divisions": len(re.findall(r"\b(?:div|rem)\.[us](?:32|64)", ptx)),
        # Quotients, powers and roots by hardware tables; the reciprocal is a step of libdevice's own exact power.
        "approximate": len(re.findall(r"\b(?!rcp)\w+\.approx\b", ptx)),
        "calls": len(re.findall(r"\bcall\b", ptx)),
        "instructions": len(re.findall(r"^\s+(?:@!?%p\d+\s+)?[a-z][\w.]*\s", ptx, re.M)),
    }


def named(name):
    """The counts of a kernel by its name."""
    from cases import KERNELS

    return measured(KERNELS[name]())


def main():
    from cases import KERNELS

    found = {}
    with ProcessPoolExecutor() as pool:
        for name, counted in zip(KERNELS, pool.map(named, KERNELS), strict=True):
            found[name] = counted
            if sys.stderr.isatty():
                print(f"\r{len(found)} of {len(KERNELS)}: {name:60}", end="", file=sys.stderr)
    COUNTS.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items()) + "\n}\n")
    print(f"\n{len(found)} kernels in {COUNTS.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
