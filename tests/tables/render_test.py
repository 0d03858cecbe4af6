"""What a table says of its runs: means and spread, gaps, its page, files and figure."""

import dataclasses
import json
import math

import numpy as np
import pytest
from matplotlib import image

from elas_jax.common.errors import UserError
from elas_jax.run import record
from elas_jax.tables import asked, figures
from elas_jax.tables.entries import gap_lines, ranking
from elas_jax.tables.render import Section, render, write_list
from elas_jax.tables.table import RATE, Published, Row
from experiments.language import METRICS
from tests.tables.fakes import pair, plan_of, record_all, recorded

TWO = [Row('one', 'low_rank', {RATE: 0.5}), Row('two', 'full', {RATE: 0.25})]
BITS = {'one': (2.0, 2.2, 2.4), 'two': (1.9, 2.3, 2.1)}


def bits_of(run):
  return BITS[run.label][run.seed]


def stored(results, name):
  return json.loads((results / f'tables/{name}.json').read_text())['scales']


def made(runs=None, **fields):
  """A section of two rows without searches, and its runs."""
  table = pair(**{'rows': lambda at: TWO} | fields)
  runs = record_all(table, bits_of) if runs is None else runs
  return Section(plan_of(table, runs), 'pair'), runs


def test_mean_and_spread_by_hand():
  section, runs = made()
  one, two = section.entries
  assert one.mean['eval/bits_per_byte'] == pytest.approx(2.2)
  assert one.std['eval/bits_per_byte'] == pytest.approx(0.2)
  # By hand: the interval of three differences is t = 4.3027 times their deviation / 3^0.5.
  assert gap_lines([one, two], [('one', 'two')], METRICS) == [
    'one - two (proxy): bits per byte +0.1000 ± 0.2000; perplexity +1.000 ± 2.000; '
    'perplexity, published convention +0.500 ± 1.000 (paired, seeds 0, 1, 2). By bits per '
    'byte: no difference shown'
  ]
  # One seed that diverged is in neither mean, nor paired.
  first = next(line.runs[0].config for line in section.plan.lines if line.row == TWO[1])
  fallen = [x for x in runs if x.key != record.key(first)] + [recorded(first, None)]
  section, _ = made(fallen)
  two = section.entries[1]
  assert two.mean['eval/bits_per_byte'] == pytest.approx(2.2)
  assert two.shown(METRICS[0]) == '2.2000 ± 0.1414 (2 of 3 seeds, 1 diverged)'
  (line,) = gap_lines(section.entries, [('one', 'two')], METRICS[:1])
  assert line.endswith(
    '+0.1000 ± 0.2828 (paired, seeds 1, 2). By bits per byte: no difference shown; one '
    'alone has seed 0'
  )
  # A single run has no deviation; none has no mean.
  alone, _ = made([x for x in runs if x.parsed.seed == 0])
  assert alone.entries[0].std == {} and alone.entries[0].shown(METRICS[0]) == (
    '2.0000 (1 of 3 seeds)'
  )
  none, _ = made([])
  assert none.entries[0].mean == {} and none.entries[0].shown(METRICS[0]) == '-'
  (line,) = gap_lines(none.entries, [('one', 'two')], METRICS)
  assert line == 'one - two (proxy): not known, no seed has finished both'
  assert gap_lines(none.entries, [('one', 'three')], METRICS) == []


def test_a_difference_beyond_its_interval_is_not_called_none():
  table = pair(rows=lambda at: TWO)
  runs = record_all(table, lambda run: 2.0 + run.seed / 10 + (run.label == 'one'))
  section, _ = made(runs)
  (line,) = gap_lines(section.entries, [('one', 'two')], METRICS[:1])
  assert line.endswith(
    'By bits per byte: one is higher by 1.0000 (95 % interval 1.0000 to 1.0000)'
  )
  section, _ = made([x for x in runs if x.parsed.seed == 0])
  (line,) = gap_lines(section.entries, [('one', 'two')], METRICS[:1])
  assert line.endswith(
    '(paired, seed 0). By bits per byte: one seed: nothing can be said of the spread'
  )


