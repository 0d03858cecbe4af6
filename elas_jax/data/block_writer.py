"""Writes the token blocks of a corpus with several processes.

The work is cut into shards by the data alone, so the result is the same for any number
of processes.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from elas_jax.common.errors import UserError
from elas_jax.data import cache, chat_rows
from elas_jax.data.bad_records import MAX_MESSAGES, BadRecords
from elas_jax.data.block_set import WRITER_OPTIONS, Shard, dtype_of
from elas_jax.data.corpus import Corpus
from elas_jax.data.duplicates import count_shared, document_hashes
from elas_jax.data.packing import PROTOCOLS
from elas_jax.data.progress import Progress
from elas_jax.data.sources import Source, open_source, open_split
from elas_jax.data.text_reader import read_prepared
from elas_jax.data.tokenizers import Tokenizer, encode_documents, load_tokenizer

SHARD_BYTES = 4 << 20  # of text, for small corpora
MAX_SHARDS = 256  # for large ones: each is an open file during training
DOCUMENTS_AT_ONCE = 64
CHARACTERS_AT_ONCE = 1 << 24
POLL_SECONDS = 0.2
HASHES = '.hashes'  # of the documents of a shard, until they have been compared


@dataclasses.dataclass(frozen=True)
class Task:
  """One shard to write: documents [start, stop) of a split."""

  documents: pathlib.Path  # a prepared TFDS folder
  split: str  # by the name that the set gives it
  start: int
  stop: int
  output: pathlib.Path
  tokenizer: str  # path of the tokenizer that was saved beside the blocks
  protocol: str
  sequence_length: int
  counted: str  # of Corpus


def write_blocks(corpus: Corpus, tokenizer: Tokenizer, folder: pathlib.Path) -> None:
  """Writes the blocks of both splits and, last, their META into an empty folder.

  Raises:
    UserError: the corpus is not usable, or too short for a single block.
  """
  source = open_source(corpus)
  saved = str(tokenizer.save(folder))
  tasks = {split: _tasks(corpus, source, split, folder, saved) for split in source.sizes}
  done = _run(
    [task for of_split in tasks.values() for task in of_split],
    corpus.processes or os.cpu_count(),
    sum(source.sizes.values()),
  )
  shards = {split: [done[t.output.name] for t in tasks[split]] for split in tasks}
  report = _report(source, done.values())
  for split, of_split in shards.items():
    if not any(shard.blocks for shard in of_split):
      report.check(corpus.named, corpus.max_bad_share)
      why = f'the {split} split is too short for a single block; give more text'
      if sum(shard.left_out for shard in of_split):
        rows = f'data.sequence_length={corpus.sequence_length}'
        why = f'no answer of the {split} split ends within {rows}; must be longer'
      raise UserError(f'{corpus.where}: {why}')
  meta = {
    'sequence_length': corpus.sequence_length,
    'vocab_size': tokenizer.vocab_size,
    'protocol': corpus.protocol,
    'counted': corpus.counted,
    'source': {'name': source.name, 'fingerprint': source.fingerprint},
    'report': dataclasses.asdict(report),
    'shards': {s: [dataclasses.asdict(x) for x in of] for s, of in shards.items()},
  }
  of_split = lambda split: sorted(folder.glob(f'{split}-*{HASHES}'))
  meta['shared_documents'] = count_shared(of_split('train'), of_split('validation'))
  for path in folder.glob(f'*{HASHES}'):
    path.unlink()
  cache.write_meta(folder, meta)


def write_shard(task: Task, advance=lambda count: None) -> Shard:
  """Tokenises the documents of one shard and writes its blocks.

  Args:
    task: what to write.
    advance: called with the number of text bytes that were just finished.
  """
  tokenizer = _load_once(task.tokenizer)
  dtype = dtype_of(task.sequence_length, tokenizer.vocab_size, task.counted)
  if task.counted:
    encode = chat_rows.encode_conversations
    rows_of = chat_rows.ChatRows(dtype, tokenizer.eos_id, task.protocol, task.counted)
  else:
    encode = encode_documents
    rows_of = PROTOCOLS[task.protocol](dtype, tokenizer.eos_id)
  writer = ArrayRecordWriter(str(task.output), WRITER_OPTIONS)
  totals = np.zeros(3, np.int64)  # blocks, tokens, bytes
  largest = text_bytes = empty = lost = 0
  unreadable = []
  digest, documents = hashlib.sha256(), [np.zeros(0, np.uint64)]

  def put(rows: np.ndarray) -> None:
    nonlocal largest
    if not len(rows):
      return
    packed, size = rows.tobytes(), dtype.itemsize
    digest.update(packed)
    for i in range(0, len(packed), size):
      writer.write(packed[i : i + size])
    totals[:] += len(rows), rows['valid'].sum(), rows['bytes'].sum()
    largest = max(largest, int(rows['tokens'].max()))

  for texts, unreadable_here in _read_texts(task):
    unreadable += unreadable_here
    for pieces, lost_here in encode(tokenizer, texts):
      put(rows_of.add(pieces))
      lost += lost_here
      text_bytes += sum(int(piece.lengths.sum()) for piece in pieces)
    empty += texts.count('')
    # Blank ones are not worth a word.
    filled = (text.encode() for text in texts if text.strip())
    documents.append(document_hashes(filled))
    advance(sum(len(text.encode()) for text in texts))
  put(rows_of.finish())
  writer.close()
  np.concatenate(documents).tofile(f'{task.output}{HASHES}')
  blocks, tokens, covered = totals.tolist()
  return Shard(
    file=task.output.name,
    blocks=blocks,
    tokens=tokens,
    bytes=covered,
    max_token_id=largest,
    documents=task.stop - task.start - len(unreadable),
    text_bytes=text_bytes,
    fingerprint=digest.hexdigest(),
    empty=empty,
    lost_bytes=lost,
    unreadable=len(unreadable),
    unreadable_bytes=sum(unreadable),
    left_out=getattr(rows_of, 'left_out', 0),
    shortened=getattr(rows_of, 'shortened', 0),
  )


def _tasks(
  corpus: Corpus, source: Source, split: str, folder: pathlib.Path, tokenizer: str
) -> list[Task]:
  documents = len(source.splits[split])
  shards = min(MAX_SHARDS, documents, 1 + source.sizes[split] // SHARD_BYTES)
  edges = [documents * i // shards for i in range(shards + 1)]
  return [
    Task(
      documents=source.folder,
      split=source.split_names[split],
      start=start,
      stop=stop,
      output=folder / f'{split}-{i:05d}-of-{shards:05d}.array_record',
      tokenizer=tokenizer,
      protocol=corpus.protocol,
      sequence_length=corpus.sequence_length,
      counted=corpus.counted,
    )
    for i, (start, stop) in enumerate(zip(edges, edges[1:]))
  ]


def _report(source: Source, shards: Iterable[Shard]) -> BadRecords:
  """The source's report; of a prepared set, which has none, what the shards left out."""
  report = source.report
  if report.total:
    return report
  for shard in shards:
    report.total += shard.documents + shard.unreadable
    report.total_bytes += shard.text_bytes + shard.unreadable_bytes
    report.bad += shard.unreadable
    report.bad_bytes += shard.unreadable_bytes
    if shard.unreadable:
      report.messages.append(f'{shard.file}: {shard.unreadable} documents are not UTF-8')
  del report.messages[MAX_MESSAGES:]
  return report


