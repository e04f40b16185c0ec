#!/usr/bin/env python3
"""What e3 costs, beside ninja, make, and starting processes with nothing around them.

    cargo build --release && python3 benches/drive.py graphs [--tasks 1000 10000] [--rounds 5] [--folder DIR]
    python3 benches/drive.py data [--gib 4]            a large file through three tasks
    python3 benches/drive.py files [--count 200000]    a folder of many small files as an input

All contenders run in turn, in one session, on one file system (`--folder`: best a fresh one, since some file systems get
slow when much has been deleted). Times are wall-clock in ms: median (smallest to largest), ratio to ninja, and what a
task costs. Compare ratios, not times of different machines. Needs a C compiler, and ninja and make for the comparison.
"""

import argparse
import hashlib
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
E3 = HERE.parent / "target/release/e3"


def compile_helpers(folder):
    bare = ["-static", "-nostdlib", "-fno-stack-protector"]
    for name, attempts in {"task": [bare, ["-DHOSTED"]], "floor": [["-lpthread"]]}.items():
        for options in attempts:
            done = subprocess.run(["cc", "-O2", "-o", folder / name, HERE / f"{name}.c", *options], capture_output=True)
            if done.returncode == 0:
                break
        else:
            sys.exit(done.stderr.decode())
    return folder / "task", folder / "floor"


# Graphs: (task, inputs), an input being a source or an earlier task.
def wide(count):
    tasks = [(f"t{number}", ["src0"]) for number in range(count - 1)]
    return tasks + [("join", [name for name, _ in tasks])]


def chain(count):
    return [(f"t{number}", [f"t{number - 1}" if number else "src0"]) for number in range(count)]


