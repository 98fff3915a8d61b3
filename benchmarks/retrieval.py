"""BM25 in this package (tantivy, on disk) beside bm25s, over made passages: each in a process of its own.

`python benchmarks/retrieval.py --passages 50000` prints CPU seconds to index, queries per second, each as a ratio to
bm25s, and the peak of memory.
"""

import os
import sys
import tempfile
from argparse import ArgumentParser
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import process_time

sys.path.insert(0, str(Path(__file__).parent))
from data import made_passages

TOP_K = 100


def main() -> None:
    """Measure both and print a row for each."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=300)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    measured = {}
    for searcher in (_bm25s, _ours):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            sizes = (options.passages, options.queries)
            measured[searcher.__name__.strip("_")] = process.submit(searcher, *sizes).result()
    print(f"{'':8}  {'index, CPU s':>14}  {'queries/s':>14}  {'peak MB':>8}")
    indexed, searched, _ = measured["bm25s"]
    for name, (seconds, rate, peak) in measured.items():
        print(
            f"{name:8}  {seconds:6.1f} ({seconds / indexed:4.2f}×)  {rate:6.0f} ({rate / searched:4.2f}×)  {peak:8.0f}"
        )


def _bm25s(passages: int, queries: int) -> tuple[float, float, float]:
    import bm25s

    texts = [f"{title} {text}" for title, text in made_passages(passages, seed=3)]
    start = process_time()
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
    indexed = process_time() - start
    asked = _queries(queries)
    start = process_time()
    for query in asked:
        index.retrieve(bm25s.tokenize(query, show_progress=False), corpus=texts, k=TOP_K, show_progress=False)
    return indexed, queries / (process_time() - start), _peak()


def _ours(passages: int, queries: int) -> tuple[float, float, float]:
    from aag_hf.data.retrieval import PassageIndex

    pool = [{"title": title, "text": text} for title, text in made_passages(passages, seed=3)]
    with tempfile.TemporaryDirectory() as folder:
        start = process_time()
        PassageIndex.build(pool, Path(folder))
        indexed = process_time() - start
        del pool
        index, asked = PassageIndex.open(Path(folder)), _queries(queries)
        start = process_time()
        index.search(asked, TOP_K)
        return indexed, queries / (process_time() - start), _peak()


def _queries(count: int) -> list[str]:
    return [" ".join(text.split()[:8]) for _, text in made_passages(count, seed=4)]


def _peak() -> float:
    return getrusage(RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
