"""Run by test_trainer_processes in each of two processes: a run that is stopped and resumed.

Arguments: the options file and the number of steps before the stop.
"""

from __future__ import annotations

import sys
from pathlib import Path

from csrm.train.options import load_options
from csrm.train.trainer import Trainer


def main(path: Path, n_before: int) -> None:
    """Trains to the stop, then resumes to the end with a new trainer."""
    trainer = Trainer(load_options(path))
    one_step = trainer.one_step

    def stop(batches: object) -> dict[str, float]:
        if trainer.step == n_before:
            raise KeyboardInterrupt
        return one_step(batches)  # type: ignore[arg-type]

    trainer.one_step = stop  # type: ignore[method-assign, assignment]
    try:
        trainer.fit(is_resumed=False)
    except KeyboardInterrupt:
        Trainer(load_options(path)).fit(is_resumed=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
