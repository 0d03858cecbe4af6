"""Workdirs that look like those of finished runs, for comparisons: nothing is trained."""

import dataclasses
import json
import pathlib

from elas_jax.config.config import Config, to_json
from tests.conftest import ROOT

RESULTS = ROOT / 'tests/fixtures/results'
COMMIT = 40 * 'a'


def write_workdir(
  folder: pathlib.Path, config: Config, seed: int, final: float, **given
) -> pathlib.Path:
  """A run whose eval/loss falls to `final`; `given`: steps done, commit, device, values."""
  config = dataclasses.replace(config, seed=seed)
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text(to_json(config))
  about = {'commit': given.get('commit', COMMIT), 'device': given.get('device', 'cpu')}
  about['platform'] = given.get('platform', 'cpu')
  lines = [{'run': about}]
  for step in range(1, given.get('steps', config.train.steps) + 1):
    left = config.train.steps - step
    lines.append({'step': step, 'train/loss': final + 0.5 * left, 'train/grad_norm': 1.0})
    if step % config.eval.every == 0:
      loss = final + 0.4 * left
      values = {'eval/loss': loss, 'eval/bits_per_byte': 1.4 * loss, 'eval/tokens': 512}
      lines.append({'step': step} | values | given.get('values', {}))
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (folder / 'metrics.jsonl').write_text(text)
  return folder
