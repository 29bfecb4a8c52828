"""Several processes share one run: which of them this is, and how they meet."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import final

import torch
from torch import distributed

from adamant.errors import InputError

_PATIENCE = timedelta(days=7)  # the slowest process may take as long as it takes


@final
@dataclass(frozen=True)
class Shard:
    """Which of how many processes this is; one of one unless torchrun says otherwise."""

    rank: int = 0
    world: int = 1

    @staticmethod
    def here() -> Shard:
        """As the environment says, which torchrun sets."""
        try:
            shard = Shard(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
        except ValueError as error:
            raise InputError(f"RANK and WORLD_SIZE must be whole numbers ({error}): start with torchrun.") from None
        if not 0 <= shard.rank < shard.world:
            raise InputError(f"RANK is {shard.rank} of WORLD_SIZE {shard.world}: start with torchrun.")
        return shard

    @property
    def first(self) -> bool:
        """The one that writes the report."""
        return self.rank == 0

    def mine(self, chunk: int) -> bool:
        """Whether this process does that chunk."""
        return chunk % self.world == self.rank

    def join(self) -> None:
        """Get to know the others."""
        if self.world > 1 and not distributed.is_initialized():
            # Each its own accelerator: those talk by NCCL. Else, as when two share one, all goes by gloo.
            own = 0 < int(os.environ.get("LOCAL_WORLD_SIZE", self.world)) <= torch.cuda.device_count()
            backend = "cpu:gloo,cuda:nccl" if own and distributed.is_nccl_available() else "gloo"
            distributed.init_process_group(backend, timeout=_PATIENCE)

    def meet(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            self.join()
            distributed.barrier()

    def leave(self) -> None:
        """Part from the others in good order, when all is done."""
        if self.world > 1 and distributed.is_initialized():
            gc.collect()  # wrappers that still hold the group
            distributed.barrier()
            distributed.destroy_process_group()
