"""The site of results: its numbers, no markup by mistake, links, size, the same bytes."""

import pathlib
import re
import time

import pytest

from elas_jax.common.errors import UserError
from elas_jax.tables.render import sections
from elas_jax.tables.site import write_site
from experiments import report
from experiments.papers import RESULTS, names, table_of
from tests.tables.made_site import CATALOGUE, LABEL, SHOWN, TABLE, Page, make


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('made')


@pytest.fixture(scope='module')
def output(folder):
  make(folder, folder / 'one')
  return folder / 'one'


def page(output, name):
  return Page((output / f'{name}.html').read_text())


def markdown_tables(text):
  """Of the Markdown that the same record gives: lists of rows of cells."""
  found = []
  for block in re.findall(r'(?:^\|.*\n?)+', text, re.MULTILINE):
    rows = [line[2:-2].split(' | ') for line in block.strip().split('\n')]
    found.append([rows[0], *rows[2:]])
  return found


def check_numbers(text, html):
  """Each row of the Markdown tables is one of a table of the page, cell by cell."""
  own = [[' '.join(x.split()) for x in row] for of in html.tables for row in of['rows']]
  start = lambda row, n: [row[i] for i in range(n)]
  for _, *rows in markdown_tables(text):
    for row in rows:
      assert row in [start(x, len(row)) for x in own if len(x) >= len(row)], row


def test_numbers_are_those_of_the_markdown_tables_and_of_hand(folder, output):
  html = page(output, 'made')
  text = '\n'.join(x.markdown() for x in sections('made', TABLE, folder / 'results'))
  check_numbers(text, html)
  header, *rows = html.tables[0]['rows']
  column = next(n for n, name in enumerate(header) if name.startswith('bits per byte'))
  values = {row[0]: row[column] for row in rows}
  assert values == SHOWN | {
    'lora': '100.5000 (1 of 2 seeds, 1 diverged)',
    'elas': '-',
    'cola': '-',
  }
  assert rows[0][header.index('learning rate')] == '0.002 (at the edge)'
  assert rows[0][header.index('parameters + optimiser')] == '5.94 MB'
  last = {row[0]: row[header.index('non-finite loss')] for row in rows}
  assert last['cola'] == '2 not run yet'
  assert last['lora'] == 'seed 1 at step 7, none in 1 run'


def test_what_was_made_before_a_revision_is_named_and_not_shown(output):
  html = page(output, 'made')
  (runs,) = (x for x in html.tables if x['caption'] == 'Runs proxy')
  ((status, value),) = {(*row[3:5],) for row in runs['rows'] if row[0] == 'elas'}
  assert value == '-'
  assert status.startswith('not run again since revision ') and 'loro_step' in status
  assert 'Incomplete: 8 of 12 runs are done.' in html.text
  assert 'not known' not in html.text


def test_nothing_in_a_text_is_markup(output):
  html = page(output, 'made')
  assert not {'b', 'i', 'source', 'and'} & {*html.names}
  assert LABEL in {row[0] for of in html.tables for row in of['rows']}
  assert '<i>All</i> of 5 rows, arXiv 2605.03667.' in html.text
  assert 'https://arxiv.org/abs/2605.03667' in html.links
  measured = page(output, 'benchmark_gpu_a_chip_times')
  assert measured.names.count('script') == 1 and 'b' not in measured.names
  assert '<script>alert(1)</script>' in measured.text


def test_a_small_scale_is_named_beside_each_of_its_numbers(output):
  html = page(output, 'made')
  proxies = [x for x in html.tables if x['caption'].endswith(' proxy')]
  assert [x['caption'].split(' ')[0] for x in proxies] == ['Rows,', 'Learning', 'Runs']
  metrics = ('bits per byte', 'perplexity', 'perplexity, published convention')
  for of in proxies:
    known = [name.strip() for name in of['rows'][0] if name.startswith(metrics)]
    assert known and all(name.endswith(' proxy') for name in known)
  assert 'not comparable with a proxy value' in proxies[0]['rows'][0][1]
  rest = [x for x in html.tables if x not in proxies]
  assert rest and not any('proxy' in name for x in rest for name in x['rows'][0])
  index = page(output, 'index').tables[0]['rows']
  (row,) = (x for x in index if x[0].endswith('made') and x[1] == 'proxy')
  assert row[2] == '8 of 12' and row[3].startswith('proxy ')
  (row,) = (x for x in index if x[0].endswith('made') and x[1].startswith('paper'))
  assert row[1:3] == ['paper GPU', '1 of 5'] and row[4] == 'NVIDIA H200'


