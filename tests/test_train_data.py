"""Batches: the same for any number of ranks and workers, resumable anywhere, at home in other people's loaders."""

import dataclasses
import itertools
import os
import signal
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch
from token_world import Video, moving_codes, moving_videos, still_images, write_tokens
from torch.utils.data import DataLoader

from toto.errors import UsageError, UserError
from toto.shards import ids
from toto.shards.recipe import make_recipe
from toto.shards.stream import Stream
from toto.shards.streaming.keyed import MASK
from toto.train.data import MicroBatch, Sequences, loader, reading

BATCH = 12  # divisible by 1, 2, 3 and 4 ranks
STEPS = range(5, 8)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    root = tmp_path_factory.mktemp("world") / "set"
    write_tokens(root, moving_videos(20), still_images(30), unit_sources=7, batch_bytes=1000)
    return Stream(make_recipe([("world", str(root), 1, None)], 4, 4, 0, BATCH))


def batches(
    stream: Stream, steps: range, world: int, workers: int, micro: int = 2, predict_end: bool = False
) -> Iterator[list[MicroBatch]]:
    """For every rank its micro-batches."""
    for rank in range(world):
        yield list(loader(stream, steps, rank, world, micro, workers, predict_end))


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_any_ranks_and_workers_see_the_same_global_batches(stream: Stream, workers: int) -> None:
    expected = {step: [stream.sequence(step * BATCH + i) for i in range(BATCH)] for step in STEPS}
    for world in (1, 2, 3, 4):
        ranks = list(batches(stream, STEPS, world, workers))
        for step in STEPS:
            mine = [batch for rank in ranks for batch in rank if batch.step == step]
            tokens = torch.cat([batch.ids() for batch in mine])
            assert tokens.tolist() == [sequence.tokens[:-1].tolist() for sequence in expected[step]]
            names = [stream.parts[i] for batch in mine for i in batch.parts.tolist()]
            assert names == [sequence.part for sequence in expected[step]]
            ledger = sum(sequence.hash for sequence in expected[step]) & MASK
            assert sum(batch.hash for batch in mine) & MASK == ledger
        assert all([batch.step for batch in rank] == sorted(batch.step for batch in rank) for rank in ranks)


@pytest.mark.parametrize("micro, sizes", [(1, [1] * 6), (4, [3, 3]), (5, [3, 3]), (6, [6]), (100, [6])])
def test_micro_batches_make_up_a_ranks_share(stream: Stream, micro: int, sizes: list[int]) -> None:
    for rank in batches(stream, range(2), 2, 0, micro):
        for step in range(2):
            mine = [batch for batch in rank if batch.step == step]
            assert [len(batch.ids()) for batch in mine] == sizes
            assert [batch.first for batch in mine] == [True] + [False] * (len(sizes) - 1)
            assert [batch.last for batch in mine] == [False] * (len(sizes) - 1) + [True]


@pytest.mark.parametrize("predict_end", [False, True])
def test_every_code_is_predicted_once(stream: Stream, predict_end: bool) -> None:
    (rank,) = batches(stream, range(1), 1, 0, predict_end=predict_end)
    for batch in rank:
        found = batch.ids()
        assert batch.tokens.dtype == torch.uint16 and found.dtype == torch.int64  # two bytes an id until it is there
        assert found.shape == (2, stream.context + 1 + predict_end)
        assert set(found[:, 0].tolist()) <= {ids.VIDEO_START, ids.IMAGE_START}
        assert (found[:, 1 : stream.context + 1] >= ids.CODE_OFFSET).all()
        assert (found[:, -1] == ids.END).all() == predict_end


def test_a_run_goes_on_anywhere_with_other_ranks(stream: Stream) -> None:
    (whole,) = batches(stream, range(6), 1, 0, micro=BATCH)
    for stop in range(6):
        ranks = list(batches(stream, range(stop, 6), 3, 0, micro=BATCH))
        for step, parts in zip(range(stop, 6), zip(*ranks, strict=True), strict=True):
            assert torch.equal(torch.cat([part.ids() for part in parts]), whole[step].ids())


