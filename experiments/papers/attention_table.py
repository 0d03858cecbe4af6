"""Attention that shares keys, has fewer queries, or keeps latents: quality, FLOPs, cache.

  python -m experiments.run attention_table --scale=proxy --workers=2

Decoders that differ in attention alone, SwiGLU, by AdamW at the rate of mha (table 1's
full, of which the search is):

  mha                     8 heads of 8
  gqa, mqa                the same queries, 2 heads of keys and values, and 1
  ssqa, sqa, xsqa, xsmqa  4 queries and 4 keys, 4 and 2, 2 and 2, 2 and 1
  mla                     a latent of D / 4 and a rotated key of K / 2, as PLM has them, and
                          8 heads of it
  mla_query               the same with queries from a latent 3 times as wide
  mha_qk_norm             mha with RMSNorm of queries and keys
  gqa_on, transmla,       gqa trained on for a tenth of the steps: as it is, as the MLA that
  transmla_small          it equals (TransMLA, arXiv 2502.07864), and as one with a rotated
                          key and a latent of D / 4

Reproduces: SQA's comparison of attention (arXiv 2510.01817, dense models of 12 million on
Wikipedia: D 256, N 8, heads of 16): its order of losses, by Kendall's tau. Parameters are
not equal, there as here. Times are those of benchmarks/attention_decode.py.
Hardware: proxy two CPU cores, estimated at 40 minutes, 39 runs.
"""

import dataclasses
from typing import Any

import jax

from elas_jax.common.memory import tree_bytes
from elas_jax.config.config import Config
from elas_jax.models.decoder import empty_cache
from elas_jax.systems.converters.gqa_to_mla import GQAToMLA
from elas_jax.tables.agreement import gate
from elas_jax.tables.entries import Entry, gap_lines
from elas_jax.tables.plan import At
from elas_jax.tables.table import RATE, Metric, Published, Row, Table
from experiments.language import LANGUAGE, METRICS, scales
from experiments.looks import START

AT_START: Metric = ('start/bits_per_byte', 'bits per byte at the start', 4)
SOURCE = 'SQA, arXiv 2510.01817'
# Losses of its dense models; heads of queries and of keys stand in its rows.
LOSSES = {
  'mha': 1.1976,
  'gqa': 1.2177,
  'mqa': 1.2497,
  'sqa': 1.2272,
  'ssqa': 1.2201,
  'xsqa': 1.2428,
  'xsmqa': 1.2815,
}
FURTHER = ('gqa_on', 'transmla', 'transmla_small')
PUBLISHED = {name: Published(loss, SOURCE, 'R') for name, loss in LOSSES.items()}


def kinds(width: int, heads: int) -> dict[str, dict[str, Any]]:
  """Row -> kind of attention, and its fields."""
  K = width // heads
  latent = {
    'heads': heads,
    'kv_rank': width // 4,
    'nope_size': K,
    'rope_size': K // 2,
    'value_size': K,
  }
  shared = {'heads': heads}
  return {
    'mha': {'kind': 'mha', **shared},
    'gqa': {'kind': 'gqa', **shared, 'kv_heads': heads // 4},
    'mqa': {'kind': 'mqa', **shared},
    'sqa': {'kind': 'sqa', **shared, 'query_heads': heads // 2, 'kv_heads': heads // 4},
    'ssqa': {'kind': 'ssqa', **shared},
    'xsqa': {'kind': 'xsqa', **shared},
    'xsmqa': {'kind': 'xsmqa', **shared},
    'mla': {'kind': 'mla', **latent},
    'mla_query': {'kind': 'mla', **latent, 'query_rank': 3 * width // 4},
    'mha_qk_norm': {'kind': 'mha', **shared, 'qk_norm': True},
  }


def rows(at: At) -> list[Row]:
  width, rate, where = at.config('full').model.width, Row('full', 'full'), 'model.attention'
  found = []
  for name, fields in kinds(width, heads=8).items():
    kind = {where: fields['kind']}
    kind |= {f'{where}.{field}': x for field, x in fields.items() if field != 'kind'}
    published = {'dense': (PUBLISHED[name],)} if name in PUBLISHED else {}
    found.append(Row(name, 'full', kind, published, rate_of=rate))
  return found + converted(at, found[1].fields)


def converted(at: At, gqa: dict[str, Any]) -> list[Row]:
  """A run of gqa at 4e-3 trained on: as it is, and as two kinds of MLA."""
  start = Row('gqa_start', 'full', gqa | {RATE: 4e-3})
  config = at.plan.config(start, at.size)
  steps = max(config.train.steps // 10, 2)
  short = {RATE: 1e-3, 'train.steps': steps, 'eval.every': steps}
  found = [Row('gqa_on', 'full', gqa | short, after=start, look=START)]
  small = GQAToMLA(rope_heads=1, kv_rank=config.model.width // 4)
  for label, converter in {'transmla': GQAToMLA(), 'transmla_small': small}.items():
    kind = dataclasses.asdict(converter.kind(converter.sizes(config)))
    fields = {'model.attention': 'mla'}
    fields |= {f'model.attention.{name}': x for name, x in kind.items()}
    flags = (f'--converter.{n}={x}' for n, x in dataclasses.asdict(converter).items())
    made = ' '.join(['gqa_to_mla', *flags])
    row = Row(label, 'full', fields | short, after=start, converter=made, look=START)
    found.append(row)
  return found


def cells(config: Config, entry: Entry) -> dict[str, str]:
  cache = jax.eval_shape(lambda: empty_cache(config.model, 1, 1))
  numbers = sum(x.size for x in jax.tree.leaves(cache))
  flops = entry.size_of.get('training_flops')
  return {
    'kFLOP a token, training': f'{flops / 1e3:.0f}' if flops else '-',
    'cached numbers a token and layer': f'{numbers / config.model.layers:.0f}',
    'cache, bytes a token': f'{tree_bytes(cache):,}',
  }


def first(entries: list[Entry]) -> list[str]:
  return gate(entries, list(LOSSES), {'12M': PUBLISHED}, METRICS[0], 'mha')


def conclude(entries: list[Entry]) -> list[str]:
  labels = [x.label for x in entries]
  pairs = [(label, 'mha') for label in labels[1:] if label not in FURTHER]
  pairs += [('transmla', 'gqa_on'), ('transmla_small', 'gqa_on')]
  pairs += [('ssqa', 'gqa'), ('mla', 'gqa'), ('mla_query', 'mla')]
  return gap_lines(entries, pairs, METRICS[:1])


TABLE = Table(
  title='Attention: heads, shared keys, fewer queries, latents',
  rows=rows,
  family=dataclasses.replace(LANGUAGE, published='published loss, 12M', compared=''),
  scales=scales(paper=()),
  metrics=(*METRICS[:2], AT_START),
  cells=cells,
  first=first,
  conclude=conclude,
  notes=(
    'All rows have the learning rate that was found for full of table 1, which is mha with '
    '4 heads of 16: none has a search of its own.',
    'Cache: float32 numbers that decoding keeps of a token, of all layers. FLOPs are those '
    'of forward and backward of one token, by the convention of PaLM. Seconds of decoding '
    'are measured by benchmarks.attention_decode.',
    'Bits per byte at the start: of a run of gqa at the rate 4e-3, as it is or as the '
    'converter made it, before it is trained on. These rows have had more tokens than the '
    'others.',
    'Of so many differences about one in twenty has an interval without zero by chance.',
  ),
)
