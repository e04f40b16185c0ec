#!/usr/bin/env python3
"""A first measure: N trivial tasks with e3 beside ninja, in turns, in one session.

    cargo build --release && pip install ninja && python3 benches/versus_ninja.py

N tasks copy one source of 100 bytes each, two at a time. Cold: nothing is there. No-op: everything is. ninja always goes
through `sh`; e3 does so for a command that is a string, and not for one that is a list. Times are wall-clock, medians of
the rounds with the smallest and the largest; compare the ratios, not the times of different machines.
"""

import argparse
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def e3_project(folder, tasks, argv):
    command = '["cp", "{src}", "{output}"]' if argv else '"cp {src} {output}"'
    lines = ['[package]', 'name = "bench"', '[inputs]', 'src = { file = "src" }']
    for number in range(tasks):
        # A task is told apart by its command and its inputs, so each gets a variable of its own.
        lines += [f"[tasks.t{number}]", f"command = {command}", f'env = {{ N = "{number}" }}']
    (folder / "e3.toml").write_text("\n".join(lines) + "\n")


def ninja_project(folder, tasks):
    lines = ["rule copy", "  command = cp $in $out"]
    lines += [f"build out/t{number}: copy src" for number in range(tasks)]
    (folder / "build.ninja").write_text("\n".join(lines) + "\n")


def run(command, folder):
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--e3", default=str(ROOT / "target/release/e3"))
    parser.add_argument("--ninja", default=shutil.which("ninja") or "ninja")
    args = parser.parse_args()

    jobs = f"-j{args.jobs}"
    contenders = {
        "ninja": ([args.ninja, jobs], "out", lambda folder: ninja_project(folder, args.tasks)),
        "e3 (sh)": ([args.e3, "run", jobs, "-q"], ".e3", lambda folder: e3_project(folder, args.tasks, argv=False)),
        "e3 (argv)": ([args.e3, "run", jobs, "-q"], ".e3", lambda folder: e3_project(folder, args.tasks, argv=True)),
    }
    times = {name: {"cold": [], "no-op": []} for name in contenders}
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(args.rounds):
            for number, (name, (command, made, generate)) in enumerate(contenders.items()):
                folder = pathlib.Path(scratch) / f"{number}"
                folder.mkdir(exist_ok=True)
                (folder / "src").write_text("x" * 99 + "\n")
                generate(folder)
                for leftover in (folder / made, folder / ".ninja_log", folder / ".ninja_deps"):
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
                times[name]["cold"].append(run(command, folder))
                times[name]["no-op"].append(run(command, folder))

    print(f"{args.tasks} tasks, {jobs}, {args.rounds} rounds: median (smallest to largest) in ms, ratio to ninja")
    for phase in ("cold", "no-op"):
        base = statistics.median(times["ninja"][phase])
        for name in contenders:
            values = [value * 1000 for value in times[name][phase]]
            median = statistics.median(values)
            print(
                f"{phase:6} {name:10} {median:8.1f} ({min(values):.1f} to {max(values):.1f})"
                f"  x{median / 1000 / base:.2f}"
            )


if __name__ == "__main__":
    main()
