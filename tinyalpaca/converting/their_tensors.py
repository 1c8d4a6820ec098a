"""The tensors of a model from elsewhere. Each must be used for one of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minigrad.storage import FileFormatError

HEAD = "lm_head.weight"


class TheirTensors:
    """Tensors by name; remembers which of them have been used.

    Args:
        path: the file, for messages.
        tensors: name -> tensor.
        prefix: a prefix that names may have.
        family: the kind of model, with its article, for messages: "a GPT-2".
        whose: the same in the genitive: "GPT-2's".
    """

    path: Path
    family: str
    whose: str

    def __init__(
        self, path: Path, tensors: Mapping[str, np.ndarray], prefix: str, family: str, whose: str
    ) -> None:
        self.path, self.family, self.whose = path, family, whose
        self._all = {name.removeprefix(prefix): array for name, array in tensors.items()}
        self._taken = {HEAD}

    def take(self, name: str) -> np.ndarray:
        """Return a tensor and mark it as used.

        Raises:
            FileFormatError: it is missing.
        """
        if name not in self._all:
            raise FileFormatError(
                self.path, f"damaged, or not {self.family}: there is no tensor {name!r}"
            )
        self._taken.add(name)
        return self._all[name]

    def check_rest(self, buffers: re.Pattern[str], tied_to: np.ndarray | None) -> None:
        """Check the tensors that have not been used.

        Args:
            buffers: the names of tensors that are not parameters and may be ignored.
            tied_to: the embedding that a tied head must equal, or None if the head is not tied.

        Raises:
            FileFormatError: there are others, which would change the results, or another head.
        """
        other = [n for n in self._all if n not in self._taken and not buffers.fullmatch(n)]
        if other:
            raise FileFormatError(
                self.path,
                f"{len(other)} tensors are none of a plain {self.whose}, such as {other[0]!r}",
            )
        head = self._all.get(HEAD)
        if tied_to is not None and head is not None and not np.array_equal(head, tied_to):
            raise FileFormatError(
                self.path,
                f"{HEAD} is not the token embedding, though the configuration ties them: if the "
                "head is its own, set tie_word_embeddings to false in config.json",
            )
