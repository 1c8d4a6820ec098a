"""Times how fast the tokenizer trains and encodes, beside Rust's `tokenizers` and the original.

    python -m tests.benchmarks.tokenizer --json tokenizer.json

Ours and theirs run in separate processes, with one thread each, in turns. Both get the same text,
and must give the same ids before anything is timed. The original's algorithm is written anew below:
it counts every pair of every word again for each merge, and encodes by trying tokens from the
longest to the shortest at every position.

With `--megabytes 100` (on Linux), training on that much generated text follows, in separate
processes whose peak memory is reported: the same text repeated, and texts with more and more
distinct words.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

# Set before the libraries are loaded, because they read these variables once.
os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np

from tests.benchmarks.contest import (
    Contender,
    Contest,
    figures,
    require,
    table,
    write_json,
)
from tinyalpaca.data import load_corpus
from tinyalpaca.tokenizer import BPETokenizer

MODULE = "tests.benchmarks.tokenizer"
MERGES = 1000
ORIGINAL_MERGES = 150


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def in_turns(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median time of each function; in each round all run once."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds(function))
    return {name: statistics.median(values) for name, values in times.items()}


def train_like_the_original(text: str, num_merges: int) -> list[str]:
    """Train; returns the vocabulary: characters, then merged tokens."""
    words = [list(word) for word in text.split(" ")]
    vocabulary = ["▁", "[UNK]", *sorted(set(text) - {" "})]
    for _ in range(num_merges):
        counts: Counter[tuple[str, str]] = Counter()
        for word in words:
            counts.update(pairwise(word))
        first, second = counts.most_common(1)[0][0]
        vocabulary.append(first + second)
        for word in words:
            i = 0
            while i < len(word) - 1:
                if word[i] == first and word[i + 1] == second:
                    word[i : i + 2] = [first + second]
                else:
                    i += 1
    return vocabulary


def encode_like_the_original(text: str, vocabulary: list[str]) -> list[int]:
    """Encode by greedy longest match."""
    text = text.replace(" ", "▁")
    longest_first = sorted(enumerate(vocabulary), key=lambda item: (-len(item[1]), item[0]))
    ids, place = [], 0
    while place < len(text):
        for index, token in longest_first:
            if text.startswith(token, place):
                ids.append(index)
                place += len(token)
                break
        else:
            ids.append(1)
            place += 1
    return ids


class Ours:
    """Our contender: `train`, `encode` with an empty word cache, `encode_again` and `decode`."""

    def __init__(self, data: str) -> None:
        self.text = load_corpus(data).text
        self.tokenizer = self.train()
        self.ids = self.tokenizer.encode(self.text)

    def train(self) -> BPETokenizer:
        return BPETokenizer.train(self.text, num_merges=MERGES, progress=False)

    def encode(self) -> None:
        """Encode with an empty word cache, as for the first text of a process."""
        BPETokenizer(self.tokenizer.vocabulary, self.tokenizer.merges).encode(self.text)

    def encode_again(self) -> None:
        self.tokenizer.encode(self.text)

    def decode(self) -> None:
        self.tokenizer.decode(self.ids)

    def result(self) -> list[int]:
        return self.ids


class Rust:
    """The contender of `tokenizers`: `encode` is its usual call, `encode_again` its fastest one."""

    def __init__(self, data: str) -> None:
        import tokenizers

        self.library, self.text = tokenizers, load_corpus(data).text
        self.tokenizer = self.train()
        self.ids = self.tokenizer.encode(self.text).ids

    def train(self) -> Any:
        byte_level = self.library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer = self.library.Tokenizer(self.library.models.BPE())
        tokenizer.pre_tokenizer = byte_level
        trainer = self.library.trainers.BpeTrainer(
            vocab_size=256 + MERGES,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=byte_level.alphabet(),
        )
        tokenizer.train_from_iterator([self.text], trainer)
        return tokenizer

    def encode(self) -> None:
        _ = self.tokenizer.encode(self.text).ids

    def encode_again(self) -> None:
        _ = self.tokenizer.encode_batch_fast([self.text])[0].ids

    def decode(self) -> None:
        self.tokenizer.decode(self.ids)

    def result(self) -> list[int]:
        return self.ids


def beside_rust(data: str, rounds: int, against: str) -> dict[str, Any]:
    """The figures for training, encoding, encoding again and decoding.

    Raises:
        SystemExit: the ids differ.
    """
    entered = [Contender("ours", f"{MODULE}:Ours", {"data": data})]
    if against != "none":
        entered.append(Contender("rust", f"{MODULE}:Rust", {"data": data}))
    with Contest(entered) as contest:
        ids = contest.call("ours", "result")
        if against != "none" and contest.call("rust", "result") != ids:
            raise SystemExit("the ids of the two tokenizers differ")
        record: dict[str, Any] = {"merges": MERGES, "tokens": len(ids)}
        for method in ("train", "encode", "encode_again", "decode"):
            times = contest.times(method, rounds, turn=1)
            peaks = contest.peak_mb(method, calls=1)
            record[method] = figures(
                method, times["ours"], times.get("rust"), peaks["ours"], peaks.get("rust")
            )
    return record


def beside_the_original(text: str) -> dict:
    start = time.perf_counter()
    vocabulary = train_like_the_original(text, ORIGINAL_MERGES)
    training = time.perf_counter() - start
    encoding = seconds(lambda: encode_like_the_original(text, vocabulary))
    ours = in_turns({"training": lambda: BPETokenizer.train(text, num_merges=ORIGINAL_MERGES)}, 3)[
        "training"
    ]
    tokenizer = BPETokenizer.train(text, num_merges=ORIGINAL_MERGES)
    ours_encoding = in_turns(
        {"cold": lambda: BPETokenizer(tokenizer.vocabulary, tokenizer.merges).encode(text)}, 3
    )["cold"]
    return {
        "merges": ORIGINAL_MERGES,
        "original_training_seconds": training,
        "training_seconds": ours,
        "training_times_faster": training / ours,
        "original_encoding_seconds": encoding,
        "encoding_seconds": ours_encoding,
        "encoding_times_faster": encoding / ours_encoding,
    }


def write_generated(path: Path, megabytes: int, distinct_words: int) -> None:
    """Write lines of random words, where the n-th word has a frequency proportional to 1 / n."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    weights = 1 / np.arange(1, 27)
    lengths = rng.integers(2, 12, distinct_words)
    stream = "".join(rng.choice(letters, lengths.sum(), p=weights / weights.sum()))
    ends = np.cumsum(lengths)
    words = np.array([stream[end - size : end] for end, size in zip(ends, lengths, strict=True)])
    odds = np.cumsum(1 / np.arange(1, distinct_words + 1))
    written = 0
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(" ".join(words) + "\n")  # each word occurs at least once
        while written < megabytes * 1_000_000:
            chosen = np.searchsorted(odds, rng.random(100_000) * odds[-1])
            written += file.write(" ".join(words[chosen]) + "\n")


