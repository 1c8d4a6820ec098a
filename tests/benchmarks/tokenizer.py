"""How fast the tokenizer trains and encodes, beside Rust's `tokenizers` and the PyTorch original.

    python -m tests.benchmarks.tokenizer --json tokenizer.json

Everything runs in one process on one thread; ours and theirs take turns, and medians are reported.
The original is written anew below from what it does: it counts every pair of every word again for
each merge, and encodes by trying the tokens from the longest to the shortest at every place.

With `--megabytes 100` (on Linux), training on that much generated text follows, in processes of its
own whose peak memory is reported: the same text over and over, and texts of more and more distinct
words.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

# Before the libraries are loaded, because they look at these once.
os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np

from tinyalpaca.corpus.corpora import load_corpus
from tinyalpaca.tokenizer import BPETokenizer

MERGES = 1000
ORIGINAL_MERGES = 150


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def in_turns(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median time of each, one round of all after the other."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds(function))
    return {name: statistics.median(values) for name, values in times.items()}


def train_like_the_original(text: str, num_merges: int) -> list[str]:
    """The vocabulary: characters, then merged tokens."""
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
    """Greedy longest match."""
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


def beside_rust(text: str, rounds: int) -> dict:
    import tokenizers

    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)

    def train_theirs() -> tokenizers.Tokenizer:
        theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
        theirs.pre_tokenizer = byte_level
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=256 + MERGES,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=byte_level.alphabet(),
        )
        theirs.train_from_iterator([text], trainer)
        return theirs

    def train_ours() -> BPETokenizer:
        return BPETokenizer.train(text, num_merges=MERGES, progress=False)

    training = in_turns({"ours": train_ours, "rust": train_theirs}, rounds)
    ours, theirs = train_ours(), train_theirs()
    identical = ours.encode(text) == theirs.encode(text).ids

    def encode_cold() -> None:
        """With an empty word cache, as on the first text of a process."""
        BPETokenizer(ours.vocabulary, ours.merges).encode(text)

    encoding = in_turns(
        {
            "ours": encode_cold,
            "ours_again": lambda: ours.encode(text),
            "ours_array_again": lambda: ours.encode_array(text),
            "rust": lambda: theirs.encode(text).ids,
            "rust_fast": lambda: theirs.encode_batch_fast([text])[0].ids,
        },
        rounds,
    )
    ids = ours.encode_array(text)
    decoding = in_turns(
        {"ours": lambda: ours.decode(ids.tolist()), "rust": lambda: theirs.decode(ids.tolist())},
        rounds,
    )
    return {
        "merges": MERGES,
        "identical_ids": identical,
        "tokens": len(ids),
        "training_seconds": training,
        "training_over_rust": training["ours"] / training["rust"],
        "encoding_seconds": encoding,
        "encoding_over_rust": encoding["ours"] / encoding["rust"],
        "decoding_seconds": decoding,
    }


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
    """Words of random letters, the n-th of them as frequent as 1 / n, in lines."""
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
        file.write(" ".join(words) + "\n")  # each at least once
        while written < megabytes * 1_000_000:
            chosen = np.searchsorted(odds, rng.random(100_000) * odds[-1])
            written += file.write(" ".join(words[chosen]) + "\n")


TRAIN_AND_REPORT = """
import json, sys, time
from pathlib import Path
from tinyalpaca.tokenizing.bpe_training import count_words, learn_merges
from tinyalpaca.tokenizing.pretokenize import PreSplitter
from tinyalpaca.corpus.text_files import read_utf8_blocks
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--data", default="tinyshakespeare", help="default: %(default)s")
    parser.add_argument("--no-original", action="store_true", help="leave the slow original out")
    parser.add_argument("--megabytes", type=int, default=0, help="also train on so much text")
    args = parser.parse_args()
    corpus = load_corpus(args.data)
    text = corpus.text
    print(corpus.source, f"({len(text)} characters)")
    results: dict = {
        "source": corpus.source,
        "characters": len(text),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "beside_rust": beside_rust(text, args.rounds),
    }
    print(json.dumps(results["beside_rust"], indent=1), flush=True)
    if not args.no_original:
        results["beside_the_original"] = beside_the_original(text)
        print(json.dumps(results["beside_the_original"], indent=1), flush=True)
    if args.megabytes:
        results["large"] = large(text, args.megabytes)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