def test_rankings_have_spread_and_size():
  section, _ = made()
  line = ranking(section.entries, ('eval/bits_per_byte', 'loss', 2), min)
  assert line == (
    'By mean loss (parameters): two 2.10 ± 0.20 (1,234,567), one 2.20 ± 0.20 (1,234,567); '
    'not shown to differ from the first: one.'
  )
  clear = record_all(pair(rows=lambda at: TWO), lambda run: 2.0 + (run.label == 'one'))
  section, _ = made(clear)
  assert ranking(section.entries, METRICS[0]).endswith('two 2.0000 ± 0.0000 (1,234,567).')
  section, _ = made([])
  assert ranking(section.entries, METRICS[0]).endswith(': ; without a value: one, two.')


def test_markdown_by_hand():
  cell = Published(34.12, 'ELAS', 'S'), Published(math.nan, 'ELAS', 'S', 0.5)
  rows = [dataclasses.replace(TWO[0], published={'60m': cell}), TWO[1]]
  table = pair(rows=lambda at: rows, notes=('a note',))
  lines = (
    Section(plan_of(table, record_all(table, bits_of)), 'pair').markdown().splitlines()
  )
  assert lines[0] == '## Proxy'
  assert lines[2].startswith("**PROXY, not the paper's scale: python_source (bytes), D 128")
  assert lines[4:8] == [
    '| row | published C4 perplexity | bits per byte | perplexity | perplexity, published '
    'convention | parameters | parameters + optimiser | learning rate | non-finite loss |',
    '|---|---|---|---|---|---|---|---|---|',
    '| one | 60m 34.12 [S], 60m NaN ± 0.50 [S] | 2.2000 ± 0.2000 | 22.000 ± 2.000 | 11.000 '
    '± 1.000 | 1,234,567 | 6.50 MB | 0.5 | none in 3 runs |',
    '| two | - | 2.1000 ± 0.2000 | 21.000 ± 2.000 | 10.500 ± 1.000 | 1,234,567 | 6.50 MB '
    '| 0.25 | none in 3 runs |',
  ]
  text = '\n'.join(lines)
  assert '- a note' in lines and '- Published: ELAS [S] for one.' in lines
  assert 'Incomplete' not in text and 'Learning rates' not in text
  assert lines[-1] == (
    'Made by `python -m experiments.run pair --scale=proxy`; runs at commit aaaaaaaaaaaa, '
    'on cpu, jax 0.0.'
  )
  # One run was continued by other code, which is not said twice.
  runs = record_all(table, bits_of)
  runs[1] = dataclasses.replace(runs[1], commit=f'{"a" * 40}, {"b" * 40}-modified')
  section = Section(plan_of(table, runs), 'pair')
  assert section.made.startswith('commit aaaaaaaaaaaa, bbbbbbbbbbbb-modified, on')
  section, _ = made([])
  assert '**Incomplete: 0 of 6 runs are done.**' in section.markdown()
  assert '| one | - | - | - | - | - | - | 3 not run yet |' in section.markdown()


def test_the_page_says_how_long_its_runs_took():
  section, runs = made()
  assert 'hours' not in section.markdown()  # none was timed
  took = [1800.0, 900.0, 0.0, 360.0, 540.0, 3600.0]
  timed = [dataclasses.replace(run, seconds=x) for run, x in zip(runs, took, strict=True)]
  section, _ = made(timed)
  said = ' Its 6 runs, searches included, took 2.00 hours, one after the other.'
  assert section.cost == said
  assert f'on cpu, jax 0.0.{said}\n' in section.markdown()
  section, _ = made([*timed[:5], runs[5]])
  assert '5 of its 6 runs, searches included, took 1.00 hours' in section.cost


def test_a_published_value_of_another_size_is_not_shown_at_its_own():
  cells = {'60m': (Published(30.0, 'S', 'P'),), '130m': (Published(20.0, 'S', 'P'),)}
  rows = [Row('one', 'full', published=cells)]
  section = Section(plan_of(pair(rows=lambda at: rows), scale='paper'), 'pair')
  shown = [[str(value) for _, value in section.published(x)] for x in section.entries]
  assert shown == [['30.00'], ['20.00'], [], []]
  assert '| one | 60m | 30.00 [P] |' in section.markdown()


def test_searches_stand_below_and_edges_beside_the_rate():
  bits = lambda run: 2 + run.config.optimizer.learning_rate
  table = pair()
  section = Section(plan_of(table, record_all(table, bits)), 'pair')
  text = section.markdown()
  assert '| 0.00025 (at the edge) | none in 3 runs |' in text
  assert 'better one may lie beyond: low_rank (0.00025), full (0.000125).' in text
  below = text.partition('### Learning rates (proxy)')[2]
  assert '50 % of the steps, seed 1000; the lowest bits per byte is taken.' in below
  assert below.count('(at the edge)') == 2 and '| low_rank at 0.004 | 2.0040 |' in below


