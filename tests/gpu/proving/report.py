"""The record of a proof as tables in Markdown, with targets beside the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Record = dict[str, Any]


class Target(NamedTuple):
    """A target for an H100; `figure` returns what was reached, or None."""

    what: str
    wanted: str
    figure: Callable[[Record], float | None]
    met: Callable[[float], bool]
    form: str


def at(record: Record, *keys: str) -> Any:
    """The value at the end of a path of keys, or None."""
    for key in keys:
        if not isinstance(record, dict) or key not in record:
            return None
        record = record[key]
    return record


def of_step(workload: str, *keys: str) -> Callable[[Record], float | None]:
    """A figure of a workload in TF32, which is the trainer's default."""
    path = ("timing", "result", "steps", workload, "precisions", "tf32", *keys)
    return lambda record: at(record, "sections", *path)


def of_job(*keys: str) -> Callable[[Record], float | None]:
    return lambda record: at(record, "sections", "whole job", "result", "main job", *keys)


TARGETS = (
    Target(
        "seed step, TF32",
        "at most 0.5 ms",
        of_step("seed", "contenders", "minigrad, graph", "ms", "median"),
        lambda ms: ms <= 0.5,
        "{:.3f} ms",
    ),
    Target(
        "seed step, TF32",
        "at least 2x the best of PyTorch",
        of_step("seed", "times the best"),
        lambda times: times >= 2,
        "{:.2f}x",
    ),
    Target(
        "seed step, TF32",
        "at least 4x PyTorch eager",
        of_step("seed", "times eager"),
        lambda times: times >= 4,
        "{:.2f}x",
    ),
    Target(
        "baby-gpt step, TF32",
        "at least 1.1x the best of PyTorch",
        of_step("baby-gpt", "times the best"),
        lambda times: times >= 1.1,
        "{:.2f}x",
    ),
    Target("ten epochs, cold", "at most 5 s", of_job("cold", "wall"), lambda s: s <= 5, "{:.2f} s"),
    Target(
        "ten epochs, warm", "at most 1.5 s", of_job("warm", "wall"), lambda s: s <= 1.5, "{:.2f} s"
    ),
)


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown, its columns aligned."""
    cells = [head, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:], ""]


def number(value: Any, form: str = "{:.3f}") -> str:
    return "" if value is None else form.format(value)


def markdown(record: Record) -> str:
    """The whole report."""
    machine, sections = record["machine"], record["sections"]
    lines = [f"# {machine['device']}", "", "`python -m tests.gpu.prove`", ""]
    lines += table(["", ""], [[key, str(value)] for key, value in machine.items()])
    lines += ["## Targets (for an H100)", "", *targets(record)]
    for name, section in sections.items():
        title = section.get("title") or name
        lines += [f"## {title}", "", f"{section['status']} in {section['seconds']:.0f} s", ""]
        lines += PAGES.get(name, lambda result: iter(()))(section.get("result") or {})
        if "error" in section:
            lines += ["", "```", section["error"].strip()[-1500:], "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def targets(record: Record) -> list[str]:
    rows = []
    for target in TARGETS:
        figure = target.figure(record)
        verdict = "not measured" if figure is None else "met" if target.met(figure) else "missed"
        rows.append([target.what, target.wanted, number(figure, target.form), verdict])
    return table(["what", "target", "reached", ""], rows)


def of_kernels(result: Record) -> Iterator[str]:
    counts = result.get("counts", {})
    yield from table(list(counts) or [""], [[str(count) for count in counts.values()] or [""]])
    never = result.get("kernels never launched", [])
    yield f"Kernels launched: {result.get('kernels launched', 0)}; never launched: {len(never)}"
    if never:
        yield "(" + ", ".join(f"`{name}`" for name in never[:40]) + ")"
    yield ""
    yield from failures_of(result)


def failures_of(result: Record) -> Iterator[str]:
    for failure in result.get("failures", []):
        last = failure["why"].strip().splitlines()[-1:] or [""]
        yield f"- FAILED `{failure['test']}`: {last[0][:300]}"
    if result.get("failures"):
        yield ""


def of_checks(result: Record) -> Iterator[str]:
    rows = []
    for name, check in result.get("checks", {}).items():
        rest = "; ".join(f"{k} {short(v)}" for k, v in check.items() if k != "ok" and v != [])
        rows.append([name, "yes" if check["ok"] else "NO", rest])
    yield from table(["check", "holds", ""], rows)


def short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def of_sanitizer(result: Record) -> Iterator[str]:
    if "left out" in result:
        yield from (result["left out"], "")
        return
    rows = []
    for tool in ("memcheck", "racecheck"):
        if tool in result:
            found, counts = result[tool]["findings"], result[tool]["counts"]
            tests = ", ".join(f"{count} {name}" for name, count in counts.items())
            rows.append([tool, "no summary" if found is None else str(found), tests])
    yield from table(["tool", "findings", "tests"], rows)
    for tool in ("memcheck", "racecheck"):
        if at(result, tool, "findings") != 0:
            yield from ("```", *(at(result, tool, "first lines") or []), "```", "")
        yield from failures_of(result.get(tool, {}))


def of_timing(result: Record) -> Iterator[str]:
    yield f"PyTorch: {result.get('PyTorch', 'not asked')}"
    yield ""
    for name, workload in result.get("steps", {}).items():
        sizes = ", ".join(f"{key} {value}" for key, value in workload["sizes"].items())
        yield from (f"### {name}: {sizes}", "")
        yield from table(
            ["", "", "ms a step", "quartiles", "ours is", "MB held", "first loss", "graphs"],
            list(rows_of(workload["precisions"])),
        )
        for precision, found in workload["precisions"].items():
            for who, why in found.get("not timed", {}).items():
                yield f"- {precision}, {who}: {why}"
            if "left out" in found:
                yield f"- {precision}: {found['left out']}"
            for who, facts in found.get("contenders", {}).items():
                for why in facts.get("why not", []):
                    yield f"- {precision}, {who}: {why}"
        for who, why in workload.get("out", {}).items():
            yield f"- {who} was out: {(why.strip().splitlines() or [''])[-1][:300]}"
        yield ""


def rows_of(precisions: Record) -> Iterator[list[str]]:
    for precision, found in precisions.items():
        contenders = found.get("contenders", {})
        ours = at(contenders, "minigrad, graph", "ms", "median")
        for name, facts in contenders.items():
            ms, mb = facts["ms"], facts.get("MB") or {}
            times = "" if ours is None else f"{ms['median'] / ours:.2f}x"
            yield [
                *(precision, name, number(ms["median"])),
                *(f"{ms['q1']:.3f} to {ms['q3']:.3f}", times, number(mb.get("held"), "{:.0f}")),
                *(number(facts.get("loss"), "{:.5f}"), str(facts.get("graphs", ""))),
            ]


def of_whole_job(result: Record) -> Iterator[str]:
    rows = []
    for state in ("cold", "warm"):
        job = at(result, "main job", state)
        if job:
            best = number(job["best validation"], "{:.4f}")
            epochs = number(job["epochs"], "{:.2f}")
            rows.append([f"10 epochs, {state}", f"{job['wall']:.2f} s", f"{epochs} s", best])
    yield from table(["", "whole process", "its epochs", "best validation"], rows)
    rows = [
        [f"first step, {state}", f"{seconds:.2f} s"]
        for state, seconds in result.get("first step", {}).items()
        if state != "error"
    ]
    of_batches = at(result, "text", "of batches") or {}
    for batch, found in of_batches.items():
        rate = f"{found['tokens a second']:,.0f} tokens/s"
        first = f"first call {found['first seconds']:.2f} s"
        rows.append([f"text, batch of {batch}", f"{rate} ({first})"])
    yield from table(["", ""], rows)
    for name, part in result.items():
        if isinstance(part, dict) and "error" in part:
            yield from (f"- {name} failed:", "```", part["error"], "```", "")


def of_compiling(result: Record) -> Iterator[str]:
    for what, seconds in result.items():
        yield f"PyTorch's models, compiled ahead, {what}:"
        yield ", ".join(f"{job} {taken:.0f}" for job, taken in seconds.items())
    yield ""


PAGES: dict[str, Callable[[Record], Iterator[str]]] = {
    "kernels": of_kernels,
    "equality": of_checks,
    "sanitizer": of_sanitizer,
    "compiling": of_compiling,
    "timing": of_timing,
    "whole job": of_whole_job,
}
