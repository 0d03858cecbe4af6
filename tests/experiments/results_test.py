"""The committed result files: none shows what was made by code that was wrong."""

import functools
import json
import pathlib
import re

import pytest

from configs.methods import METHODS
from elas_jax.config.cli import load_config
from elas_jax.config.parsing import parse
from experiments import (
  learning_rates,
  report,
  result_files,
  runs,
  stored_configs,
  table1_perplexity,
)
from experiments.revisions import revisions
from experiments.runs import Setting

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / 'experiments/results'
FIELD = 'model.feed_forward.implementation'
# By hand: the optimiser LORO, restarts, GaLore's epsilon, LOST's start.
PUT_RIGHT = {'loro', 'loro_relu2', 'elas', 'relora', 'galore', 'lost'}
LANGUAGE = [
  'table1_perplexity',
  'table4_warmup',
  'table5_rules',
  'ablation_controls',
  'backward_recipes',
  'learning_rates',
]


def result_of(name):
  return json.loads((RESULTS / name / 'proxy.json').read_text())


@functools.cache
def trees():
  lines = (RESULTS / 'configs.jsonl').read_text().splitlines()
  return {entry['fingerprint']: entry['config'] for entry in map(json.loads, lines)}


def config_of(run):
  return stored_configs.stored(trees()[run['fingerprint']])


def test_methods_that_were_put_right_have_revisions(monkeypatch):
  monkeypatch.chdir(ROOT)
  for method in METHODS:
    config = parse(load_config(f'configs/default.py:{method}', []))
    assert bool(revisions(config)) == (method in PUT_RIGHT), method


@pytest.mark.parametrize('name', LANGUAGE)
def test_no_run_of_before_is_shown(name, monkeypatch):
  monkeypatch.chdir(ROOT)
  result = result_of(name)
  text = (RESULTS / name / 'proxy.md').read_text()
  assert report.markdown(result) == text
  for row in result['rows']:
    needs = revisions(config_of(row['runs'][0]))
    assert bool(needs) == (row['method'] in PUT_RIGHT)
    for run in row['runs']:
      if run['status'] != 'not run':
        assert run.get('revisions', []) == needs, row['label']
      elif 'before' in run:  # what was recorded is still there
        assert run['lacks'] and run['before']['values']['eval/bits_per_byte'] > 0
        shown = f'{run["before"]["values"]["eval/perplexity"]:.3f}'
        assert f'| {row["label"]} |' in text and shown not in text
    if needs and all(run['status'] == 'not run' for run in row['runs']):
      assert row['mean'] == {} and all('before' in run for run in row['runs'])


def test_recorded_runs_of_other_methods_are_still_known(tmp_path):
  chosen = {row['method']: row['learning_rate'] for row in result_of(LANGUAGE[0])['rows']}
  rates = tmp_path / 'proxy.json'
  summary = {method: {'learning_rate': rate} for method, rate in chosen.items()}
  rates.write_text(json.dumps({'summary': summary}))
  setting = Setting('proxy', (), tmp_path, rates)
  known = result_files.recorded(RESULTS / LANGUAGE[0] / 'proxy.json')
  of_file = result_files.runs_of_file(RESULTS / LANGUAGE[0] / 'proxy.json')
  for row in table1_perplexity.rows(setting, 'proxy'):
    run, made = setting.run(row, 'proxy', 0), of_file[row.label, 'proxy'][0]
    assert made['status'] == 'finished' or row.method in PUT_RIGHT
    assert (runs.fingerprint(run.config) in known) == (made['status'] == 'finished')


def test_runs_whose_products_were_forced_are_others(monkeypatch):
  monkeypatch.chdir(ROOT)
  bf16 = '--config.model.compute_dtype=bfloat16'
  known = {
    runs.fingerprint(parse(load_config('configs/default.py:elas', [bf16, *more])))
    for more in ([], *([f'--config.{FIELD}={x}'] for x in ('auto', 'xla', 'mosaic')))
  }
  assert len(known) == 3


def test_no_rate_is_chosen_by_runs_of_before():
  result = result_of('learning_rates')
  open_rows = [
    row for row in result['rows'] if any(run['status'] == 'not run' for run in row['runs'])
  ]
  again = {row['method'] for row in open_rows}
  assert set(result['summary']) == set(learning_rates.BASE) - again
  assert again <= PUT_RIGHT


def test_readme_shows_none_of_them():
  """The README's row of a method has the numbers of its table, or none."""
  text, rows = (ROOT / 'README.md').read_text(), result_of(LANGUAGE[0])['rows']
  for row in rows:
    (line,) = re.findall(rf'^\| {row["method"]} \|(.*)$', text, re.M)
    bits = row['mean'].get('eval/bits_per_byte')
    assert line.split('|')[0].strip().startswith(f'{bits:.4f} ±' if bits else '-')