def _read_texts(task: Task) -> Iterator[tuple[list[str], list[int]]]:
  """(texts, bytes of each one that is not UTF-8) of the shard, some at a time."""
  documents = _open_once(task.documents, task.split)
  start, count = task.start, 1
  while start < task.stop:
    stop = min(start + count, task.stop)
    numbers = range(start, stop)
    texts, unreadable = read_prepared(documents, numbers, task.documents, task.split)
    yield texts, unreadable
    size = sum(map(len, texts)) + sum(unreadable)
    # Fewer of long documents, whose number says little about the memory they take.
    count = min(DOCUMENTS_AT_ONCE, 1 + CHARACTERS_AT_ONCE * count // max(1, size))
    start = stop


@functools.cache
def _load_once(spec: str) -> Tokenizer:
  return load_tokenizer(spec)


@functools.cache
def _open_once(folder: pathlib.Path, split: str) -> Sequence[dict[str, Any]]:
  return open_split(folder, split)


def _run(tasks: list[Task], processes: int, text_bytes: int) -> dict[str, Shard]:
  """Runs the tasks; returns their shards by file name."""
  processes = min(processes, len(tasks))
  with Progress('tokenising', text_bytes) as progress:
    if processes == 1:
      done = [write_shard(task, progress.advance) for task in tasks]
    else:
      done = _run_in_processes(tasks, processes, progress)
  return {shard.file: shard for shard in done}


def _run_in_processes(tasks: list[Task], processes: int, progress: Progress) -> list[Shard]:
  # Spawned, not forked: a fork of a process with threads may hang.
  context = multiprocessing.get_context('spawn')
  counter = context.Value('q', 0)
  pool = concurrent.futures.ProcessPoolExecutor(
    processes, context, initializer=_start_worker, initargs=(counter,)
  )
  with pool:
    futures = [pool.submit(_write_counted, task) for task in tasks]
    waiting = set(futures)
    try:
      while waiting:
        finished, waiting = concurrent.futures.wait(
          waiting, POLL_SECONDS, concurrent.futures.FIRST_COMPLETED
        )
        for future in finished:
          future.result()  # the first error stops the preparation
        progress.set(counter.value)
    except BaseException:
      # Leaving the pool would wait for shards that nobody needs any more.
      pool.shutdown(wait=False, cancel_futures=True)
      for worker in multiprocessing.active_children():
        worker.terminate()
      raise
  return [future.result() for future in futures]


def _start_worker(counter) -> None:
  global _counter
  _counter = counter
  # One thread for each process: the processes are the parallelism.
  os.environ['TOKENIZERS_PARALLELISM'] = 'false'
  # Control-C goes to the whole group: the parent reports it, once.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
  """Ends this worker when its parent is gone, however that ended."""
  multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
  os._exit(1)


def _write_counted(task: Task) -> Shard:
  def advance(count: int) -> None:
    with _counter.get_lock():
      _counter.value += count

  return write_shard(task, advance)