def test_reading_does_not_touch_the_models_random_numbers(stream: Stream) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    next(iter(loader(stream, range(1), 0, 1, 4, 0, False)))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("ranks", [5, 7, 12])
def test_ranks_that_do_not_divide_a_batch_share_it_all_the_same(stream: Stream, ranks: int) -> None:
    (whole,) = loader(stream, range(2, 3), 0, 1, BATCH, 0, False)
    shares = [list(loader(stream, range(2, 3), rank, ranks, 2, 0, False)) for rank in range(ranks)]
    assert torch.equal(torch.cat([part.ids() for share in shares for part in share]), whole.ids())
    assert all([part.last for part in share] == [False] * (len(share) - 1) + [True] for share in shares)
    sizes = [sum(len(part.ids()) for part in share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_batches_that_cannot_be_dealt_out_are_refused(stream: Stream) -> None:
    with pytest.raises(UsageError, match="a batch of 12 sequences is too small for 13 ranks"):
        loader(stream, STEPS, 0, 13, 1, 0, False)
    with pytest.raises(UsageError, match="rank 2 of 2"):
        loader(stream, STEPS, 2, 2, 1, 0, False)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_goes_wrong_in_a_worker_is_said_in_one_line(tmp_path: Path, workers: int) -> None:
    codes, _ = moving_codes(6)
    codes[4, 2] += 1000
    root = write_tokens(tmp_path, [Video(str(i), c) for i, c in enumerate(codes)])
    broken = Stream(make_recipe([("world", str(root), 1, None)], 8, 4, 0, 6))
    with pytest.raises(UserError, match="^[^\n]*: 4, run 0, view 0: id [0-9]+ outside [^\n]*$") as told:
        list(loader(broken, range(1), 0, 1, 1, workers, False))
    assert told.tb and not active_children(), "the traceback keeps no worker"


def test_workers_that_get_sigterm_too_read_on_for_their_trainer(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "alarm", lambda seconds: os._exit(1))  # a step may be longer than any time limit
    whole = [(batch.step, batch.hash) for batch in loader(stream, range(60), 0, 1, 12, 2, False)]
    fork = os.fork

    def stopped_as_it_begins() -> int:
        if (child := fork()) == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return child

    monkeypatch.setattr(os, "fork", stopped_as_it_begins)
    found = loader(stream, range(60), 0, 1, 12, 2, False)
    read = [next(found)]
    workers = active_children()
    for worker in workers:
        os.kill(worker.pid or 0, signal.SIGTERM)
    read += found
    assert len(workers) == 2 and [(batch.step, batch.hash) for batch in read] == whole
    assert not active_children()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch watches workers by SIGCHLD, from the first loader of a process on: here from the next one on."""
    monkeypatch.setattr("torch.utils.data._utils.signal_handling._SIGCHLD_handler_set", False)
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("watched")
def test_a_worker_that_is_killed_is_told_in_one_error(stream: Stream) -> None:
    found = loader(stream, range(1000), 0, 1, 12, 1, False)
    with pytest.raises(UserError, match="(?s)^a process that reads shards is gone .*run the same command again"):
        with reading(found):
            next(found)
            os.kill(active_children()[0].pid or 0, signal.SIGKILL)
            list(found)
    with pytest.raises(RuntimeError, match="something else"), reading(loader(stream, STEPS, 0, 1, 12, 0, False)):
        raise RuntimeError("something else")


def test_sequences_are_what_hugging_face_models_read(stream: Stream) -> None:
    dataset = Sequences(stream, total=40)
    assert len(dataset) == 40
    for i in (0, 7, 39, -1):
        item, tokens = dataset[i], stream.sequence(i % 40).tokens
        assert item["input_ids"].dtype == torch.int64 and item["input_ids"].tolist() == tokens[:-1].tolist()
        assert torch.equal(item["labels"], item["input_ids"])
    assert len(Sequences(stream, 40, predict_end=True)[0]["input_ids"]) == stream.context + 2
    with pytest.raises(IndexError):
        dataset[40]


def test_sequences_go_on_from_their_state(stream: Stream) -> None:
    whole = Sequences(stream, total=40)
    for done in (0, 1, 17, 40):
        again = Sequences(stream, total=40)
        again.load_state_dict(whole.state_dict(done))
        assert len(again) == 40 - done
        assert all(torch.equal(again[i]["input_ids"], whole[done + i]["input_ids"]) for i in range(len(again)))
    other = Stream(dataclasses.replace(stream.recipe, seed=1))
    with pytest.raises(UserError, match="this state is of recipe"):
        Sequences(other, 40).load_state_dict(whole.state_dict())
    with pytest.raises(UserError, match="has consumed 50 sequences; the run has 40"):
        whole.load_state_dict({**whole.state_dict(), "consumed": 50})
    with pytest.raises(UserError, match="has consumed None sequences"):
        whole.load_state_dict({"recipe": stream.recipe.id})


@pytest.mark.parametrize(
    ("workers", "start"), [(0, None), (1, "fork"), (2, "fork"), (3, "fork"), (4, "fork"), (1, "forkserver")]
)
def test_a_plain_data_loader_reads_them_in_order(stream: Stream, workers: int, start: str | None) -> None:
    dataset = Sequences(stream, total=26, consumed=2)
    loaded = DataLoader(
        dataset, 5, num_workers=workers, multiprocessing_context=start, persistent_workers=start == "fork"
    )
    expected = stream.sequences(range(2, 26)).tokens[:, :-1].tolist()
    for _ in range(2 if start == "fork" else 1):  # workers that stay begin anew
        assert torch.cat([batch["input_ids"] for batch in loaded]).tolist() == expected


def test_a_loader_of_any_kind_reads_a_whole_batch_at_once(stream: Stream) -> None:
    dataset = Sequences(stream, total=30, predict_end=True)
    wanted = [7, 0, -1, 29, 7]
    together = dataset.__getitems__(wanted)
    assert all(
        torch.equal(item[key], dataset[i][key]) for i, item in zip(wanted, together, strict=True) for key in item
    )
    together[0]["labels"][3] = -100  # a collator may mask labels
    assert together[0]["input_ids"][3] == dataset[7]["input_ids"][3]
    with pytest.raises(IndexError, match="sequence 30 of 30"):
        dataset.__getitems__([3, 30])


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_another_number_of_workers_goes_on_in_the_middle_of_an_epoch(stream: Stream, workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    before = Sequences(stream, 24, consumed=3)
    taken = list(itertools.islice(stateful.StatefulDataLoader(before, batch_size=4, num_workers=2), 2))
    after = Sequences(stream, 24)
    after.load_state_dict(before.state_dict(done=8))
    for made in (stateful.StatefulDataLoader, DataLoader):
        rest = [*taken, *made(after, batch_size=4, num_workers=workers)]
        found = torch.cat([batch["input_ids"] for batch in rest]).tolist()
        assert found == stream.sequences(range(3, 24)).tokens[:, :-1].tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_data_loader_goes_on_where_it_was(stream: Stream, workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def make() -> DataLoader[dict[str, torch.Tensor]]:
        return stateful.StatefulDataLoader(Sequences(stream, 24, consumed=3), batch_size=4, num_workers=workers)

    first = make()
    taken = [batch["input_ids"] for batch in itertools.islice(first, 2)]
    second = make()
    second.load_state_dict(first.state_dict())  # type: ignore[attr-defined]
    taken += [batch["input_ids"] for batch in second]
    assert torch.cat(taken).tolist() == [stream.sequence(g).tokens[:-1].tolist() for g in range(3, 24)]


def test_the_hugging_face_trainer_trains_and_goes_on(stream: Stream, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    config = transformers.LlamaConfig(
        vocab_size=128, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    read: list[list[int]] = []

    class InOrder(transformers.Trainer):  # type: ignore[misc, name-defined]
        def _get_train_sampler(self, *_: object) -> torch.utils.data.Sampler[int]:
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def compute_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], **rest: object) -> torch.Tensor:
            read.extend(inputs["input_ids"].tolist())
            return super().compute_loss(model, inputs, **rest)

    def train(steps: int, resume: bool) -> float:
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=steps,
            per_device_train_batch_size=4,
            save_steps=2,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            lr_scheduler_type="constant",
        )
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config)
        return InOrder(model, arguments, train_dataset=Sequences(stream, 24)).train(resume).training_loss

    train(2, resume=False)
    assert train(4, resume=True) > 0
    assert read == [stream.sequence(g).tokens[:-1].tolist() for g in range(16)]


def test_micro_batches_do_not_depend_on_how_many_are_read_together(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = batches(stream, STEPS, 1, 0, micro=2)
    for tokens in (1, 5 * stream.context):  # one micro-batch of two sequences a reading, and two
        monkeypatch.setattr("toto.train.data.READ_TOKENS", tokens)
        (found,) = batches(stream, STEPS, 1, 0, micro=2)
        for mine, theirs in zip(found, expected, strict=True):
            assert torch.equal(mine.tokens, theirs.tokens) and torch.equal(mine.parts, theirs.parts)
            assert (mine.step, mine.hash) == (theirs.step, theirs.hash)
            assert (mine.first, mine.last) == (theirs.first, theirs.last)
