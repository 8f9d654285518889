"""Ids that are no codes of the vocabulary, found in a batch: one beyond it would end a run far from here."""

from toto.errors import UserError
from toto.shards.ids import CODE_OFFSET
from toto.shards.streaming.sequences import SequenceBatch


def refuse_foreign_ids(batch: SequenceBatch, used: int) -> None:
    """UserError, naming its row, for a code's id outside 4 … `used` - 1."""
    ids = batch.tokens[:, 1:-1]
    if not ids.size or (int(ids.min()) >= CODE_OFFSET and int(ids.max()) < used):
        return
    outside = (ids < CODE_OFFSET) | (ids >= used)
    i = int(outside.any(1).argmax())
    at, clips = int(outside[i].argmax()), batch[i].clips
    row = clips[at * len(clips) // ids.shape[1]].row
    where = batch.origins[int(batch.parts[i])].reader.where(row)
    raise UserError(f"{where}: id {ids[i, at]} outside {CODE_OFFSET} … {used - 1}; tokenize it anew")
