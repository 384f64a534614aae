"""The training loop: families in, checkpoints and metrics.jsonl out.

What it is: AdamW on the joint objective with linear warm-up and decay; `accelerate` places the
model, does mixed precision and averages gradients over processes. Each process trains on batches of
its own, and the main one alone writes. A run can be stopped at any time and resumed from its last
checkpoint with the same families to come. Not: what the families hold (csrm.train.families).
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np
import torch
import yaml
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list, set_seed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from csrm.errors import BadArgument
from csrm.train.backbone import (
    Model,
    backbone_folder,
    first_model,
    load_model,
    renderer_of,
    save_model,
    tokenizer_of,
)
from csrm.train.batch import Batch, ConversationGroup, rewards
from csrm.train.calibration.operating_points import operating_points
from csrm.train.calibration.platt import apply_platt, fit_platt
from csrm.train.decoder import Decoder
from csrm.train.families import FamilyDataset, load_corpora
from csrm.train.lora import trained_state
from csrm.train.losses import distillation_loss, joint_loss, rewording_loss
from csrm.train.metrics import auroc, f1_compliant, f1_violation, measure
from csrm.train.model import Rows
from csrm.train.options import TrainOptions, load_options
from csrm.train.sharding import (
    check_processes,
    gathered,
    gathered_optimizer,
    load_optimizer,
    load_weights,
    shard,
    whole,
    with_equal_calls,
)
from csrm.train.teacher import Teacher

WRITTEN = ("dialogue", "procedure")  # kinds made of the project's own texts


@dataclass(frozen=True)
class Held:
    """Rewards and labels of held-out families. Polarity: label 1 = violation."""

    reward: np.ndarray[tuple[int], np.dtype[np.float64]]  # [N]
    label: np.ndarray[tuple[int], np.dtype[np.float64]]  # [N]
    pair_accuracy: float
    loss: float


class Trainer:
    """One run. `fit()` trains from the start or the last checkpoint to `options.steps`."""

    def __init__(self, options: TrainOptions) -> None:
        self.options = options
        self.out = Path(options.out)
        # cuDNN plans each new shape for some 15 ms, and every batch has shapes of its own: with it
        # a step took 340 to 480 ms on an H200 instead of 60 to 90 (docs/log.md).
        torch.backends.cuda.enable_cudnn_sdp(False)
        PartialState(cpu=not has_gpu())
        precision = broadcast_object_list([chosen_precision(options.precision)])[0]
        # A batch takes several calls of the model, in other numbers in other processes: with a
        # broadcast of buffers in each call they would wait for each other for ever.
        wrapping = DistributedDataParallelKwargs(broadcast_buffers=False)
        # Else the precision of a process's first run would be that of all, and others an error.
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(
            mixed_precision=precision, cpu=not has_gpu(), kwargs_handlers=[wrapping]
        )
        check_processes(self.accelerator, fsdp=options.fsdp)
        set_seed(options.seed)  # the same first weights in all processes
        backbone = backbone_folder(options)
        self.tokenizer = tokenizer_of(backbone)
        self.renderer = renderer_of(backbone, self.tokenizer)
        model = first_model(options, backbone, self.renderer)
        first = model.state_dict() if options.blend < 1 else {}
        self.first_weights = {name: tensor.clone() for name, tensor in first.items()}
        if not self.accelerator.is_main_process:
            set_seed(options.seed, device_specific=True)  # other dropout in each
        device = self.accelerator.device
        self.teacher = Teacher(Path(options.teacher), device) if options.teacher else None
        n_positions = model.shape.max_positions if isinstance(model, Decoder) else 0
        self.data, corpus, self.held_out = load_corpora(options, self.renderer)
        n_batches = options.steps * options.batches * self.accelerator.num_processes
        self.families = FamilyDataset(
            corpus, self.data, self.renderer, options, n_batches, options.seed, options.curriculum,
            n_positions, self.teacher.renderer if self.teacher else None,
        )  # fmt: skip
        n_validation = options.validation_batches * 4
        # Written dialogues have no held-out records: their sentences are trained on.
        held_mixture = {kind: w for kind, w in options.mixture.items() if kind not in WRITTEN}
        held_options = replace(options, mixture=held_mixture or options.mixture, contrasts=False)
        self.validation = FamilyDataset(
            self.held_out, self.data, self.renderer, held_options, n_validation, seed=0,
            max_row_tokens=n_positions,
        )  # fmt: skip
        model.dropout.p = options.dropout
        if options.freeze_tokens:
            model.tokens.requires_grad_(False)
        if options.fsdp and isinstance(model, Decoder):
            shard(model, self.accelerator)
        optimizer = torch.optim.AdamW(
            parameter_groups(model, options), betas=(0.9, 0.98), fused=has_gpu()
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: schedule_factor(step, options)
        )
        self.step = 0
        self.optimizer = self.accelerator.prepare(optimizer)
        self.model = model if options.fsdp else self.accelerator.prepare(model)
        self.schedule = schedule
        self.n_examples = (len(corpus), len(self.held_out), corpus.n_too_long)

    def fit(self, *, is_resumed: bool) -> None:
        """Trains, validates, calibrates and saves. Progress on stderr, metrics in metrics.jsonl."""
        if self.accelerator.is_main_process:
            self.out.mkdir(parents=True, exist_ok=True)
            options_text = yaml.safe_dump(asdict(self.options), sort_keys=False)
            (self.out / "options.yaml").write_text(options_text)
        if is_resumed:
            self.load_state()
        n_train, n_held, n_long = self.n_examples
        self.accelerator.print(
            f"{n_train} training and {n_held} held-out records; {n_long} left out as longer than"
            f" {self.options.max_tokens} tokens",
            file=sys.stderr,
        )
        self.run_steps()
        if self.first_weights:
            self.blend()
        held = self.validate(len(self.validation))
        weights = self.weights()
        if self.accelerator.is_main_process:
            self.save(held, weights)
        self.accelerator.wait_for_everyone()

    def run_steps(self) -> None:
        """The optimiser steps that are left."""
        options = self.options
        batches = self.batches()
        columns = (
            TextColumn("step"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
        )  # fmt: skip
        shown_on = Console(stderr=True, quiet=not self.accelerator.is_main_process)
        with Progress(*columns, console=shown_on) as progress:
            task = progress.add_task("", total=options.steps, completed=self.step, shown="")
            recent: list[dict[str, float]] = []
            while self.step < options.steps:
                recent.append(self.one_step(batches))
                self.step += 1
                progress.update(task, completed=self.step, shown=f"loss {recent[-1]['loss']:.3f}")
                if self.step % 10 == 0:
                    # One step holds a few families of few kinds; its loss alone says little.
                    means = {name: mean(step[name] for step in recent) for name in recent[0]}
                    self.record({"step": self.step, **means})
                    recent.clear()
                if self.step % options.validate_every == 0:
                    self.record({"step": self.step, **self.held_figures()})
                if self.step % options.checkpoint_every == 0:
                    self.save_state()

    def batches(self) -> Iterator[Batch]:
        """This process's batches of the run from the current step on.

        Processes take turns: `accelerate` cannot share out batches that are made one by one.
        """
        n_processes = self.accelerator.num_processes
        first = self.step * self.options.batches * n_processes + self.accelerator.process_index
        left = Subset(self.families, range(first, len(self.families), n_processes))
        yield from DataLoader(
            left, batch_size=None, shuffle=False, num_workers=self.options.workers
        )

    def one_step(self, batches: Iterator[Batch]) -> dict[str, float]:
        """One optimiser step over `batches` batches of each process; its figures over them all."""
        self.model.train()
        started = time.perf_counter()
        totals = np.zeros(5)
        n_tokens = 0
        for _ in range(self.options.batches):
            batch = self.next_batch(batches)
            target = batch.target.clamp(
                self.options.label_smoothing, 1 - self.options.label_smoothing
            )
            # One autocast around all calls of the model: the weights are cast once, not per call.
            with self.accelerator.autocast():
                reward = rewards(self.model, batch)
            loss = joint_loss(reward, target, batch.weight, batch.pairs, self.options.gamma)
            rewording = rewording_loss(reward, batch.same)
            distillation = self.distillation(reward, batch)
            total = loss.total + self.options.rewording * rewording
            total = total + self.options.distillation * distillation
            self.accelerator.backward(total / self.options.batches)
            parts = (total, loss.classification, loss.pairwise, rewording, distillation)
            totals += torch.stack(parts).tolist()
            n_tokens += batch.n_tokens
        norm = whole(
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.options.max_grad_norm)
        )
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - started
        sums = torch.tensor([*totals, n_tokens], device=self.accelerator.device)
        n_batches = self.options.batches * self.accelerator.num_processes
        *losses, n_all_tokens = self.accelerator.reduce(sums, "sum").tolist()
        figures = [loss / n_batches for loss in losses]
        if not math.isfinite(figures[0]):
            raise BadArgument(f"loss is not finite at step {self.step}; lower learning_rate")
        names = ("loss", "classification", "pairwise", "rewording", "distillation")
        return {
            **dict(zip(names, figures, strict=True)),
            "gradient_norm": float(norm),
            "tokens_per_second": n_all_tokens / seconds,
        }

    def next_batch(self, batches: Iterator[Batch]) -> Batch:
        """This process's next batch, on its device."""
        batch = to_device(next(batches), self.accelerator.device)
        return with_equal_calls(batch) if self.options.fsdp else batch

    def distillation(self, reward: Tensor, batch: Batch) -> Tensor:
        """How far the rewards [N] are from what the teacher says; 0 without a teacher."""
        if self.teacher is None or batch.taught is None:
            return reward.new_zeros(())
        with self.accelerator.autocast():
            soft = self.teacher.compliance(batch.taught)
        return distillation_loss(reward, soft)

    @torch.no_grad()
    def validate(self, n_batches: int) -> Held:
        """Rewards of `n_batches` batches of held-out conversations, always the same ones."""
        self.model.eval()
        collected, labels, ordered, losses = [], [], [], []
        for index in range(n_batches):
            batch = to_device(self.validation[index], self.accelerator.device)
            with self.accelerator.autocast():
                reward = rewards(self.model, batch)
            loss = joint_loss(reward, batch.target, batch.weight, batch.pairs, self.options.gamma)
            losses.append(loss.total.item())
            judged = batch.weight > 0
            collected.append(reward[judged].double().cpu().numpy())
            labels.append((batch.target[judged] < 0.5).double().cpu().numpy())
            ordered.append((reward[batch.pairs[:, 0]] > reward[batch.pairs[:, 1]]).cpu().numpy())
        return Held(
            np.concatenate(collected),
            np.concatenate(labels),
            float(np.concatenate(ordered).mean()),
            float(np.mean(losses)),
        )

    def held_figures(self) -> dict[str, float]:
        """Figures of the held-out families for metrics.jsonl."""
        held = self.validate(self.options.validation_batches)
        p_violation = 1 / (1 + np.exp(held.reward))
        return {
            "held_loss": held.loss,
            "held_auroc": auroc(held.label, p_violation),
            "held_f1_violation": f1_violation(held.label, p_violation),
            "held_f1_compliant": f1_compliant(held.label, p_violation),
            "held_pair_accuracy": held.pair_accuracy,
            "held_n": float(len(held.label)),
        }

    def save(self, held: Held, weights: dict[str, Tensor]) -> None:
        """The finished checkpoint: weights, tokenizer, calibration, provenance."""
        folder = self.out / "checkpoint"
        save_model(self.bare_model(), weights, folder)
        (folder / "tokenizer.json").write_bytes(self.tokenizer)
        calibration = fit_platt(held.reward, held.label)
        write_json(folder / "calibration.json", asdict(calibration))
        points = operating_points(apply_platt(calibration, held.reward), held.label)
        write_json(folder / "operating_points.json", {"points": [asdict(p) for p in points]})
        n_train, n_held, _ = self.n_examples
        provenance = {
            "sources": self.sources(),
            "steps": self.step,
            "seed": self.options.seed,
            "attention": self.options.attention,
            "n_records": n_train,
            "n_held_out": n_held,
            "held_out": held_out_figures(held),
        }
        write_json(folder / "provenance.json", provenance)
        self.record({"step": self.step, **provenance})

    def sources(self) -> list[str]:
        """The sources trained on, the teacher's included: their licences bind this model too."""
        taught = self.teacher.sources if self.teacher else ()
        return list(dict.fromkeys((*self.options.sources, *taught)))

    def bare_model(self) -> Model:
        """The model without accelerate's wrapping."""
        model: Model = self.accelerator.unwrap_model(self.model)
        return model

    @torch.no_grad()
    def blend(self) -> None:
        """Moves the weights back towards those that the run started from (arXiv 2109.01903): a
        short run on something new then costs less of what was known."""
        for name, weight in self.bare_model().state_dict().items():
            weight.lerp_(self.first_weights[name].to(weight.device), 1 - self.options.blend)

    def weights(self) -> dict[str, Tensor]:
        """The whole model's state_dict on the CPU; {} in all processes but the main one.

        All processes must call this together.
        """
        return gathered(self.bare_model().state_dict(), is_kept=self.accelerator.is_main_process)

    def save_state(self) -> None:
        """Everything a resumed run needs, and the weights as a checkpoint to look at.

        All processes must call this together; the main one writes.
        """
        is_main = self.accelerator.is_main_process
        weights = self.weights()
        optimizer = gathered_optimizer(self.optimizer, is_kept=is_main)
        if is_main:
            save_model(self.bare_model(), weights, self.out / "last")
            state = {"optimizer": optimizer, "schedule": self.schedule.state_dict()}
            if self.options.lora_rank:
                state["adapters"] = trained_state(self.bare_model(), weights)
            torch.save({**state, "step": self.step}, self.out / "last" / "state.pt")
        self.accelerator.wait_for_everyone()

    def load_state(self) -> None:
        """Continues from `save_state`. Errors: BadArgument when there is none."""
        path = self.out / "last" / "state.pt"
        if not path.is_file():
            raise BadArgument("there is no checkpoint to resume in the run's folder; start anew")
        state = torch.load(path, weights_only=True)
        if self.options.lora_rank:
            load_weights(self.bare_model(), state["adapters"])
        else:
            load_weights(self.bare_model(), load_model(self.out / "last").state_dict())
        load_optimizer(self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step = int(state["step"])

    def record(self, figures: dict[str, object]) -> None:
        """Appends one line to metrics.jsonl (main process only)."""
        if self.accelerator.is_main_process:
            with (self.out / "metrics.jsonl").open("a") as stream:
                stream.write(json.dumps(figures) + "\n")


def train_from_file(path: str | Path, *, resume: bool = False) -> Path:
    """Trains as the YAML file says; the folder of the finished checkpoint.

    Errors: BadArgument (options), BadConversation (data).
    """
    options = load_options(Path(path))
    trainer = Trainer(options)
    trainer.fit(is_resumed=resume)
    # Threads of a process group that is left open abort a process now and then as it ends.
    trainer.accelerator.end_training()
    return Path(options.out) / "checkpoint"


def held_out_figures(held: Held) -> dict[str, object]:
    """Figures of held-out conversations with 95% intervals, violation positive in AUPRC."""
    figures = measure(held.label, 1 / (1 + np.exp(held.reward)))
    shown = ("f1_violation", "f1_compliant", "auprc", "auroc", "smooth_ece")
    return {
        "n": figures.n,
        "n_violation": figures.n_violation,
        "pair_accuracy": held.pair_accuracy,
        **{name: list(astuple(getattr(figures, name))) for name in shown},
    }


def chosen_precision(precision: str) -> str:
    """`precision`, or for "auto" bf16 where it is the faster one: without instructions for it,
    it is ten times slower than fp32 (docs/log.md)."""
    if precision != "auto":
        return precision
    if has_gpu():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if product_seconds(torch.bfloat16) < product_seconds(torch.float32) else "no"


def product_seconds(dtype: torch.dtype) -> float:
    """Seconds of a matrix product of the usual size on the CPU, the best of three."""
    left, right = torch.ones(512, 384, dtype=dtype), torch.ones(384, 1536, dtype=dtype)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def parameter_groups(model: Model, options: TrainOptions) -> list[dict[str, object]]:
    """AdamW groups: embeddings slower, no decay on norms and biases, a new head faster."""
    fresh = () if isinstance(model, Decoder) else ("verbalizers.", "segments.")
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = options.learning_rate
        if name.startswith(("tokens.", "positions.")):
            rate = options.embedding_learning_rate
        elif name.startswith(fresh):
            rate = options.learning_rate * 5
        decay = options.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def schedule_factor(step: int, options: TrainOptions) -> float:
    """Linear warm-up, then linear decay to 2 %."""
    warmup = max(1, round(options.warmup * options.steps))
    if step < warmup:
        return (step + 1) / warmup
    return max(0.02, (options.steps - step) / max(1, options.steps - warmup))


def to_device(batch: Batch, device: torch.device) -> Batch:
    """`batch` with its tensors on `device`; itself on the CPU."""
    if device.type == "cpu":
        return batch

    def move(rows: Rows) -> Rows:
        return Rows(*(getattr(rows, name).to(device) for name in Rows.__dataclass_fields__))

    groups = [
        ConversationGroup(move(group.rows), group.prefix_index.to(device), group.members)
        for group in batch.groups
    ]
    return Batch(
        [move(rows) for rows in batch.rule_rows],
        groups,
        batch.target.to(device),
        batch.weight.to(device),
        batch.pairs.to(device),
        batch.same.to(device),
        batch.n_tokens,
        None if batch.taught is None else to_device(batch.taught, device),
    )


def has_gpu() -> bool:
    """Whether a CUDA device can be used."""
    return torch.cuda.is_available()


def write_json(path: Path, value: object) -> None:
    """Writes `value` as indented JSON."""
    path.write_text(json.dumps(value, indent=1) + "\n")
