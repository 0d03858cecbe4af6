"""Every number has a limit: a field is taken or refused by name, whatever it is given."""

import os
import pathlib
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings

from elas_jax import convert, evaluate, generate
from elas_jax.common.errors import UserError
from elas_jax.common.limits import LARGEST_FLOAT, SMALLEST_FLOAT, check_float, shown
from elas_jax.config.cli import load_config
from elas_jax.config.parsing import parse
from elas_jax.data import prepare, train_tokenizer
from tests.common.absurd import (
  KINDS,
  NUMBERS,
  TEXTS,
  WRITABLE,
  leaves,
  like,
  numbers,
  replaced,
  texts,
)

ROOT = pathlib.Path(__file__).parents[2]
# Of every command, and what else it needs to get as far as its numbers; nothing is there.
FLAGS = [
  (evaluate, ['--workdir=absent'], '--step --tokens --batch_size'),
  (
    generate,
    ['--workdir=absent'],
    '--step --tokens --temperature --top_p --seed',
  ),
  (
    convert,
    ['--workdir=absent', '--output=absent', '--converter=extend_grid'],
    '--step --converter.grid',
  ),
  (
    prepare,
    ['--source=text_files', '--path=absent', '--cache_dir=absent'],
    '--sequence_length --processes --validation_share --max_bad_share',
  ),
  (
    train_tokenizer,
    ['--source=text_files', '--path=absent', '--cache_dir=absent', '--output=absent'],
    '--vocab_size --validation_share --max_bad_share',
  ),
]


def check_parsed(kind, tree, name, number):
  """Parsed, or refused in one line that is not too long and names the field."""
  try:
    parse(replaced(tree, name, like(leaves(tree)[name], number)))
  except UserError as error:
    message = str(error)
    assert name.removesuffix('.kind') in message, (kind, name, message)
    assert '\n' not in message and len(message) < 2000, (kind, name, message)


@pytest.mark.parametrize('kind', KINDS)
@settings(max_examples=6, deadline=None)
@example(10**5000)
@example(10**400)
@example(2**31)
@example(1e300)
@given(number=numbers)
def test_every_field_takes_or_refuses_a_number(kind, number):
  tree = KINDS[kind]().to_dict()
  for name in leaves(tree):
    check_parsed(kind, tree, name, number)


@pytest.mark.chaos
@pytest.mark.parametrize('kind', KINDS)
def test_every_field_takes_or_refuses_every_number(kind):
  tree = KINDS[kind]().to_dict()
  for name in leaves(tree):
    for number in NUMBERS:
      check_parsed(kind, tree, name, number)


def check_override(name, text):
  try:
    parse(load_config(str(ROOT / 'configs/default.py'), [f'--config.{name}={text}']))
  except UserError as error:
    message = str(error)
    assert name in message, (name, text, message)
    assert len(message) < 2000, (name, text, message)


# A field of every type.
TYPED = (
  'model.width',
  'optimizer.epsilon',
  'model.tied_head',
  'optimizer.decay_rules',
  'profile_steps',
)


@settings(max_examples=12, deadline=None)
@example('-' * 20000 + '1')
@example('9' * 5000)
@example('(' * 50000)
@given(text=texts)
def test_an_override_takes_or_refuses_a_text(text):
  for name in TYPED:
    check_override(name, text)


@pytest.mark.chaos
@pytest.mark.parametrize('name', TYPED)
def test_an_override_takes_or_refuses_every_text(name):
  for text in TEXTS:
    check_override(name, text)


def check_flag(module, rest, flag, text):
  """Refused by the flag's name or, if it can be, for what is absent."""
  with pytest.raises(UserError) as error:
    module.main([*rest, f'{flag}={text}'])
  message, field = str(error.value), flag.removeprefix('--')
  assert field in message or 'absent' in message, (flag, text, message)
  assert len(message) < 2000, (flag, text, message)


@pytest.mark.parametrize(
  'module, rest, flag',
  [(module, rest, flag) for module, rest, flags in FLAGS for flag in flags.split()],
  ids=lambda value: getattr(value, '__name__', None) or str(value),
)
@settings(max_examples=6, deadline=None)
@example('9' * 5000)
@example('nan')
@example(str(10**30))
@given(text=texts.filter(lambda text: '\0' not in text))
def test_a_flag_takes_or_refuses_a_text(module, rest, flag, text):
  check_flag(module, rest, flag, text)


@pytest.mark.parametrize(
  'value',
  [1e39, 3.4028236e38, float('inf'), float('nan'), 10**400, -(10**39)],
)
def test_what_is_infinite_in_float32_is_refused(value):
  with np.errstate(over='ignore'):
    assert value == 10**400 or not np.isfinite(np.float32(value))
  with pytest.raises(UserError, match='^x=.*: must be finite, at most 3.402823e.38'):
    check_float('x', value)


@pytest.mark.parametrize('value', [1e-60, -1e-300, 5e-324, 1e-39])
def test_what_is_zero_in_float32_is_refused(value):
  import jax.numpy as jnp

  assert jnp.float32(value) * 1 == 0  # as a device computes, without denormal numbers
  with pytest.raises(UserError, match='^x=.*: must be 0 or at least 1.175494e-38'):
    check_float('x', value)


def test_the_limits_of_float32_are_its_own():
  info = np.finfo(np.float32)
  assert (info.max, info.tiny) == (LARGEST_FLOAT, SMALLEST_FLOAT)
  for value in (0, 1, -1, LARGEST_FLOAT, -LARGEST_FLOAT, SMALLEST_FLOAT):
    check_float('x', value)


@pytest.mark.parametrize(
  'value, text',
  [
    (12, '12'),
    ('a', "'a'"),
    (10**5000, '<an integer of 5001 digits>'),
    ((-(10**5000),), '(<an integer of 5001 digits>,)'),
  ],
  ids=['integer', 'text', 'long', 'within'],
)
def test_values_are_shown(value, text):
  assert shown(value) == text


def test_long_values_are_shown_short():
  nested = ()
  for _ in range(100_000):
    nested = (nested,)
  for value in ('x' * 10**6, list(range(10**6)), {n: n for n in range(1000)}, nested):
    assert len(shown(value)) < 200


@pytest.mark.chaos
def test_commands_end_in_one_line_or_well(capsys):
  """Random fields and values through the real command; seconds each."""
  seed = int(os.environ.get('CHAOS_SEED', random.randrange(10**6)))
  draw = random.Random(seed)
  for _ in range(int(os.environ.get('CHAOS_RUNS', 40))):
    kind = draw.choice(list(KINDS))
    name, old = draw.choice(list(leaves(KINDS[kind]().to_dict()).items()))
    own = [x for x in WRITABLE if isinstance(x, type(old)) or isinstance(old, tuple)]
    values = [str(like(old, draw.choice(own or WRITABLE))) for _ in range(3)]
    text = draw.choice([*values, draw.choice(TEXTS)])
    flags = [f'--config={kind}', f'--config.{name}={text}', '--dry_run']
    done = subprocess.run(
      [sys.executable, '-m', 'elas_jax.train', *flags],
      capture_output=True,
      text=True,
      timeout=300,
      cwd=ROOT,
      env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    )
    with capsys.disabled():
      print(f'\n{kind} {name}={text[:40]}: {done.returncode} {done.stderr[:160].strip()}')
    told = (seed, kind, name, text[:200], done.returncode, done.stderr[-2000:])
    assert done.returncode in (0, 2), told
    assert 'Traceback' not in done.stderr, told
    if done.returncode:
      assert name.removesuffix('.kind') in done.stderr, told
      assert done.stderr.count('\n') == 1, told
