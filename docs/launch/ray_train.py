#!/usr/bin/env python
"""A training run on a cluster of Ray: each worker of Ray Train is a rank of `toto-train pretrain`.

    python docs/launch/ray_train.py --workers 16 --gpus pretrain --size large --out /shared/runs/large

Every node needs toto and the shards, and the run's folder has to be the same on all of them. When a worker or a node is
lost, Ray starts all workers again, and they go on after the newest checkpoint.
"""

import argparse
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer


def rank(config: dict[str, Any]) -> None:
    """One worker: Ray has set RANK and its like, and made the process group."""
    from toto.train.cli import cli

    cli.main(config["arguments"], standalone_mode=False)


def main() -> None:
    """Everything from `pretrain` on is a command line of toto-train, with absolute paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="auto", help="of the cluster")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--gpus", action="store_true", help="a GPU for each worker")
    parser.add_argument("--storage", help="where Ray Train keeps its own records; default: ~/ray_results")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="pretrain …")
    given = parser.parse_args()
    ray.init(given.address)
    trainer = TorchTrainer(
        rank,
        train_loop_config={"arguments": given.arguments},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if given.gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=given.workers, use_gpu=given.gpus),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=3), storage_path=given.storage),
    )
    trainer.fit()


if __name__ == "__main__":
    main()
