"""Rows that start from others, with converters between and looks after, in real runs."""

import json
import shutil

import pytest

from elas_jax.common.errors import UserError
from elas_jax.run import record
from elas_jax.tables import figures
from experiments import run
from tests.experiments.run_test import flags_of

CHAIN = """
from elas_jax.run.workdir import open_run
from elas_jax.tables.table import MADE, RATE, Look, Made, Row, Table
from experiments.language import LANGUAGE, METRICS, scales

def size(workdir):
  found = open_run(workdir, None, {})
  return {'steps': found.step, 'dense': type(found.config.model.linear).__name__ == 'Dense'}

SLOW = 'optimizer.embedding_rate'
FIRST = Row('first', 'low_rank', {RATE: 1e-2})
FIELDS = {RATE: 1e-9, SLOW: 1e-9, 'model.feed_forward': 'glu'}
LOOK = Look('look', size)

def write(start, folder, seed):
  step = open_run(start, None, {}).step
  lines = [f'def {name}(x): return x + {seed + step}\\n' * 30 for name in 'abcdefgh']
  for number, text in enumerate(lines):
    (folder / f'{number}.txt').write_text(text)

OWN = Made('own', write)
MERGED = Row('merged', 'full', FIELDS, after=FIRST, converter='merge', look=LOOK)
READ = FIELDS | {'data.source': 'text_files', 'data.source.path': MADE}
READER = Row('reader', 'full', READ, after=MERGED, made=OWN)

TABLE = Table(
  title='A chain',
  rows=lambda at: [MERGED] if at.scale == 'smoke' else [READER],
  family=LANGUAGE,
  scales=scales(),
)
"""


@pytest.fixture
def flags(monkeypatch, tmp_path):
  monkeypatch.setattr(figures, 'plot', lambda *_: None)
  (tmp_path / 'corpus').mkdir()
  for number in range(40):
    text = f'def function_{number}(x):\n  return x + {number}\n' * 12
    (tmp_path / f'corpus/{number}.txt').write_text(text)
  given = flags_of(tmp_path)
  (tmp_path / 'pair.py').write_text(CHAIN)
  return given


@pytest.mark.conformance
def test_a_chain_of_runs(flags, tmp_path, capsys):
  run.main(flags)
  first, merged = record.read(tmp_path / 'results/runs.jsonl')
  assert merged.values['look/steps'] == 10 and merged.values['look/dense'] == 1
  # At a rate that changes nothing it is what the first one was, made dense.
  loss = first.values['eval/loss']
  assert merged.values['eval/loss'] == pytest.approx(loss, rel=1e-4) and loss < 5.4
  assert str(tmp_path) not in json.dumps(merged.config['restore'])
  page = (tmp_path / 'results/tables/pair.md').read_text()
  assert '| merged |' in page and '| first |' not in page
  run.main(flags)
  assert len(record.read(tmp_path / 'results/runs.jsonl')) == 2
  # In a clone that has the record alone a further row makes again what it starts from.
  (tmp_path / 'pair.py').write_text(CHAIN.replace('RATE: 1e-9', 'RATE: 1e-8'))
  shutil.rmtree(tmp_path / 'runs')
  run.main(flags)
  assert 'first, seed 0: trained, to start from' in capsys.readouterr().out
  *_, again = record.read(tmp_path / 'results/runs.jsonl')
  assert again.values['eval/loss'] == pytest.approx(loss, rel=1e-4)
  # Another look at a finished run trains nothing.
  looked = CHAIN.replace('RATE: 1e-9', 'RATE: 1e-8').replace("Look('look'", "Look('other'")
  (tmp_path / 'pair.py').write_text(looked)
  capsys.readouterr()
  run.main(flags)
  assert 'first step after' not in capsys.readouterr().out
  *_, other = record.read(tmp_path / 'results/runs.jsonl')
  assert other.fingerprint == again.fingerprint
  assert other.values.keys() >= {'look/steps', 'other/steps'}
  assert other.seconds == again.seconds


@pytest.mark.conformance
def test_a_look_that_fails_names_the_file(flags, tmp_path):
  text = CHAIN.replace('  found = open_run(workdir, None, {})\n', "  raise KeyError('x')\n")
  (tmp_path / 'pair.py').write_text(text)
  with pytest.raises(UserError, match=r'pair\.py: line \d+: KeyError'):
    run.main(flags)
  assert len(record.read(tmp_path / 'results/runs.jsonl')) == 1


@pytest.mark.conformance
def test_files_are_made_for_a_run_from_what_it_starts_from(flags, tmp_path):
  """Without a path of this machine in the record, so that a clone finds the run."""
  (tmp_path / 'pair.py').write_text(CHAIN.replace('[MERGED] if', '[READER] if'))
  of_corpus = [x for x in flags if not x.startswith('--config.data.source')]
  lines = (tmp_path / 'corpus/0.txt').read_text()
  run.main([*of_corpus, '--config.model.vocab_size=257'])
  *_, last = record.read(tmp_path / 'results/runs.jsonl')
  assert last.config['data']['source']['path'] == '{made}'
  (folder,) = (tmp_path / 'runs/smoke/made').iterdir()
  assert folder.name.startswith('own-seed0-') and len(list(folder.iterdir())) == 8
  assert '+ 10' in (folder / '0.txt').read_text() not in lines
  assert str(tmp_path) not in json.dumps(last.config)
  count = len(record.read(tmp_path / 'results/runs.jsonl'))
  shutil.rmtree(tmp_path / 'runs')
  run.main([*of_corpus, '--config.model.vocab_size=257'])
  assert len(record.read(tmp_path / 'results/runs.jsonl')) == count == 3