def layered(count):
    width = max(count // 10, 1)
    before = lambda layer, place: [f"t{layer - 1}_{(place + step) % width}" for step in (0, 1, 4)]
    return [(f"t{layer}_{place}", before(layer, place) if layer else ["src0"]) for layer in range(10) for place in range(width)]


def fan_in(count):
    tasks = [(f"t{number}", [f"src{number}"]) for number in range(count - 1)]
    return tasks + [("join", [name for name, _ in tasks])]


GRAPHS = {"wide": wide, "chain": chain, "layered": layered, "fan-in": fan_in}
# The join of many reads them from its list of arguments; what ninja hands to a shell has a limit of 128 KiB.
LONGEST_LIST = 12000


def sources(graph):
    return sorted({name for _, inputs in graph for name in inputs if name.startswith("src")})


def write_e3(folder, graph, task, shell):
    lines = ["[package]", 'name = "bench"', "[inputs]"]
    lines += [f'{name} = {{ file = "{name}" }}' for name in sources(graph)]
    for number, (name, inputs) in enumerate(graph):
        words = [str(task), name, "{output}", *[f"{{{name}}}" for name in inputs]]
        command = '"' + " ".join(words) + '"' if shell else "[" + ", ".join(f'"{word}"' for word in words) + "]"
        lines += [f"[tasks.{name}]", f"command = {command}"]
        if number == 0:
            # To be changed without a change of what the task makes.
            lines.append('env = { N = "0" }')
    (folder / "e3.toml").write_text("\n".join(lines) + "\n")


def write_ninja(folder, graph, task):
    path = lambda name: name if name.startswith("src") else f"n/{name}"
    lines = ["rule t", f"  command = {task} $seed $out $in", "  restat = 1"]
    # The first task has a variable, as with e3, so that it can be executed again and come to the same.
    lines += ["rule first", f'  command = N="0" {task} $seed $out $in', "  restat = 1"]
    rules = ["first"] + ["t"] * (len(graph) - 1)
    lines += [
        f"build n/{name}: {rule} {' '.join(map(path, inputs))}\n  seed = {name}" for rule, (name, inputs) in zip(rules, graph)
    ]
    (folder / "build.ninja").write_text("\n".join(lines) + "\n")


def write_make(folder, graph, task):
    (folder / "m").mkdir(exist_ok=True)
    path = lambda name: name if name.startswith("src") else f"m/{name}"
    lines = ["all: " + " ".join(f"m/{name}" for name, _ in graph)]
    lines += [f"m/{name}: {' '.join(map(path, inputs))}\n\t{task} {name} $@ $^" for name, inputs in graph]
    (folder / "Makefile").write_text("\n".join(lines) + "\n")


def timed(command, folder):
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    elapsed = (time.perf_counter() - start) * 1000
    if done.returncode != 0:
        sys.exit(f"{command}: {done.stderr.decode()}")
    return elapsed


def executed(command, folder):
    """How many tasks a run executed, and how long it took."""
    start = time.perf_counter()
    done = subprocess.run([*command, "--json"], cwd=folder, capture_output=True)
    elapsed = (time.perf_counter() - start) * 1000
    if done.returncode != 0:
        sys.exit(f"{command}: {done.stderr.decode()}")
    return json.loads(done.stdout)["executed"], elapsed


def forget(folder, names):
    for name in names:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def show(title, times, tasks):
    base = statistics.median(times["ninja"]) if times.get("ninja") else None
    for name, values in times.items():
        if not values:
            continue
        median = statistics.median(values)
        ratio = f"x{median / base:.2f}" if base else ""
        spread = f"({min(values):.0f} to {max(values):.0f})"
        print(f"{title:28} {name:12} {median:10.1f} {spread:20} {ratio:>8} {median / tasks:9.3f} ms a task", flush=True)


def graphs(args, root):
    task, floor = compile_helpers(root)
    jobs = f"-j{args.jobs}"
    quiet = ["--progress", "none", "-q"]
    run, start = [args.e3, "run", jobs, *quiet], [args.e3, "start", jobs, *quiet]
    ninja, make = shutil.which("ninja"), shutil.which("make")
    for kind in args.kinds:
        for count in args.tasks:
            graph = GRAPHS[kind](count)
            if any(len(inputs) > LONGEST_LIST for _, inputs in graph):
                graph = [(name, inputs[:LONGEST_LIST]) for name, inputs in graph]
            contenders = {"floor": root / "floor.d"}
            contenders |= {"ninja": root / "ninja"} if ninja else {}
            contenders |= {"make": root / "make"} if make else {}
            contenders |= {"e3 argv": root / "argv", "e3 sh": root / "sh"}
            for name, folder in contenders.items():
                forget(root, [folder.name])
                folder.mkdir()
                for source in sources(graph) or ["src0"]:
                    (folder / source).write_text(f"{source}\n")
            if ninja:
                write_ninja(root / "ninja", graph, task)
            if make:
                write_make(root / "make", graph, task)
            write_e3(root / "argv", graph, task, shell=False)
            write_e3(root / "sh", graph, task, shell=True)
            again = {"ninja": [ninja, jobs], "make": [make, jobs], "e3 argv": run, "e3 sh": run}
            phases = ["cold", "no-op", "no-op (start)", "one source changed", "changed back", "early cut-off"]
            times = {phase: {name: [] for name in contenders} for phase in phases}
            for _ in range(args.rounds):
                for name, folder in contenders.items():
                    # What the one before has left for the disk is not of this one.
                    os.sync()
                    if name == "floor":
                        command = [floor, str(args.jobs), str(len(graph)), task, "src0"]
                        times["cold"][name].append(timed(command, folder))
                        continue
                    forget(folder, [".e3", "n", "m", ".ninja_log", ".ninja_deps"])
                    (folder / "m").mkdir(exist_ok=True)
                    times["cold"][name].append(timed(again[name], folder))
                    times["no-op"][name].append(timed(again[name], folder))
                    if name.startswith("e3"):
                        times["no-op (start)"][name].append(timed(start, folder))
                    original = (folder / "src0").read_text()
                    (folder / "src0").write_text("changed\n")
                    times["one source changed"][name].append(timed(again[name], folder))
                    (folder / "src0").write_text(original)
                    times["changed back"][name].append(timed(again[name], folder))
                    # Another command that comes to the same. Make does not see such a change.
                    pipeline = folder / ("build.ninja" if name == "ninja" else "e3.toml")
                    text = pipeline.read_text() if pipeline.exists() else ""
                    if 'N' + (' = ' if name.startswith("e3") else '=') + '"0"' not in text:
                        continue
                    pipeline.write_text(text.replace('"0"', '"another"', 1))
                    if name == "ninja":
                        times["early cut-off"][name].append(timed(again[name], folder))
                    else:
                        count, elapsed = executed(again[name], folder)
                        if count != 1:
                            sys.exit(f"{name}: {count} tasks were executed where 1 was expected")
                        times["early cut-off"][name].append(elapsed)
                    pipeline.write_text(text)
            print(f"\n{kind}, {len(graph)} tasks, {jobs}, {args.rounds} rounds")
            for phase in phases:
                show(phase, times[phase], len(graph))


def peak(command, folder):
    """How long it took in ms, its largest memory in MiB, and what it and its tasks wrote in bytes (see getrusage(2))."""
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    elapsed = (time.perf_counter() - start) * 1000
    if status != 0:
        sys.exit(f"{command}: status {status}")
    return elapsed, usage.ru_maxrss / 1024, usage.ru_oublock * 512


def data(args, root):
    size = args.gib << 30
    folder = root / "data"
    folder.mkdir()
    block = os.urandom(1 << 20)
    with open(folder / "big", "wb") as file:
        for number in range(size >> 20):
            file.write(block[number % 997:] + block[:number % 997])
    start = time.perf_counter()
    hasher = hashlib.sha256()
    with open(folder / "big", "rb") as file:
        while piece := file.read(1 << 20):
            hasher.update(piece)
    alone = (time.perf_counter() - start) * 1000
    print(f"{args.gib} GiB, read and hashed once with Python's SHA-256: {alone:.0f} ms, {size / alone / 1e6:.2f} GB/s")

    def used():
        return int(subprocess.run(["du", "-s", "-B1", folder / ".e3"], capture_output=True, text=True).stdout.split()[0])

    commands = {"hard-link": "ln {{{source}}} {{output}}"}
    commands["copy"] = "cp --reflink=never {{{source}}} {{output}}; printf {name} >> {{output}}"
    for way, command in commands.items():
        forget(folder, [".e3", "out"])
        lines = ['[package]\nname = "data"\n[inputs]\nbig = { file = "big" }\nsmall = { json = 1 }']
        for name, source in [("a", "big"), ("b", "a"), ("c", "b")]:
            text = command.format(source=source, name=name)
            lines.append(f'[tasks.{name}]\ncommand = "{text}"\ninputs = ["small"]')
        lines.append('[outputs]\n"out" = { from = "c", link = true }')
        (folder / "e3.toml").write_text("\n".join(lines) + "\n")
        run = [args.e3, "run", "--progress", "none", "-q"]
        tracked, _, copied = peak([args.e3, "plan", "-q"], folder)
        before = used()
        print(f"{way}: tracking {tracked:.0f} ms, {size / tracked / 1e6:.2f} GB/s, wrote x{copied / size:.3f}; repository x{before / size:.2f}")
        elapsed, memory, wrote = peak(run, folder)
        print(f"{way}: three tasks {elapsed:.0f} ms, at most {memory:.0f} MiB; wrote x{wrote / size:.4f}; repository x{used() / size:.2f}")
        (folder / "out").unlink()
        print(f"{way}: the output deleted and put back: {peak(run, folder)[0]:.0f} ms")


def files(args, root):
    folder = root / "files"
    for number in range(args.count):
        path = folder / "tree" / f"{number // 1000}"
        if number % 1000 == 0:
            path.mkdir(parents=True)
        (path / f"{number % 1000}").write_text(f"file {number}\n")
    (folder / "e3.toml").write_text(
        '[package]\nname = "files"\n[inputs]\ntree = { dir = "tree" }\n'
        '[tasks.none]\ncommand = "echo > {output}"\ninputs = []\n'
    )
    sums = ["sh", "-c", "find tree -type f -print0 | xargs -0 -P2 -n 1000 sha256sum"]
    look = ["sh", "-c", "find tree -printf '%s %T@ %C@ %i %p\\n'"]
    plan, run = [args.e3, "plan", "-q"], [args.e3, "run", "-q", "--progress", "none"]
    # So that none of them is the one that reads from the disk, notes that each file was read, or writes what was made just now.
    timed(sums, folder)
    os.sync()
    phases = [("first", sums, plan), ("unchanged, to plan", look, plan), ("and run", look, run), ("unchanged", look, run)]
    seen = {title: [] for title, _, _ in phases}
    for _ in range(args.rounds):
        forget(folder, [".e3"])
        for title, floor, command in phases:
            elapsed, memory, _ = peak(command, folder)
            seen[title].append((elapsed, timed(floor, folder), memory))
    for title, floor, _ in phases:
        times, bases, memory = zip(*seen[title])
        median, base = statistics.median(times), statistics.median(bases)
        spread = f"({min(times):.0f} to {max(times):.0f})"
        print(f"{args.count} files, {title}: {median:.0f} ms {spread}, x{median / base:.2f} of `{floor[2]}` ({base:.0f} ms), {max(memory):.0f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where to work [default: a temporary folder]")
    parser.add_argument("--e3", default=str(E3))
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("graphs")
    command.add_argument("--tasks", type=int, nargs="+", default=[1000])
    command.add_argument("--kinds", nargs="+", choices=GRAPHS, default=list(GRAPHS))
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument("--jobs", type=int, default=2)
    command.set_defaults(work=graphs)
    command = commands.add_parser("data")
    command.add_argument("--gib", type=int, default=4)
    command.set_defaults(work=data)
    command = commands.add_parser("files")
    command.add_argument("--count", type=int, default=200000)
    command.add_argument("--rounds", type=int, default=5)
    command.set_defaults(work=files)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        args.work(args, pathlib.Path(folder))


if __name__ == "__main__":
    main()