def test_published_values_are_ticks_where_they_are_comparable_alone(output):
  text = (output / 'made.html').read_text()
  before, after = text.split('<section id="paper">')
  assert 'class="published"' not in before
  assert after.count('class="published"') == 2  # of 60m; that of 1b is of another size


def test_curves_are_drawn_and_their_absence_is_said(output):
  text = (output / 'made.html').read_text()
  assert text.count('train/loss 5.5 at step 0, 1.25 at step 100') == 2  # label and title
  assert text.count('title="no curve recorded"') == 9  # 4 of 5 rows, and 5 at paper


def test_a_system_is_ticked_where_a_shown_run_has_it(output):
  (of,) = (x for x in page(output, 'index').tables if x['rows'][0][0] == 'system')
  ticked = {(row[1], row[0]): row[4] for row in of['rows'][1:]}
  shown = '✓ made, second'
  for system in (
    ('model.linear', 'dense'),
    ('model.linear', 'lora'),
    ('model.norm', 'rms'),  # by default
    ('optimizer', 'adamw'),
    ('data.tokenizer', 'bytes'),
  ):
    assert ticked[system] == shown, system
  for system in (
    ('model.linear', 'cola'),  # never run
    ('model.feed_forward', 'relu2_two_four'),  # before a revision
    ('optimizer', 'loro'),
    ('optimizer', 'sgd'),
  ):
    assert ticked[system] == '-', system


def check_links(output):
  """Each leads to a page or a place in one, or to a paper; nothing is loaded from afar."""
  pages = {path.name: Page(path.read_text()) for path in output.glob('*.html')}
  for name, of in pages.items():
    assert of.names.count('h1') == 1, name
    for source in of.sources:
      assert source == 'data:,' or (output / source).is_file(), (name, source)
    for address in of.links:
      if not address.startswith('https://arxiv.org/abs/'):
        file, _, place = address.partition('#')
        assert file in pages or not file, (name, address)
        assert not place or place in pages[file or name].ids, (name, address)
  return pages


def test_links_lead_somewhere(output):
  pages = check_links(output)
  assert {*pages} == {
    'index.html',
    'made.html',
    'second.html',
    'benchmark_gpu_a_chip_times.html',
  }
  assert 'gpu/a_chip/alone.json' in pages['index.html'].text
  made = pages['made.html']
  assert (
    'made_proxy_fits.png' in made.sources and 'made_proxy_rates.png' not in made.sources
  )
  assert re.search('Too large for this page: .*/tables/made_proxy_large.png', made.text)


def test_the_same_record_gives_the_same_bytes(folder, output):
  other = folder / 'other'
  site = make(folder, other)
  assert {*site.names} == {path.name for path in other.iterdir()}
  for path in sorted(other.iterdir()):
    assert path.read_bytes() == (output / path.name).read_bytes(), path.name
  assert site.size == sum(path.stat().st_size for path in other.iterdir())


def test_pages_of_before_go_and_those_of_others_stay(tmp_path):
  places = (tmp_path / 'results', tmp_path / 'none', tmp_path / 'site', CATALOGUE)
  write_site({'old': TABLE}, *places)
  assert 'Not run yet' in page(tmp_path / 'site', 'old').text
  write_site({'new': TABLE}, *places)
  found = {path.name for path in (tmp_path / 'site').glob('*.html')}
  assert found == {'index.html', 'new.html'}
  foreign = tmp_path / 'site/mine.html'
  foreign.write_text('<h1>My own</h1>')
  with pytest.raises(UserError, match='mine.html: is no page of a report'):
    write_site({'old': TABLE}, *places)
  assert (tmp_path / 'site/new.html').exists() and foreign.exists()


@pytest.mark.conformance
def test_the_whole_site(tmp_path, capsys):
  start = time.process_time()
  report.main([f'--output={tmp_path}'])
  assert time.process_time() - start < 30
  assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2_000_000
  assert f'open {tmp_path / "index.html"}' in capsys.readouterr().out
  pages = check_links(tmp_path)
  for name in names():
    found = sections(name, table_of(name), pathlib.Path(RESULTS))
    check_numbers('\n'.join(x.markdown() for x in found), pages[f'{name}.html'])
