"""PLM's training at a small size: schedule and data phases, then fine-tuning, then pairs.

  python -m experiments.run plm_proxy --scale=proxy --workers=2

Decoders of configs/plm.py:tiny (latent attention, squared ReLU, tied embeddings):

  wsdc_phases, cosine_phases  pre-trained with two phases of data, whose second begins where
                              WSDC decays: 0.7 modules and 0.3 packages, then 0.2 and 0.8
  wsdc_mixed, cosine_mixed    with as many rows of each in all, mixed from the start
  sft_1, sft_2                wsdc_phases fine-tuned on questions with checkable answers,
                              then on harder ones and on refinements of wrong answers
  pairs                       sft_2 by DPO on pairs that a rule makes: right and wrong
  aries_1, aries_2            sft_2 by DPO on pairs of its own answers and refinements, that
                              the rule has chosen; then the same with those of aries_1
  nll                         aries_1 with a beta of 1e-6: the NLL of chosen answers alone
  sft_more                    sft_2 fine-tuned on, by about as many tokens as a round of DPO

All four pre-trained rows are evaluated on the validation files of both sources. Rewards are
those of held-out questions of the harder kind, answered with the likeliest tokens;
preference accuracy is that on held-out pairs of right and wrong answers.
Reproduces: no table. PLM (arXiv 2503.12167) names the phases, not their sizes, and reports
that ARIES after two phases of fine-tuning adds 9 % at GSM8K.
Hardware: proxy two CPU cores, estimated at 45 minutes, 33 runs.
"""

import dataclasses
import json
import pathlib
import shutil
import sysconfig
from typing import Any

import jax

from elas_jax.config import schema
from elas_jax.data import chat, refinement, rules
from elas_jax.pairs import main as make_pairs
from elas_jax.reward import answers, rewards
from elas_jax.run.workdir import open_run
from elas_jax.tables.entries import Entry, gap_lines
from elas_jax.tables.plan import At
from elas_jax.tables.table import MADE, RATE, Look, Made, Metric, Row, Table
from experiments.language import LANGUAGE, METRICS, scales

BASE, BETA = 'configs/plm.py:tiny', 'train.preference.beta'
FIRST, SECOND = {'modules': 0.7, 'packages': 0.3}, {'modules': 0.2, 'packages': 0.8}
SWITCH = 0.7  # of the steps: where WSDC decays, and where the second phase begins
QUESTIONS = 200  # held out, of which the reward is
ASKED = 1_000  # of a round of pairs
LINES = 6_000  # of a phase of fine-tuning
MORE = 770  # steps of sft_more: of 16 rows, about as many tokens as a round of DPO reads
# Of a phase of fine-tuning: rules, and sizes of numbers and words.
PHASES = {
  'sft_1': ('addition,copy', 2, 3),
  'sft_2': ('addition,copy,reverse', 2, 4),
}
REWARD: Metric = ('reward/all', 'reward', 3)
ACCURACY: Metric = ('eval/accuracy', 'preference accuracy', 4)


def library(start: pathlib.Path | None, folder: pathlib.Path, seed: int) -> None:
  """The modules and the packages of the interpreter's library, less its codecs."""
  own = pathlib.Path(sysconfig.get_path('stdlib'))
  for name, pattern in (('modules', '*.py'), ('packages', '[a-df-r]*/*.py')):
    for path in sorted(own.glob(pattern)):
      to = folder / name / path.relative_to(own)
      to.parent.mkdir(parents=True, exist_ok=True)
      shutil.copyfile(path, to)


def questions(phase: str) -> Made:
  """Of a phase, and of them refinements and pairs of a right and a wrong answer."""
  names, digits, letters = PHASES[phase]
  sizes = [f'--rules={names}', f'--digits={digits}', f'--letters={letters}']
  sizes += [f'--count={LINES}', '--validation=300']

  def make(start: pathlib.Path | None, folder: pathlib.Path, seed: int) -> None:
    rules.main([f'--output={folder / "rules"}', f'--seed={seed}', *sizes])
    for split in ('train', 'validation'):
      lines = f'--input={folder / "rules" / split}.jsonl'
      refinement.main([lines, f'--output={folder / split}', f'--seed={seed}'])

  return Made(f'plm_{phase}', make)


def own_pairs(start: pathlib.Path | None, folder: pathlib.Path, seed: int) -> None:
  """Pairs of what the run that is trained on says; for evaluation those of the rule."""
  questions('sft_2').of(None, folder, seed)
  source, output = folder / 'rules/train.jsonl', folder / 'own/pairs.jsonl'
  output.parent.mkdir()
  flags = [f'--workdir={start}', f'--prompts={source}', f'--output={output}']
  make_pairs([*flags, f'--count={ASKED}', f'--seed={seed}'])


def held_out_rewards(workdir: pathlib.Path) -> dict[str, float]:
  """By rule and of all, of questions of the second phase that no run was trained on."""
  names, digits, letters = PHASES['sft_2']
  counts = {'train': 0, 'validation': QUESTIONS}
  lines = rules.lines(names.split(','), counts, digits, letters, seed=0)['validation']
  asked = [json.loads(line)['messages'][0]['content'] for line in lines]
  run = open_run(workdir, None, {'eval.batch_size': jax.device_count()})
  prompts = [chat.asked(question, run.tokenizer) for question in asked]
  replies = answers(run, prompts, tokens=64, batch_size=QUESTIONS)
  return {name: mean for name, (mean, _) in rewards(asked, replies).items()}


