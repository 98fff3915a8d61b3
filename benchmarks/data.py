"""What data of a paper's size costs: each command in a process of its own, its time and its peak memory.

`python benchmarks/data.py --questions 8000 --passages 2000000` makes a file in FiD's format with 100 passages a
question and a pool in DPR's format, runs the commands on them, prints a table and appends it to ``data.csv``.
Both are made once: a second run with the same folder and sizes only measures.
"""

import csv
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from time import perf_counter

RESULTS = Path(__file__).parent / "data.csv"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
TWO = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m", "--"]
TINY = ["--model_name_or_path", "tiny", "--threads", "1"]
STEPS = [*TINY, "--max_steps", "10", "--save_strategy", "no", "--report_to", "none", "--disable_tqdm", "true"]
SHARED = 48


def main() -> None:
    """Make the files and run all commands."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--passages", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/data"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(options.folder)
    os.environ["HF_HOME"] = str(Path("hf").resolve())
    fid, pool = f"fid{options.questions}.json", f"pool{options.passages}.tsv"
    _make_once(fid, _fid_file(options.questions))
    _make_once(pool, _pool_file(options.passages))
    _make_model()
    rows = [*_records(fid, options.questions), *_retrieval(pool, options.passages), *_shared()]
    with RESULTS.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if not file.tell():
            writer.writeheader()
        writer.writerows(rows)


def _records(fid: str, questions: int) -> Iterator[dict]:
    yield _measured("conversion", questions, ["data", "--source", fid, "--output", "records.jsonl"], "records.jsonl")
    train = ["train", *STEPS, "--method", "lora", "--context", "passages", "--passages", "3"]
    train += ["--prompt_max_length", "512", "--per_device_train_batch_size", "2", "--train_file", "records.jsonl"]
    for case in ("10 steps, first time", "10 steps"):
        yield _measured(case, questions, [*train, "--output_dir", "reader"], "reader")
    yield _measured("10 steps, 2 processes", questions, [*train, "--output_dir", "both"], "both", processes=2)
    _first_lines("records.jsonl", "thousand.jsonl", 1000)
    evaluate = ["evaluate", "--model", "reader", "--input", "thousand.jsonl", "--threads", "1"]
    yield _measured("evaluation of 1,000", questions, [*evaluate, "--output_dir", "results"], "results")


def _retrieval(pool: str, passages: int) -> Iterator[dict]:
    index = ["index", "--pool", pool, "--output", "pool.index"]
    yield _measured("index", passages, index, "pool.index")
    _first_lines("records.jsonl", "one.jsonl", 1)
    search = ["retrieve", "--index", "pool.index", "--top_k", "100"]
    yield _measured("1 query", passages, [*search, "--input", "one.jsonl", "--output", "found.jsonl"], "found.jsonl")
    for processes in (1, 2):
        command = [*search, "--input", "thousand.jsonl", "--output", "found.jsonl"]
        name = f"1,000 queries, {processes} processes"
        yield _measured(name, passages, command, "found.jsonl", processes=processes)


def _shared() -> Iterator[dict]:
    _first_lines("records.jsonl", "some.jsonl", SHARED)
    compress = ["compress", *TINY, "--dtype", "float32", "--batch_size", "8", "--input", "some.jsonl"]
    generate = ["generate", *TINY, "--generator", "tiny", "--batch_size", "8", "--input", "some.jsonl"]
    for command, processes in itertools.product((compress, generate), (1, 2)):
        name = f"{command[0]}, {processes} processes"
        yield _measured(name, SHARED, [*command, "--output", "made.jsonl"], "made.jsonl", processes=processes)


def _measured(case: str, size: int, command: list[str], output: str, processes: int = 1) -> dict:
    """Run a command; its seconds, the CPU's, and the peak of its largest process, beside what it wrote."""
    for path in Path().glob(f"{output}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    name = f"aag_hf.cli.{command[0].replace('-', '_')}"
    launcher = TWO if processes == 2 else [sys.executable, "-m"]
    start = perf_counter()
    process = subprocess.Popen([*launcher, name, *command[1:]], env={**os.environ, **ONE_THREAD}, stdout=sys.stderr)
    _, status, used = os.wait4(process.pid, 0)
    seconds = perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    files = [path for path in Path().glob(f"{output}*") for path in (path.rglob("*") if path.is_dir() else [path])]
    row = {
        "date": date.today().isoformat(),
        "case": case,
        "size": size,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": used.ru_maxrss // 1024,
        "disk_mb": round(sum(path.stat().st_size for path in files if path.is_file()) / 1e6, 1),
    }
    print("  ".join(f"{value!s:>10}" for value in row.values()), flush=True)
    return row


def _make_once(name: str, parts: Iterator[str]) -> None:
    if not Path(name).exists():
        with open(f"{name}.part", "w", encoding="utf-8") as file:
            file.writelines(parts)
        os.rename(f"{name}.part", name)


def _fid_file(questions: int) -> Iterator[str]:
    draw, texts = random.Random(1), [text for _, text in made_passages(5000, seed=2)]
    yield "["
    for number in range(questions):
        ctxs = [
            {"id": str(i), "title": f"t{i}", "text": draw.choice(texts), "score": f"{90 - i / 10}"} for i in range(100)
        ]
        words = draw.choice(texts).split()[:8]
        row = {"question": f"{number} {' '.join(words)}?", "answers": [words[0]], "ctxs": ctxs}
        yield (",\n" if number else "") + json.dumps(row)
    yield "]"


def _pool_file(passages: int) -> Iterator[str]:
    yield "id\ttext\ttitle\n"
    for number, (title, text) in enumerate(made_passages(passages, seed=3), start=1):
        yield f"{number}\t{text}\t{title}\n"


def made_passages(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Titles and texts of 100 words, of which the n-th is drawn 1/n times as often as the first."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 10))) for _ in range(200_000)]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    draw = random.Random(seed)
    for _ in range(count):
        text = draw.choices(words, cum_weights=weights, k=100)
        yield " ".join(text[:2]), " ".join(text)


def _first_lines(source: str, target: str, count: int) -> None:
    with open(source, "rb") as lines, open(target, "wb") as file:
        file.writelines(itertools.islice(lines, count))


def _make_model() -> None:
    from aag_hf.cli.tiny import make_tiny_model

    if not Path("tiny").exists():
        make_tiny_model(Path("tiny"), seed=1)


if __name__ == "__main__":
    main()