TRAIN_AND_REPORT = """
import json, sys, time
from pathlib import Path
from tinyalpaca.tokenizer.bpe_training import count_words, learn_merges
from tinyalpaca.tokenizer.pretokenize import PreSplitter
from tinyalpaca.text_files import read_utf8_blocks
def peak():  # of this process alone; getrusage would include the one that started it
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
before = peak()
start = time.perf_counter()
words = count_words([read_utf8_blocks(sys.argv[1])], PreSplitter("gpt2"))
counted = time.perf_counter()
merges = learn_merges(words, int(sys.argv[2]), 2)
end = time.perf_counter()
print(json.dumps({
    "distinct_words": len(words), "merges": len(merges), "counting_seconds": counted - start,
    "merging_seconds": end - counted, "peak_megabytes": peak(),
    "before_megabytes": before,
}))
"""


def large(text: str, megabytes: int) -> dict[str, dict]:
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.txt"
        path.write_text(text * (megabytes * 1_000_000 // len(text) + 1), encoding="utf-8")
        results["repeated"] = report(path)
        for distinct in (100_000, 200_000, 400_000, 800_000):
            write_generated(path, megabytes, distinct)
            results[f"generated, {distinct} words"] = report(path)
    return results


def report(path: Path) -> dict:
    command = [sys.executable, "-c", TRAIN_AND_REPORT, str(path), str(MERGES)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    found = {"megabytes": path.stat().st_size / 1e6, **json.loads(result.stdout)}
    print(f"  {found}", flush=True)
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--against", choices=("tokenizers", "none"), default="tokenizers")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--data", default="tinyshakespeare", help="default: %(default)s")
    parser.add_argument("--no-original", action="store_true", help="leave the slow original out")
    parser.add_argument("--megabytes", type=int, default=0, help="also train on so much text")
    parser.add_argument("--json", help="file for the record")
    args = parser.parse_args(argv)
    require(args.against)
    corpus = load_corpus(args.data)
    measured = beside_rust(args.data, args.rounds, args.against)
    workload = f"encode {len(corpus.text):,} characters with an empty word cache"
    record: dict[str, Any] = {
        "benchmark": "tokenizer",
        "against": args.against,
        "data": args.data,
        **measured["encode"],
        "workload": workload,
        **measured,
    }
    rows = [["", "ours (ms)", "Rust (ms)", "Rust / ours", "ours (MB)"]]
    for method in ("train", "encode", "encode_again", "decode"):
        found = measured[method]
        peer = (
            [f"{found['peer_ms']:.0f}", f"{found['ratio']:.2f}x"] if "ratio" in found else [""] * 2
        )
        rows.append([method, f"{found['ours_ms']:.0f}", *peer, f"{found['ours_mb']:.0f}"])
    print(f"{corpus.source} ({len(corpus.text):,} characters, {MERGES} merges)")
    print(table(rows), flush=True)
    if not args.no_original:
        record["beside_the_original"] = beside_the_original(corpus.text)
        print(json.dumps(record["beside_the_original"], indent=1), flush=True)
    if args.megabytes:
        record["large"] = large(corpus.text, args.megabytes)
    write_json(args.json, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
