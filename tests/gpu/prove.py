"""Prove and time the GPU path on a machine that has one, in a single call of some minutes.

    python -m tests.gpu.prove
    python -m tests.gpu.prove --sections kernels,timing --minutes 4 --out FOLDER

1. kernels: every CUDA kernel against the textbook, in float32, float64, TF32 and bfloat16;
2. equality: graph and eager kernels, GPU and CPU, two runs, precisions, over whole trainings;
3. sanitizer: memory errors and races, if compute-sanitizer is there;
4. timing: a training step beside three modes of PyTorch, if PyTorch with CUDA is there;
5. whole job: first step, text, and ten epochs of the main job, cold and warm.

Each section is a process with its own share of the time, and the record (JSON, and the same as
Markdown) is written after each. The exit status is 0 if all that was run holds, 1 if something does
not, and 2 if there is nothing to run on.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from minigrad.device import INSTALL_CUPY, cupy
from minigrad.errors import DeviceError
from tests.gpu.proving import machine
from tests.gpu.proving.faults import faults_in
from tests.gpu.proving.processes import Section, finish, run_sections, start, stop, write_json
from tests.gpu.proving.report import markdown

PARTS = "tests.gpu.proving"
SECTIONS = (
    Section("kernels", f"{PARTS}.kernels:prove", 0.27, "Kernels against the textbook"),
    Section("equality", f"{PARTS}.equality:prove", 0.12, "Trainings against each other"),
    Section("sanitizer", f"{PARTS}.sanitizer:prove", 0.12, "compute-sanitizer"),
    Section("timing", f"{PARTS}.timing:prove", 0.36, "A training step beside PyTorch"),
    Section("whole job", f"{PARTS}.whole_job:prove", 0.13, "What a user waits for"),
)
COMPILING = Section("compiling", f"{PARTS}.timing:fill_compiler_cache", 1)
RESULTS = Path(__file__).with_name("results")


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = parse(argv)
    try:
        cupy()
    except DeviceError as error:
        print(f"There is nothing to prove on: {error}", file=sys.stderr)
        return 2
    missing = machine.missing_packages()
    if missing:
        print(
            f"{', '.join(missing)} must be installed: pip install -e '.[test]', and CuPy with\n"
            f"    {INSTALL_CUPY}",
            file=sys.stderr,
        )
        return 2
    record: dict[str, Any] = {"machine": machine.facts(), "sections": {}}
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{machine.file_name(record['machine']['device'])}.json"
    write_json(path, record)

    def tell(section: Section, found: dict[str, Any]) -> None:
        record["sections"][section.name] = found
        write_json(path, record)
        path.with_suffix(".md").write_text(markdown(record), encoding="utf-8")
        print(f"{section.name}: {found['status']} in {found['seconds']:.0f} s", flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no section is left behind
    with tempfile.TemporaryDirectory() as folder:
        run(args, Path(folder), tell)
    print(markdown(record))
    print(f"written to {path} and {path.with_suffix('.md').name}")
    faults = faults_in(record)
    for fault in faults:
        print(f"FAULT: {fault}")
    return 1 if faults else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [section.name for section in SECTIONS]
    parser.add_argument("--sections", default=",".join(names), metavar="A,B", help="default: all")
    parser.add_argument("--minutes", type=float, default=8, metavar="N", help="for all of it")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument("--toy", action="store_true", help="sizes that say nothing, to try it")
    args = parser.parse_args(argv)
    wanted = [name.strip().replace("-", " ") for name in args.sections.split(",")]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}: choose from {', '.join(names)}")
    if args.minutes <= 0:
        parser.error("--minutes must be positive")
    args.sections = [section for section in SECTIONS if section.name in wanted]
    return args


def run(args: argparse.Namespace, folder: Path, tell: Any) -> None:
    """All sections. PyTorch's models are compiled while tests run, so that timing need not wait."""
    seconds = args.minutes * 60 - 10  # for what is written at the end
    before = [s for s in args.sections if s.name not in ("timing", "whole job")]
    after = [s for s in args.sections if s not in before]
    shares = [sum(s.share for s in part) for part in (before, after)]
    first = seconds * shares[0] / sum(shares)
    began, compiling, most = time.monotonic(), None, max(first, seconds * 0.2)
    if any(s.name == "timing" for s in after):
        compiling = start(COMPILING, most, folder, args.toy)
    try:
        run_sections(before, first, folder, tell, toy=args.toy)
        if compiling is not None:
            left = max(0.0, began + most - time.monotonic())
            tell(COMPILING, finish(COMPILING, compiling, left, folder))
            compiling = None
    finally:
        if compiling is not None:
            stop(compiling)
    run_sections(after, seconds - (time.monotonic() - began), folder, tell, toy=args.toy)


if __name__ == "__main__":
    sys.exit(main())
