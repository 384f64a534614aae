"""Run by test_trainer_processes in each of two processes: a run that is stopped and resumed.

Arguments: the options file and the number of steps before the stop (-1: none). The main process
writes the figures of every step, and how many numbers of the model it keeps, to steps.jsonl.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor
from torch.distributed.tensor import DTensor

from csrm.train.batch import Batch
from csrm.train.options import load_options
from csrm.train.trainer import Trainer

Figures = dict[str, float]


def recorded(trainer: Trainer, n_before: int = -1) -> Callable[[Iterator[Batch]], Figures]:
    """`trainer.one_step` that keeps the figures of each step, and stops the run at `n_before`."""
    one_step = trainer.one_step

    def step(batches: Iterator[Batch]) -> Figures:
        if trainer.step == n_before:
            raise KeyboardInterrupt
        figures = one_step(batches)
        figures["n_kept"] = float(sum(n_kept(p) for p in trainer.bare_model().parameters()))
        if trainer.accelerator.is_main_process:
            with (trainer.out / "steps.jsonl").open("a") as stream:
                stream.write(json.dumps(figures) + "\n")
        return figures

    return step


def n_kept(parameter: Tensor) -> int:
    """Numbers of `parameter` that this process keeps between steps."""
    return (parameter.to_local() if isinstance(parameter, DTensor) else parameter).numel()


def main(path: Path, n_before: int) -> None:
    """Trains to the stop, then resumes to the end with a new trainer."""
    trainer = Trainer(load_options(path))
    trainer.one_step = recorded(trainer, n_before)  # type: ignore[method-assign]
    try:
        trainer.fit(is_resumed=False)
    except KeyboardInterrupt:
        trainer = Trainer(load_options(path))
        trainer.one_step = recorded(trainer)  # type: ignore[method-assign]
        trainer.fit(is_resumed=True)
    trainer.accelerator.end_training()  # as csrm.train.trainer.train_from_file does


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