def test_activations_are_a_column_where_a_row_has_them():
  metrics = (*METRICS[:1], ('activations/dropped_mass', 'dropped mass', 4))
  section, runs = made(metrics=metrics)
  assert section.metrics == list(METRICS[:1])
  more = lambda x: dataclasses.replace(
    x, values={**x.values, 'activations/dropped_mass': 1}
  )
  section, _ = made([more(run) for run in runs], metrics=metrics)
  assert section.metrics == list(metrics)


@pytest.fixture
def results(tmp_path, monkeypatch):
  monkeypatch.setattr(figures, 'plot', lambda section, path: path.write_text('figure'))
  table = pair(rows=lambda at: TWO)
  for run in record_all(table, bits_of):
    record.append(tmp_path / 'runs.jsonl', run)
  return tmp_path


def test_a_table_is_written_with_the_runs_of_its_rows(results):
  table = pair(rows=lambda at: TWO)
  (section,) = render('pair', table, results)
  assert section.done == (6, 6)
  assert (results / 'tables/pair_proxy.png').exists()
  text = (results / 'tables/pair.md').read_text()
  assert text.startswith('# A pair\n\n## Proxy\n')
  tree = stored(results, 'pair')['proxy']
  assert tree['done'] == [6, 6]
  names = {run.fingerprint: run.parsed for run in record.read(results / 'runs.jsonl')}
  for row, (seed, name) in ((r, x) for r in tree['rows'] for x in r['runs'].items()):
    assert names[name].seed == int(seed) and row['missing'] == []
    assert names[name].optimizer.learning_rate == row['rate']
  write_list(results)
  listed = (results / 'RESULTS.md').read_text()
  assert '| [pair](tables/pair.md): A pair | proxy | 6 of 6 | one - two (proxy): ' in listed
  write_list(results, ('What to know.',))
  above, below = (results / 'RESULTS.md').read_text().split('What to know.\n\n')
  assert above + below == listed and below.startswith('| table |')
  render('pair', table, results)
  assert (results / 'tables/pair.md').read_text() == text


def test_runs_of_before_are_said_and_kept_out(results):
  table = pair(rows=lambda at: [Row('one', 'galore', {RATE: 0.5})])
  runs = record_all(table, lambda run: 2.0)
  for run in runs:
    record.append(results / 'runs.jsonl', dataclasses.replace(run, revisions=()))
  (section,) = render('pair', table, results)
  text = section.markdown()
  assert '| one | - | - | - | 1,234,567 | 6.50 MB | - | 3 not run yet |' in text
  assert '- Not shown until they are made again: runs of one, made with epsilon' in text
  (row,) = stored(results, 'pair')['proxy']['rows']
  assert row['runs'] == {} and row['missing'] == [0, 1, 2]
  assert row['before']['0'] == [runs[0].fingerprint, ['galore_epsilon']]


def test_scales_are_rendered_as_they_were_asked_for(results):
  table, flags = pair(rows=lambda at: TWO), ('--config.model.layers=2',)
  asked.write(results, 'pair', 'proxy', asked.Asked(flags, 5))
  assert render('pair', table, results) == []  # none of those runs is recorded
  assert not (results / 'tables/pair.md').exists()
  (section,) = render('pair', table, results, plan_of(table, overrides=flags, seeds=5))
  assert section.done == (0, 10)
  assert section.command == (
    f'python -m experiments.run pair --scale=proxy {flags[0]} --seeds=5'
  )
  asked.write(results, 'pair', 'proxy', asked.Asked((), 2))
  (section,) = render('pair', table, results)
  assert section.done == (4, 4) and section.command.endswith('--seeds=2')
  (results / 'tables/pair.json').unlink()  # nothing is lost with it
  (section,) = render('pair', table, results)
  assert section.done == (4, 4)


def test_what_is_asked_for_is_kept_without_flags_of_no_number(tmp_path):
  flags = [
    '--config.model.layers=2',
    '--config.data.cache_dir=/x',
    '--config.model.layers=3',
  ]
  found = asked.overrides([*flags, '--config.data.batch_size=4'])
  assert found == ('--config.data.batch_size=4', '--config.model.layers=3')
  asked.write(tmp_path, 'a', 'proxy', asked.Asked(found, 5))
  asked.write(tmp_path, 'b', 'smoke', asked.Asked())
  assert asked.read(tmp_path, 'a', 'proxy') == (found, 5)
  assert (
    asked.read(tmp_path, 'a', 'paper') == asked.read(tmp_path, 'b', 'smoke') == ((), None)
  )
  before = (tmp_path / 'asked.json').stat().st_mtime_ns
  asked.write(tmp_path, 'a', 'proxy', asked.Asked(found, 5))
  assert (tmp_path / 'asked.json').stat().st_mtime_ns == before


