"""Hidden states of any layer: one pass of the backbone over the windows feeds every layer and pooling.

windows -> [start] t1…tN -> backbone -> {layer: [B, N, D]} (start position dropped)
                                          ├─▶ per-frame means, float32, cached beside the results
                                          └─▶ token features for attention: kept in memory where they fit
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import numpy as np
import torch
import xxhash
from torch import Tensor

from toto.errors import UserError
from toto.evaluate.pooling import frame_means
from toto.evaluate.views import Views
from toto.plain import counted

TOKENS_IN_PASS = {"cpu": 4_096, "cuda": 131_072}  # what one batch of the backbone holds
Features = dict[int, Tensor]  # layer -> [B, N, D]


class Backbone(Protocol):
    """What is probed: a `toto.train` model, or anything else with such features."""

    def features(self, ids: Tensor, layers: Sequence[int]) -> Features:
        """ids int64 [B, 1 + N] -> the hidden states [B, 1 + N, D] of these layers; 0 is the embedding."""
        ...


class Pass:
    """Runs a backbone over windows, without gradients; on a GPU in bfloat16."""

    def __init__(self, backbone: Backbone, layers: Sequence[int], used_ids: int, device: str) -> None:
        self.backbone, self.layers, self.used_ids = backbone, list(layers), used_ids
        self.device = torch.device(device)

    def over(
        self, views: Views, order: np.ndarray | None = None, batch: int | None = None
    ) -> Iterator[tuple[np.ndarray, Features]]:
        """(numbers of the windows int64 [B], their features at the code positions), in the given order."""
        order = np.arange(len(views)) if order is None else order
        if not len(order):
            return
        size = batch or max(1, TOKENS_IN_PASS.get(self.device.type, 8_192) // len(views.ids(int(order[0]))))
        for first in range(0, len(order), size):
            numbers = order[first : first + size]
            yield numbers, self._features(self._ids(views, numbers))

    def _features(self, ids: np.ndarray) -> Features:
        precision: AbstractContextManager = nullcontext()
        if self.device.type == "cuda":
            precision = torch.autocast("cuda", torch.bfloat16)
        with torch.no_grad(), precision:  # not inference_mode: heads are trained on these tensors
            found = self.backbone.features(torch.from_numpy(ids).to(self.device), self.layers)
        return {layer: found[layer][:, 1:] for layer in self.layers}

    def _ids(self, views: Views, numbers: np.ndarray) -> np.ndarray:
        windows = [views.ids(int(i)) for i in numbers]
        for i, window in zip(numbers, windows, strict=True):
            source = views.sources[views.owner[i]]
            if len(window) != len(windows[0]) or len(window) == 1:
                where = f"{views.dataset.store.uri}: {source}"
                raise UserError(
                    f"{where}: {counted(len(window) - 1, 'code')} where others have {len(windows[0]) - 1}; "
                    "crop to one size"
                )
            if window.max() >= self.used_ids:
                where = f"{views.dataset.store.uri}: {source}"
                raise UserError(f"{where}: id {window.max()} is outside the model's {self.used_ids}")
        return np.stack(windows)


class Pooled:
    """Means of every window: float32 [V, L, K, D], K frames; or, where single frames are not needed, 2: the mean over
    all and that of the first frame."""

    def __init__(self, views: Views, layers: Sequence[int], by_frame: bool) -> None:
        self.views, self.layers, self.by_frame = views, list(layers), by_frame
        self.values: np.ndarray | None = None

    def add(self, numbers: np.ndarray, features: Features) -> None:
        """Takes what a pass yields."""
        frames = self.views.frames
        means = torch.stack([frame_means(features[layer], frames) for layer in self.layers], 1)
        if not self.by_frame and frames > 2:
            means = torch.stack([means.mean(2), means[:, :, 0]], 2)
        if self.values is None:
            self.values = np.empty((len(self.views), *means.shape[1:]), np.float32)
        self.values[numbers] = means.cpu().numpy()

    def matrix(self, layer: int, pooling: str) -> np.ndarray:
        """float32 [V, F] of one layer: F = T*D for `frames`, else D."""
        assert self.values is not None, "filled by a pass, or read from the cache"
        means = self.values[:, self.layers.index(layer)]
        if pooling == "frames":
            return means.reshape(len(means), -1)
        summed = not self.by_frame and self.views.frames > 2
        if pooling == "average":
            return means[:, 0] if summed else means.mean(1)
        return means[:, 1 if summed else 0]


class TokenFeatures:
    """bfloat16 features of every code position, for heads that are trained on them: kept where they fit, else made
    again for every epoch. Both give the same numbers up to the backbone's own rounding in other batches."""

    def __init__(self, views: Views, backbone_pass: Pass, most_bytes: int) -> None:
        self.views, self.backbone_pass, self.most_bytes = views, backbone_pass, most_bytes
        self.kept: Features | None = None
        self.sums: dict[int, Tensor] = {}  # layer -> float64 [2, D]: sum and sum of squares
        self.positions = 0

    def add(self, numbers: np.ndarray, features: Features) -> None:
        """Takes what a pass yields: statistics of the channels, and the features themselves where all of them fit."""
        if not self.positions:
            size = sum(x[0].numel() for x in features.values()) * 2 * len(self.views)
            if size <= self.most_bytes:
                shape = (len(self.views), *next(iter(features.values())).shape[1:])
                self.kept = {layer: x.new_empty(shape, dtype=torch.bfloat16) for layer, x in features.items()}
        at = torch.from_numpy(numbers)
        for layer, x in features.items():
            flat = x.float().flatten(0, 1)
            sums = torch.stack([flat.sum(0), flat.square().sum(0)]).double()
            self.sums[layer] = self.sums[layer] + sums if layer in self.sums else sums
            if self.kept is not None:
                self.kept[layer][at.to(x.device)] = x.to(torch.bfloat16)
        self.positions += next(iter(features.values())).shape[:2].numel()

    def statistics(self, layer: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel [D] over all positions of all windows, float32."""
        mean, square = self.sums[layer] / self.positions
        return mean.float(), (square - mean.square()).clamp_min(0).float()

    def batches(
        self, order: np.ndarray, size: int, draw: Callable[[int], np.ndarray] | None = None
    ) -> Iterator[tuple[np.ndarray, Features]]:
        """Windows in this order, `size` at a time, with their features in bfloat16; `draw`, called for each batch with
        the number of positions, chooses among them."""
        if self.kept is None:
            for numbers, features in self.backbone_pass.over(self.views, order, size):
                at = None if draw is None else draw(self._count(features))
                yield numbers, {layer: _chosen(x, at).to(torch.bfloat16) for layer, x in features.items()}
            return
        for first in range(0, len(order), size):
            numbers = order[first : first + size]
            at = np.arange(self._count(self.kept)) if draw is None else draw(self._count(self.kept))
            yield numbers, {layer: _gathered(x, numbers, at) for layer, x in self.kept.items()}

    @staticmethod
    def _count(features: Features) -> int:
        return next(iter(features.values())).shape[1]


def _chosen(x: Tensor, at: np.ndarray | None) -> Tensor:
    return x if at is None else x[:, torch.from_numpy(at).to(x.device)]


def _gathered(x: Tensor, numbers: np.ndarray, at: np.ndarray) -> Tensor:
    rows, columns = torch.from_numpy(numbers).to(x.device), torch.from_numpy(at).to(x.device)
    return x[rows] if len(at) == x.shape[1] else x[rows[:, None], columns]


def cache_key(weights: str, views: Views, layers: Sequence[int], by_frame: bool) -> str:
    """Names cached means: changes with the weights, the dataset's content, the windows and the layers."""
    digest = xxhash.xxh3_128()
    for part in (weights, views.dataset.dataset_id, list(layers), views.frames, views.stride, by_frame, views.sources):
        digest.update(f"{part}\n".encode())
    for array in (views.row, views.start):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def read_cached(folder: Path | None, key: str) -> np.ndarray | None:
    """Means that were written before, mapped; None where there are none."""
    path = None if folder is None else folder / f"{key}.npy"
    if path is None or not path.is_file():
        return None
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):  # damaged: they are made again
        return None


def write_cached(folder: Path | None, key: str, values: np.ndarray) -> None:
    """Writes them whole or not at all."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{key}.{uuid4().hex[:8]}"
    try:
        with open(part, "wb") as file:
            np.save(file, values, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, folder / f"{key}.npy")
    finally:
        part.unlink(missing_ok=True)
