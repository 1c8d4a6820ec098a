"""Prove and time the GPU path on a machine that has one, in three calls of at most ten minutes.

    python -m tests.gpu.prove --sections kernels,equality
    python -m tests.gpu.prove --sections timing,whole-job
    python -m tests.gpu.prove --sections sanitizer

1. kernels: compares every CUDA kernel with the textbook, in float32, float64, TF32 and bfloat16;
2. equality: compares whole trainings: graph and eager, GPU and CPU, two runs, precisions;
3. sanitizer: memory errors and races, if compute-sanitizer is installed;
4. timing: a training step beside three modes of PyTorch, if PyTorch with CUDA is installed;
5. whole job: first step, text, and ten epochs of the main job, cold and warm.

Without --sections all three parts run one after the other. Each part takes `--minutes`, and each of
its sections is a process with a share of that time. The record (JSON, and the same as Markdown) is
written whenever a section has new results, so a call that is interrupted keeps them. A call adds to
the record of earlier calls if machine, versions and sources are the same; otherwise it starts a new
record and says so. tests/gpu/README.md explains the figures. The exit status is 0 if everything
that was run holds, 1 if something does not, and 2 if there is nothing to run on.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from minigrad.device import cupy, how_to_install_cupy
from minigrad.errors import DeviceError
from tests.gpu.proving import machine
from tests.gpu.proving.faults import faults_in
from tests.gpu.proving.processes import (
    RUNNING,
    Section,
    finish,
    run_sections,
    start,
    write_json,
)
from tests.gpu.proving.report import markdown

PARTS = "tests.gpu.proving"
SECTIONS = (
    Section("kernels", f"{PARTS}.kernels:prove", 0.27, "Kernels against the textbook"),
    Section("equality", f"{PARTS}.equality:prove", 0.12, "Trainings against each other"),
    Section("sanitizer", f"{PARTS}.sanitizer:prove", 0.12, "compute-sanitizer"),
    Section("timing", f"{PARTS}.timing:prove", 0.36, "A training step beside PyTorch"),
    Section("whole job", f"{PARTS}.whole_job:prove", 0.13, "What a user waits for"),
)
# The sections that fit in one call of ten minutes.
CALLS = (("kernels", "equality"), ("timing", "whole job"), ("sanitizer",))
COMPILING = Section("compiling", f"{PARTS}.timing:fill_compiler_cache", 1)
COMPILING_SHARE = 0.25  # the largest share of a part's time for compiling
RESULTS = Path(__file__).with_name("results")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = parse(argv)
    try:
        cupy()
    except DeviceError as error:
        print(f"There is nothing to prove on: {error}", file=sys.stderr)
        return 2
    missing = machine.missing_packages()
    if missing:
        print(
            f"{', '.join(missing)} must be installed: pip install -e '.[test]', and for CuPy, "
            f"{how_to_install_cupy()}",
            file=sys.stderr,
        )
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    facts = machine.facts()
    path = args.out / f"{machine.file_name(facts['device'])}.json"
    record = begun(path, facts)
    write_json(path, record)

    def tell(section: Section, found: dict[str, Any]) -> None:
        record["sections"][section.name] = found
        write_json(path, record)
        path.with_suffix(".md").write_text(markdown(record), encoding="utf-8")
        if found["status"] != RUNNING:
            print(f"{section.name}: {found['status']} in {found['seconds']:.0f} s", flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no section keeps running
    with tempfile.TemporaryDirectory() as folder:
        run(args, Path(folder), tell)
    print(markdown(record))
    print(f"written to {path} and {path.with_suffix('.md').name}")
    faults = faults_in(record)
    for fault in faults:
        print(f"FAULT: {fault}")
    return 1 if faults else 0


def begun(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The record to add to: the one of earlier calls, or a new one."""
    new: dict[str, Any] = {"machine": facts, "sections": {}}
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return new
    except ValueError as error:
        print(f"{path} is no record ({error}); a new one takes its place")
        return new
    differing = [
        name
        for name in {**old.get("machine", {}), **facts}
        if name != "date" and old.get("machine", {}).get(name) != facts.get(name)
    ]
    if differing:
        print(f"A new record takes the place of {path.name}: {', '.join(differing)} differ")
        return new
    return {**old, "machine": facts}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [section.name for section in SECTIONS]
    parser.add_argument("--sections", default=",".join(names), metavar="A,B", help="default: all")
    parser.add_argument("--minutes", type=float, default=9, metavar="N", help="for each part")
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
    """Run all parts. PyTorch's models are compiled before they are timed, several at once."""
    for names in CALLS:
        sections = [s for s in args.sections if s.name in names]
        deadline = time.monotonic() + args.minutes * 60 - 10  # less the time for writing results
        if any(s.name == "timing" for s in sections):
            most = args.minutes * 60 * COMPILING_SHARE
            process = start(COMPILING, most, folder, args.toy)
            tell(COMPILING, finish(COMPILING, process, most, folder))
        if sections:
            run_sections(sections, deadline - time.monotonic(), folder, tell, toy=args.toy)


if __name__ == "__main__":
    sys.exit(main())
