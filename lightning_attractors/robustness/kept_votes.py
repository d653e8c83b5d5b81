"""What an interrupted smoothing has done, in a file that the next one goes on from."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_attractors.robustness.smoothing import Vote, VoteMemory
from lightning_attractors.writing import write_atomically

# Seconds of work that a process that is killed may lose.
_INTERVAL = 10.0


class KeptVotes(VoteMemory):
    """Votes in ``smoothed_votes_<rank>.json``, written whole every few seconds and at the end.

    All such files of a folder are read, whatever the number of processes was. A file of another classifier,
    of other settings or another seed is not used, nor is a row of another image, and it is overwritten. The
    probability α and the batch size may change.

    Args:
        folder: of the files; is made if it is not there.
        classifier: says which classifier it is: the same text for the same function only.
        rank: which process this is.
        others: more folders to read from, such as those of earlier runs.

    Example:
        >>> import tempfile, torch
        >>> folder, image = Path(tempfile.mkdtemp()), torch.zeros(1, 2, 2)
        >>> for attempt in range(2):
        ...     memory = KeptVotes(folder, "my classifier, version 3")
        ...     memory.begin({"sigma": 0.25})
        ...     print(memory.recall(0, image))
        ...     memory.keep(0, image, Vote(7, 990))
        ...     memory.end()
        None
        Vote(chosen=7, agreeing=990)
    """

    def __init__(
        self, folder: str | Path, classifier: str, rank: int = 0, others: Iterable[Path] = ()
    ) -> None:
        self.folder = Path(folder)
        self.others = list(others)
        self.classifier = classifier
        self.rank = rank
        self.recalled = 0
        self._key: dict[str, Any] = {}
        self._rows: dict[str, list[Any]] = {}
        self._written = time.monotonic()

    def begin(self, key: Mapping[str, Any]) -> None:
        """Read what there is with this key and of this classifier."""
        self._key, self._rows, self.recalled = {**key, "classifier": self.classifier}, {}, 0
        folders = [*self.others, self.folder]
        for path in [path for folder in folders for path in folder.glob("smoothed_votes_*.json")]:
            try:
                content = json.loads(path.read_text())
                if content["key"] == self._key:
                    self._rows.update(content["votes"])
            except (OSError, ValueError, TypeError, KeyError):
                continue  # no file of ours, and as good as none
        self._written = time.monotonic()

    def recall(self, index: int, image: Tensor) -> Vote | None:
        """The vote on an image (C, H, W), if it is known."""
        row = self._rows.get(str(index))
        if row is None or row[0] != _digest(image):
            return None
        self.recalled += 1
        return Vote(*row[1:])

    def keep(self, index: int, image: Tensor, vote: Vote) -> None:
        """Remember a vote, and write the file if that was not done for a while."""
        self._rows[str(index)] = [_digest(image), *vote]
        if time.monotonic() - self._written > _INTERVAL:
            self.end()

    def end(self) -> None:
        """Write the file."""
        content = json.dumps({"key": self._key, "votes": self._rows})
        write_atomically(self.folder / f"smoothed_votes_{self.rank}.json", content)
        self._written = time.monotonic()


def _digest(image: Tensor) -> str:
    return hashlib.sha256(image.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
