"""What a reader of a comparison must know before its numbers, one line each."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from elas_jax.data.record import difference
from elas_jax.run.record import Recorded, key
from elas_jax.tables.sides import Side, seeds_text

COUNTS = ('eval/tokens', 'eval/examples', 'eval/pairs')  # of what was evaluated
# On what losses of validation depend, whatever was trained.
DATA = ('data.source', 'data.tokenizer', 'data.protocol', 'data.sequence_length')


def warnings(sides: Sequence[Side], result: dict[str, Any]) -> list[str]:
  """Of a comparison that is complete but for its `warnings`."""
  return [
    *_of_training(sides, result['sizes']),
    *_of_data(sides, result['config']),
    *(line for side in sides for line in _of_side(side)),
    *_of_places(sides),
    *_of_shared_runs(sides),
    *(line for pair in result['pairs'] for line in _of_pair(pair)),
  ]


def _of_training(sides: Sequence[Side], sizes: Sequence[dict[str, Any]]) -> Iterator[str]:
  for row in sizes:
    if row['title'].endswith('s of training') and False in row['matched']:
      values = ['not known' if x is None else f'{x:,}' for x in row['values']]
      yield f'unequal {row["title"]}: {_by_side(sides, values)}'


def _of_data(sides: Sequence[Side], fields: Sequence[dict[str, Any]]) -> Iterator[str]:
  said = [row for row in fields if row['field'].startswith(DATA)]
  for row in said:
    values = ['not known' if x is None else x for x in row['values']]
    yield f'unequal data: {row["field"]}: {_by_side(sides, values)}'
  known = [(side.label, record) for side in sides for record in side.data]
  for label, record in known[1:] if not said else ():
    if other := difference(known[0][1], record):
      yield f'unequal data: {label} had other than {known[0][0]}: {other}'
  rows = [{run.data for run in side.runs.values()} - {''} for side in sides]
  # Between workdirs the records have said it.
  if not said and len(known) < len(sides) and all(rows) and len(set().union(*rows)) > 1:
    values = [', '.join(sorted(of)) for of in rows]
    yield f'unequal data: rows of training, by fingerprint: {_by_side(sides, values)}'
  for name in COUNTS:
    counts = [
      {run.values.get(name) for run in side.runs.values()} - {None} for side in sides
    ]
    if all(counts) and len(set().union(*counts)) > 1:
      values = [', '.join(f'{x:,.0f}' for x in sorted(of)) for of in counts]
      yield f'unequal data: {name} of validation: {_by_side(sides, values)}'


def _of_side(side: Side) -> Iterator[str]:
  for line in (*side.left_out, *side.notes):
    yield f'{side.label}: {line}'
  for row in side.rows:
    if row.at_the_edge:
      rate = '' if row.rate is None else f' {row.rate:g}'
      yield (
        f'{side.label}: its learning rate{rate} is at the edge of its grid in '
        f'{row.table}: a better one may lie beyond'
      )
  if side.example is None:
    yield f'{side.label}: none of its runs is recorded: its config is not known'
  if len({_but_for_seed(run) for run in side.runs.values()}) > 1:
    yield f'{side.label}: its runs differ in more than the seed'
  if lacking := [seed for seed, run in side.runs.items() if not run.curve]:
    yield f'{side.label}: no curve is recorded of {seeds_text(lacking)}'


def _of_places(sides: Sequence[Side]) -> Iterator[str]:
  kinds: tuple[tuple[str, Callable[[Recorded], str]], ...] = (
    ('commits', lambda run: run.short_commit),
    # Of one kind of CPU or another, pinned or not: that is no other device.
    ('devices', lambda run: 'cpu' if run.platform in ('', 'cpu') else run.device),
  )
  for title, of in kinds:
    found = [
      list(dict.fromkeys(of(run) or 'unknown' for run in side.runs.values()))
      for side in sides
    ]
    if len({place for places in found for place in places}) > 1:
      values = [', '.join(places) or 'none' for places in found]
      yield f'different {title}: {_by_side(sides, values)}'


def _of_shared_runs(sides: Sequence[Side]) -> Iterator[str]:
  first = sides[0]
  for other in sides[1:]:
    for seed, run in first.runs.items():
      if seed in other.runs and run is other.runs[seed]:
        yield (
          f'{first.label} and {other.label} share the run {run.fingerprint} of seed {seed}'
        )


def _of_pair(pair: dict[str, Any]) -> Iterator[str]:
  first, other = pair['sides']
  for one, two, seeds in zip((first, other), (other, first), pair['unused']):
    if seeds:
      them = 'them' if len(seeds) > 1 else 'it'
      yield f'{one}: {seeds_text(seeds)} not used, since {two} lacks {them}'
  if len(pair['seeds']) == 1:
    yield (
      f'{first} and {other} have one seed in common: nothing can be said of the spread'
    )
  for of in pair['values']:
    if lost := sorted(set(pair['seeds']) - set(of['seeds'])):
      yield (
        f'{of["name"]}: {seeds_text(lost)} of {first} or {other} without a finite value, '
        'not used'
      )


def _but_for_seed(run: Recorded) -> str:
  return key(dataclasses.replace(run.parsed, seed=0), run.revisions)


def _by_side(sides: Sequence[Side], values: Sequence[str]) -> str:
  return '; '.join(f'{side.label} {value}' for side, value in zip(sides, values))
