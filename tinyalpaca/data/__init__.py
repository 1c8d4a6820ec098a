"""From a text to batches: `load_corpus`, `load_split`, `TokenFile`, windows and samplers."""

from tinyalpaca.data.corpora import SEPARATOR, Corpus, load_corpus, load_split
from tinyalpaca.data.samplers import RandomSampler, ShiftedSampler, WindowSampler
from tinyalpaca.data.token_file import TokenFile
from tinyalpaca.data.windows import RandomWindows, TinyPacaDataset

__all__ = [
    "SEPARATOR",
    "Corpus",
    "RandomSampler",
    "RandomWindows",
    "ShiftedSampler",
    "TinyPacaDataset",
    "TokenFile",
    "WindowSampler",
    "load_corpus",
    "load_split",
]
