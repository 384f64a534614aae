"""Full sharding of a decoder over the processes of a run: PyTorch's FSDP, layer by layer.

What it is: each process keeps a part of every weight, gradient and optimiser state; a layer is
gathered for as long as it computes. For that all processes have to call the model equally often,
which `with_equal_calls` sees to. Tensors are whole again only on their way to a checkpoint and from
one, so that a checkpoint is the same file with and without sharding. Not: the processes themselves,
which `accelerate` makes, and not the loop (csrm.train.trainer).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from csrm.errors import BadArgument
from csrm.train.batch import Batch, ConversationGroup
from csrm.train.decoder import Decoder
from csrm.train.model import Rows

OWN_PROCESSES = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def check_processes(accelerator: Accelerator, *, fsdp: bool) -> None:
    """Errors: BadArgument when the processes cannot train as the option `fsdp` says."""
    if accelerator.distributed_type not in OWN_PROCESSES:
        raise BadArgument(
            "start the run without plugins of accelerate; training option 'fsdp' splits a decoder"
        )
    if not fsdp:
        return
    if accelerator.num_processes < 2:
        raise BadArgument("training option 'fsdp' needs several processes; start them by torchrun")
    if accelerator.mixed_precision not in ("no", "bf16"):
        raise BadArgument("training option 'fsdp' needs precision no or bf16")


def shard(model: Decoder, accelerator: Accelerator) -> None:
    """Splits `model` over all processes, in place, and moves its parts to their devices.

    Under bf16 the layers are gathered in it, norms included; the token table and the head stay
    fp32, and so do the parts that are kept and the sums of gradients. All processes must hold the
    same weights and call this together; an optimiser must be made after it.
    """
    # Keys may be views; nothing writes into them, which is what the warning is about.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    narrow = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
    policy = MixedPrecisionPolicy(
        param_dtype=narrow, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for layer in model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model.tokens, mesh=mesh)
    fully_shard(model, mesh=mesh)


def with_equal_calls(batch: Batch) -> Batch:
    """`batch`, filled up to the most calls of the model that any process's batch takes.

    A call gathers weights from all processes, so one process must not make more of them than
    another. A call that fills up repeats one row; its rewards lie behind those of the examples,
    where `csrm.train.batch.rewards` cuts them off, and its gradients are zeros. All processes must
    call this together.
    """
    most = torch.tensor([len(batch.rule_rows), len(batch.groups)], device=batch.target.device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    n_rule_rows, n_groups = most.tolist()
    n_examples = len(batch.target)
    shortest = batch.groups[0]
    fill = [
        ConversationGroup(first_row(shortest.rows), shortest.prefix_index[:1], [n_examples + i])
        for i in range(n_groups - len(batch.groups))
    ]
    rows = [first_row(batch.rule_rows[0])] * (n_rule_rows - len(batch.rule_rows))
    return replace(batch, rule_rows=[*batch.rule_rows, *rows], groups=[*batch.groups, *fill])


def first_row(rows: Rows) -> Rows:
    """The first of `rows`, alone."""
    return Rows(*(getattr(rows, field.name)[:1] for field in fields(Rows)))


def whole(tensor: Tensor) -> Tensor:
    """The tensor that `tensor` is this process's part of; itself if it is not split."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Mapping[str, Tensor], *, is_kept: bool) -> dict[str, Tensor]:
    """Whole tensors on the CPU, {} in a process that does not keep them.

    All processes must call this together, with the same names.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        full = whole(tensor)
        if is_kept:
            found[name] = full.detach().cpu()
    return found


def gathered_optimizer(optimizer: torch.optim.Optimizer, *, is_kept: bool) -> dict[str, Any]:
    """The optimiser's state_dict with `gathered` tensors."""
    state = optimizer.state_dict()
    parts = {i: gathered(tensors, is_kept=is_kept) for i, tensors in state["state"].items()}
    return {"state": parts, "param_groups": state["param_groups"]}


def split_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole `tensor`, cut as `like` is; itself if `like` is not split.

    All processes must call this together.
    """
    if isinstance(like, DTensor) and tensor.shape == like.shape:
        return distribute_tensor(tensor, like.device_mesh, like.placements)
    return tensor


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Puts whole `weights` into `model`, split or not; those not named stay as they are."""
    like = model.state_dict()
    parts = {name: split_like(tensor, like[name]) for name, tensor in weights.items()}
    model.load_state_dict(parts, strict=False)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Puts a state of `gathered_optimizer` into `optimizer`, whose parameters may be split."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    parts = {
        i: {name: split_like(tensor, parameters[i]) for name, tensor in tensors.items()}
        for i, tensors in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": parts})