@pytest.mark.parametrize(
  'text, words',
  [
    ('{"a"', ''),
    ('\0', ''),
    ('[]', 'must be table -> scale -> overrides and seeds'),
    ('{"a": 1}', 'must be table -> scale -> overrides and seeds'),
    ('{"a": {"b": null}}', 'a.b=None: must be overrides and seeds'),
    ('{"a": {"b": {"seeds": "3"}}}', "a.b.seeds='3': must be an integer of at least 1"),
    ('{"a": {"b": {"seeds": true}}}', 'a.b.seeds=True: must be an integer of at least 1'),
    ('{"a": {"b": {"seeds": 0}}}', 'a.b.seeds=0: must be an integer of at least 1'),
    ('{"a": {"b": {"overrides": 7}}}', 'a.b.overrides=7: must be a list of texts'),
    ('{"a": {"b": {"overrides": [7]}}}', r'a.b.overrides=\[7\]: must be a list of texts'),
  ],
)
def test_what_is_asked_for_in_another_form_is_named(tmp_path, text, words):
  (tmp_path / 'asked.json').write_text(text)
  for table in ('a', 'another'):
    with pytest.raises(UserError, match=f'asked.json: is damaged: {words}'):
      asked.read(tmp_path, table, 'b')


def test_json_has_no_numbers_that_are_not_finite(results):
  cell = {'60m': (Published(math.nan, 'ELAS', 'S'),)}
  table = pair(rows=lambda at: [dataclasses.replace(TWO[0], published=cell)])
  render('pair', table, results)
  assert 'NaN' not in (results / 'tables/pair.json').read_text()
  json.loads((results / 'tables/pair.json').read_text(), parse_constant=pytest.fail)


def test_the_figure_has_spreads_and_says_what_is_missing(tmp_path):
  """A row with a spread, one of a single run, and one without a value."""
  rows = [*TWO, Row('three', 'lora', {RATE: 0.5})]
  table = pair(rows=lambda at: rows)
  spread = {'one': (1.0, 2.0, 3.0), 'two': (2.0,), 'three': ()}
  runs = [
    recorded(run.config, spread[run.label][run.seed])
    for line in plan_of(table).lines
    for run in line.runs
    if run.seed < len(spread[run.label])
  ]
  pixels = {}
  for seeds in (1, 3):  # complete but for the third row, or not
    section = Section(plan_of(table, runs, seeds=seeds), 'pair')
    figures.plot(section, tmp_path / f'{seeds}.png')
    pixels[seeds] = image.imread(tmp_path / f'{seeds}.png')[..., :3]
  blue = np.abs(pixels[3] - np.array([0x1F, 0x77, 0xB4]) / 255).max(-1) < 0.05
  widths = [np.ptp(np.flatnonzero(line)) for line in blue if line.any()]
  assert max(widths) > 10 * min(widths)  # an error bar, and a point without
  assert not list(tmp_path.glob('*_rates.png'))


def test_a_figure_is_drawn_anew_where_something_else_is_in_it(tmp_path):
  path = tmp_path / 'pair.png'
  section, runs = made()
  figures.plot(section, path)
  first = path.stat().st_mtime_ns
  figures.plot(section, path)
  assert path.stat().st_mtime_ns == first
  section, _ = made(runs[:5])
  figures.plot(section, path)
  assert path.stat().st_mtime_ns > first
  path.write_text('damaged')
  figures.plot(section, path)
  assert image.imread(path).shape


@pytest.mark.conformance
def test_the_figure_of_rates_has_a_curve_for_each_search(tmp_path):
  table = pair()
  bits = lambda run: 2 + abs(run.config.optimizer.learning_rate - 1e-3)
  section = Section(plan_of(table, record_all(table, bits)), 'pair')
  figures.plot(section, tmp_path / 'pair.png')
  picture = image.imread(tmp_path / 'pair_rates.png')[..., :3]
  for colour in ((0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)):
    assert (np.abs(picture - np.array(colour) / 255).max(-1) < 0.05).sum() > 50