LIBRARY = Made('plm_library', library)
OWN_PAIRS = Made('plm_pairs', own_pairs)
LOOK = Look('reward', held_out_rewards)


def rows(at: At) -> list[Row]:
  first = pretrained('wsdc_phases', 'wsdc', phases=True)
  base = at.plan.config(first, at.size)
  # At smoke scale the model is smaller than that of the file.
  model = {path: x for path, x, _ in schema.leaves(base.model, 'model.')}
  tuned = fine_tuned('sft_1', first, model)
  again = fine_tuned('sft_2', tuned, model)
  ruled = questions('sft_2'), f'{MADE}/train/pairs.jsonl'
  # What has been trained for ten steps says nothing right, so that it has no pairs.
  own = ruled if at.scale == 'smoke' else (OWN_PAIRS, f'{MADE}/own')
  aries = preferred('aries_1', again, model, *own)
  return [
    first,
    pretrained('cosine_phases', 'cosine', phases=True),
    pretrained('wsdc_mixed', 'wsdc', phases=False),
    pretrained('cosine_mixed', 'cosine', phases=False),
    tuned,
    again,
    fine_tuned('sft_more', again, model, 0 if at.scale == 'smoke' else MORE),
    preferred('pairs', again, model, *ruled),
    aries,
    preferred('aries_2', aries, model, *own),
    dataclasses.replace(aries, label='nll', fields=aries.fields | {BETA: 1e-6}),
  ]


def pretrained(label: str, schedule: str, phases: bool) -> Row:
  shown = lambda shares: ','.join(f'{name}={x:g}' for name, x in shares.items())
  of = [f'{name}=text_files:{MADE}/{name}' for name in FIRST]
  whole = {name: SWITCH * x + (1 - SWITCH) * SECOND[name] for name, x in FIRST.items()}
  both = f'{shown(FIRST)} | {SWITCH:g}: {shown(SECOND)}'
  fields = {
    RATE: 4e-3,
    'data.source': 'mixture',
    'data.source.sources': ','.join(of),
    'data.source.phases': both if phases else shown(whole),
    'schedule': schedule,
    'schedule.warmup_steps': 0.05,
    'schedule.final_fraction': 0.1,
  }
  if schedule == 'wsdc':
    fields |= {'schedule.decay_steps': 0.2, 'schedule.constant_steps': 0.1}
  return Row(label, 'plm', fields, config=BASE, made=LIBRARY)


def fine_tuned(label: str, after: Row, model: dict[str, Any], steps: int = 0) -> Row:
  phase = 'sft_1' if label == 'sft_1' else 'sft_2'
  name = 'rules/{}' if phase == 'sft_1' else '{}/sft'
  fields = model | {
    RATE: 1e-3 if phase == 'sft_1' else 3e-4,
    'data.sequence_length': 128,
    'data.source.path': f'{MADE}/{name.format("train")}.jsonl',
    'data.source.validation_path': f'{MADE}/{name.format("validation")}.jsonl',
    'data.source.counted': 'answers' if phase == 'sft_1' else 'last',
  }
  if steps:
    fields |= {'train.steps': steps}
  config = f'configs/sft.py:{phase[-1]}'
  return Row(
    label, 'plm', fields, config=config, after=after, made=questions(phase), look=LOOK
  )


def preferred(label: str, after: Row, model: dict[str, Any], made: Made, path: str) -> Row:
  fields = model | {
    RATE: 1e-4,
    'data.sequence_length': 128,
    'data.source.path': path,
    'data.source.validation_path': f'{MADE}/validation/pairs.jsonl',
  }
  config = 'configs/preference.py'
  return Row(label, 'plm', fields, config=config, after=after, made=made, look=LOOK)


def conclude(entries: list[Entry]) -> list[str]:
  bits = [
    ('wsdc_phases', 'cosine_phases'),
    ('wsdc_mixed', 'cosine_mixed'),
    ('wsdc_phases', 'wsdc_mixed'),
    ('cosine_phases', 'cosine_mixed'),
  ]
  after = [(label, 'sft_2') for label in ('sft_more', 'pairs', 'aries_1', 'aries_2')]
  told = [('sft_2', 'sft_1'), *after, ('aries_2', 'aries_1')]
  told += [('aries_1', x) for x in ('sft_more', 'nll')]
  return [
    *gap_lines(entries, bits, METRICS[:1]),
    *gap_lines(entries, told, [REWARD]),
    *gap_lines(entries, [('aries_1', 'pairs')], [ACCURACY]),
  ]


TABLE = Table(
  title='PLM in small: schedule and data phases, fine-tuning, preferences',
  rows=rows,
  family=LANGUAGE,
  scales=scales(config=BASE, paper=()),
  metrics=(METRICS[0], REWARD, ACCURACY),
  conclude=conclude,
  notes=(
    'Bits per byte: of pre-trained rows of the validation files of both sources, of '
    'fine-tuned ones of the answers to held-out questions.',
    f'Reward: the share of {QUESTIONS} held-out questions that a run answers right by its '
    'likeliest tokens. Preference accuracy: the share of held-out pairs of a right and a '
    'wrong answer, direct and refined, in which training has moved the run towards the '
    'right one, from where it began.',
    'Held-out pairs are of the sort that pairs is trained on, not of that of aries_1.',
    'DPO rows have the NLL of the chosen answers in their loss as well, by 1 (configs/'
    'preference.py), so that what the comparison adds is aries_1 - nll.',
    'Learning rates are the one of each config; none was searched.',
  ),
)
