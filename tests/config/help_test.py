"""--help: sections, kinds with a line each, fields with type, default and comment."""

import dataclasses

import pytest

from elas_jax import train
from elas_jax.catalogue import SYSTEMS
from elas_jax.common.errors import UserError
from elas_jax.config import config
from elas_jax.config.help import comments, help_on, sections

SECTIONS = [
  x
  for x in vars(config).values()
  if isinstance(x, type) and x.__module__ == config.__name__ and x is not config.Traits
]
KINDS = [
  pytest.param(kind, id=f'{section} {name}')
  for section, kinds in SYSTEMS.items()
  for name, kind in kinds.items()
]


def told(capsys, *arguments):
  train.main(list(arguments))
  return capsys.readouterr().out


def test_help_names_flags_and_sections(capsys):
  for flag in ('--help', '--help='):
    out = told(capsys, flag)
    for name in (
      '--workdir',
      '--dry_run',
      '--config.train.steps=100',
      '--help=model.linear',
    ):
      assert name in ' '.join(out.split())
  listed = set(out.partition('Sections:')[2].replace(',', ' ').split())
  own = {
    *('train', 'model', 'data', 'optimizer', 'schedule', 'mesh', 'checkpoint', 'eval'),
    *('model.linear', 'model.feed_forward', 'model.attention', 'model.norm'),
    *('model.position', 'model.architecture', 'model.activation', 'data.source'),
    *('data.tokenizer', 'train.objectives', 'train.preference', 'eval.measures'),
    *('model.mixers', 'model.feed_forwards'),
  }
  assert own <= listed
  assert set(sections()) == own


def test_kinds_with_a_line_each(capsys):
  lines = told(capsys, '--help=model.linear').splitlines()
  assert lines[0] == '--config.model.linear=KIND, one of'
  by_name = dict(line.split(None, 1) for line in lines[2:-2])
  assert len(by_name) == len(SYSTEMS['model.linear'])
  assert by_name['cola'] == 'y = silu(x A) B (CoLA, arXiv 2502.10940).'
  assert by_name['sltrain'].endswith('(SLTrain, arXiv 2406.02214).')
  assert lines[-1] == 'The fields of a kind: --help=model.linear.KIND'


def test_fields_of_a_kind(capsys):
  lora = told(capsys, '--help=model.linear.lora')
  assert [' '.join(line.split()) for line in lora.splitlines()] == [
    'y = x W + alpha / R (x A) B, W frozen (LoRA, arXiv 2106.09685; ReLoRA, 2307.05695).',
    '',
    'rank int = 128',
    'R; published, for pre-training: 128 at 60m, 256 to 350m, 512 at 1b',
    'alpha float = 32.0',
    'A B counts alpha / R',
    'merge_every steps or share of train.steps = 0',
    'ReLoRA: steps between merges, 5000 as published; 0: never',
  ]
  galore = told(capsys, '--help=optimizer.galore')
  assert galore.startswith(
    'Adam whose moments live in a subspace of the gradients (GaLore,'
  )
  for line in (
    '  learning_rate          float = 0.01',  # a field that all optimisers have
    '  rank                   int = 128',
    '  every                  steps or share of train.steps = 200',
    '                           steps between new subspaces',
  ):
    assert line in galore.splitlines()


def test_choices_and_sections_inside_of_kinds():
  text = help_on('model.feed_forward.relu2_two_four')
  assert 'one of top2, mvue, soft_weights, soft_activations' in text
  assert 'how to prune, and how to go back; default: top2' in text
  assert "auto|xla|mosaic = 'auto'" in text
  # By the path that an override has, or with the kind in it.
  short, long = 'model.feed_forward.recipe', 'model.feed_forward.relu2_two_four.recipe'
  assert help_on(short) == help_on(long)
  assert help_on(short).startswith('--config.model.feed_forward.recipe=KIND, one of\n')
  assert 'micro-batches between estimates' in help_on(f'{short}.soft_activations')


def test_sections_that_differ_by_task():
  language, rows, pairs = help_on('data.source').split('\n\ntask=')
  assert language.startswith('task=language: --config.data.source=KIND, one of')
  assert rows.startswith('classification or regression: --config.data.source=KIND, one of')
  assert 'text_files' in language and 'digits' not in language
  assert 'digits' in rows and 'text_files' not in rows
  assert pairs.startswith('preference: --config.data.source=KIND, one of')
  assert 'vocab_size' in help_on('model') and 'input_shape' in help_on('model')
  # One text where they do not.
  assert not help_on('model.linear').startswith('task=')
  assert help_on('model.architecture.vit').startswith('A vision transformer')


def test_fields_of_a_plain_section():
  eval_ = help_on('eval').splitlines()
  assert eval_[0] == 'Evaluations during training, and the sample at its end.'
  at = eval_.index('  units                  int = 0')
  assert eval_[at + 1].strip() == (
    'validation tokens (of rows: examples), in whole batches; 0 = all'
  )


@pytest.mark.parametrize(
  'path, said',
  [
    (
      'modle',
      "--help=modle: there is no 'modle' in a config; did you mean model? acc",
    ),
    (
      'model.linaer',
      "--help=model.linaer: there is no 'linaer' in model; did you mean li",
    ),
    (
      'model.linear.loar',
      "model.linear='loar': did you mean 'lora'? must be one of 'c",
    ),
    (
      'model.linear.alpha',
      '--help=model.linear.alpha: is a field, not a section; --help=model.linear.lora has',
    ),
    (
      'model.linear.lora.rank.x',
      "--help=model.linear.lora.rank.x: there is no 'x' in model.linear.lora.rank; acc",
    ),
    ('model.architecture.vti', "model.architecture='vti': did you mean 'vit'? must be one"),
    (
      'data.source.digits.validation_share',
      '--help=data.source.digits.validation_share: is a field, not a section; ',
    ),
    ('train.steps', '--help=train.steps: is a field, not a section; --help=train has it'),
    ('seed', '--help=seed: is a field, not a section; --help lists sections'),
    ('a..b', "--help=a..b: there is no 'a' in a config; accepted: task, train, "),
  ],
)
def test_wrong_ones_are_one_line(path, said, capsys):
  with pytest.raises(UserError) as error:
    train.main([f'--help={path}'])
  assert str(error.value).startswith(said)
  assert '\n' not in str(error.value)
  assert capsys.readouterr().out == ''


@pytest.mark.parametrize('kind', [*KINDS, *SECTIONS])
def test_every_field_has_a_comment(kind):
  """Sections of a config say in their own docstring what they are."""
  found = comments(kind)
  for field in dataclasses.fields(kind):
    if not dataclasses.is_dataclass(field.default):
      assert found.get(field.name), field.name


@pytest.mark.parametrize('section', SYSTEMS)
def test_every_kind_has_help(section):
  path, kinds = section.partition(' (')[0], SYSTEMS[section]
  listed = help_on(path)
  for name, kind in kinds.items():
    assert f'\n  {name} ' in listed
    text = help_on(f'{path}.{name}')
    for field in dataclasses.fields(kind):
      assert f'\n  {field.name} ' in text


def test_comments_are_those_of_the_source():
  assert (
    comments(config.CheckpointConfig)['every'] == 'steps; the last step is always saved'
  )
  assert comments(config.TrainConfig)['compilation_cache'] == (
    "Folder of compiled programs, kept between runs; '' = off."
  )
  assert comments(config.DataConfig)['max_bad_share'].endswith(
    'what they have lost is unknown.'
  )
  assert comments(config.DataConfig)['tokenizer'] == 'of text and prompts'
