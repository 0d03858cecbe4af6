"""A table of two runs whose training only writes the files that it would leave."""

import json

from elas_jax.config.config import to_json
from elas_jax.systems.feed_forwards.mlp import MLP
from experiments import harness, report, runs
from experiments.runs import Row, Setting

PAIR = harness.Experiment(
  name='pair',
  title='A pair',
  rows=lambda setting, size: [
    Row('one', 'elas'),
    Row('two', 'low_rank_relu2'),
    Row('three', 'elas', problem='cannot be run'),
  ],
  conclude=lambda entries: report.gaps(entries, (('one', 'two'),)),
)


def setting_of(folder, *overrides, scale='smoke'):
  return Setting(scale, overrides, folder / 'runs', folder / f'{scale}.json')


def flags_of(folder, *more):
  own = [f'--runs={folder / "runs"}', f'--results={folder / "results"}']
  corpus = ['source=text_files', f'source.path={folder / "corpus"}']
  data = [*corpus, f'cache_dir={folder / "cache"}']
  return [
    '--scale=smoke',
    *own,
    *(f'--config.data.{flag}' for flag in (*data, 'processes=1')),
    '--config.train.compilation_cache=',
    *more,
  ]


def result_in(folder, name='pair'):
  return json.loads((folder / f'results/{name}/smoke.json').read_text())


def values(bits):
  return {
    'eval/loss': 1.0,
    'eval/bits_per_byte': bits,
    'eval/perplexity': 10 * bits,
    'eval/published_perplexity': 5 * bits,
  }


def fake_training(monkeypatch):
  """Replaces the training by the files it would leave; returns the workdirs in order."""
  trained = []

  def fake(config, workdir):
    trained.append(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / 'config.json').write_text(to_json(config))
    bits = 2.0 + config.seed / 5 + isinstance(config.model.feed_forward, MLP) / 10
    lines = [{'run': {'commit': 'c' * 40, 'device': 'cpu'}}, {'step': 5, 'train/loss': 1.0}]
    lines.append({'step': config.train.steps} | values(bits))
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    (workdir / 'metrics.jsonl').write_text(text)

  monkeypatch.setattr(runs, 'train', fake)
  monkeypatch.setattr(report, 'plot', lambda *_: None)  # half a second for each
  return trained
