"""A small site: a table at two scales from a record by hand, and two measurements."""

import html.parser
import json

from elas_jax.catalogue import SYSTEMS, rows
from elas_jax.config.config import to_tree
from elas_jax.run.record import Record, Recorded, append, key, portable, read
from elas_jax.run.revisions import revisions
from elas_jax.tables.plan import Plan
from elas_jax.tables.site import write_site
from elas_jax.tables.site.index_page import Catalogue
from elas_jax.tables.table import RATE, Published, Rates, Row, Scale, Table
from experiments.language import LANGUAGE, METRICS, PROXY_LABEL

CATALOGUE = Catalogue(SYSTEMS, rows())
LABEL = '<b>&"'
SOURCE = 'A <source>'
FIXED = {RATE: 0.004}
PUBLISHED = {
  '60m': (Published(34.06, SOURCE, 'P'), Published(36.5, SOURCE, 'S')),
  '1b': (Published(15.56, SOURCE, 'P'),),
}
ROWS = [
  Row(LABEL, 'full', published=PUBLISHED),
  Row('low_rank', 'low_rank', FIXED),
  Row('lora', 'lora', FIXED),
  Row('elas', 'elas', FIXED),  # recorded before a revision
  Row('cola', 'cola', FIXED),  # never run
]
RATES = Rates(lambda method: (0.001, 0.002), slice(2), METRICS[0])
CONFIG = 'configs/default.py:{method}'
TABLE = Table(
  title='Rows <and> columns',
  rows=lambda at: ROWS,
  family=LANGUAGE,
  scales={
    'proxy': Scale(('proxy',), 2, CONFIG, {}, PROXY_LABEL, rates=RATES),
    'paper': Scale(('60m',), 1, CONFIG, {'train.steps': 900}, "the paper's scale"),
  },
  conclude=lambda entries: [f'<i>All</i> of `{len(entries)}` rows, arXiv 2605.03667.'],
)
# Bits per byte of each row, seed by seed; None: its loss was not finite at step 7.
BITS = {LABEL: (10.0, 12.0), 'low_rank': (9.0, 9.0), 'lora': (100.5, None), 'elas': (1, 1)}
SEARCHED = {0.001: 3.0, 0.002: 2.5}
# By hand: means, sample deviations, and sums of the sizes below.
SHOWN = {LABEL: '11.0000 ± 1.4142', 'low_rank': '9.0000 ± 0.0000'}
BENCHMARK = """# Times & <b>more</b>

Device: a chip. <script>alert(1)</script>

## matmul

| case | us |
| --- | ---: |
| a | 1,708.7 |
| b | 97.5 |
| c | - |
"""


def recorded(config, bits, **fields):
  size = {'parameters': 1_234_567, 'training_flops': 1.0}
  size |= {'parameter_bytes': 4_938_268, 'buffer_bytes': 0, 'optimizer_bytes': 1_000_000}
  names = ('bits_per_byte', 'perplexity', 'published_perplexity')
  values = {f'eval/{name}': n * bits for n, name in enumerate(names, 1)} if bits else {}
  finished = {'status': 'finished', 'values': values}
  diverged = {'status': 'diverged', 'step': 7}
  about = {'size': size, 'commit': 'a' * 40, 'device': 'cpu', 'seconds': 1234.5}
  about |= {'versions': {'jax': '0.11.2'}, 'revisions': revisions(config)}
  about |= diverged if bits is None else finished
  tree = portable(to_tree(config))
  return Recorded(fingerprint=key(config), config=tree, **about | fields)


def record(path):
  """First the search, by which the rates of rows are known."""
  searches = Plan(TABLE, 'proxy', Record(())).searches
  for rate, run in searches[0].grid.items():
    append(path, recorded(run.config, SEARCHED[rate]))
  for line in Plan(TABLE, 'proxy', Record(read(path))).lines:
    for run, bits in zip(line.runs, BITS.get(line.row.label, ())):
      more = {'revisions': ()} if line.row.label == 'elas' else {}
      if line.row.label == 'low_rank':
        more['curve'] = {'train/loss': [[0, 5.5], [50, None], [100, 1.25]]}
      append(path, recorded(run.config, bits, **more))
  paper = Plan(TABLE, 'paper', Record(())).lines[0]
  append(path, recorded(paper.runs[0].config, 11.5, device='NVIDIA H200', platform='gpu'))


def make(folder, output):
  """The site of all this; the record is made once."""
  results, measured = folder / 'results', folder / 'benchmarks'
  if not results.exists():
    (results / 'tables').mkdir(parents=True)
    record(results / 'runs.jsonl')
    (results / 'tables/made_proxy_fits.png').write_bytes(b'\x89PNG small')
    (results / 'tables/made_proxy_large.png').write_bytes(b'\x89PNG' + bytes(400_000))
    (results / 'tables/made_proxy_rates.png').write_bytes(b'\x89PNG drawn in the page')
    (measured / 'gpu/a_chip').mkdir(parents=True)
    (measured / 'gpu/a_chip/times.md').write_text(BENCHMARK)
    (measured / 'gpu/a_chip/times.json').write_text(json.dumps({'device': 'A Chip 9'}))
    (measured / 'gpu/a_chip/alone.json').write_text('{}')
  tables = {'made': TABLE, 'second': TABLE}
  return write_site(tables, results, measured, output, CATALOGUE)


class Page(html.parser.HTMLParser):
  """What a page holds; an element that is not closed, or twice, is an error."""

  def __init__(self, text):
    super().__init__()
    self.names, self.links, self.sources, self.ids = [], [], [], set()
    self.tables, self._open = [], []
    self.text = ''
    self.feed(text)
    assert not self._open, self._open

  def handle_starttag(self, tag, attributes):
    about = dict(attributes)
    self.names.append(tag)
    self.links += [about['href']] if tag == 'a' else []
    self.sources += [about[x] for x in ('src', 'href') if x in about and tag != 'a']
    if 'id' in about:
      assert about['id'] not in self.ids
      self.ids.add(about['id'])
    if tag == 'table':
      self.tables.append({'rows': [], 'caption': ''})
    elif tag == 'tr':
      self.tables[-1]['rows'].append([])
    elif tag in ('th', 'td'):
      self.tables[-1]['rows'][-1].append('')
    if tag not in ('meta', 'link', 'br', 'img', 'input', 'wbr'):
      self._open.append(tag)

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    self.text += data
    if 'svg' in self._open:
      return
    if 'caption' in self._open:
      self.tables[-1]['caption'] += data
    elif {'th', 'td'} & {*self._open}:
      self.tables[-1]['rows'][-1][-1] += data
