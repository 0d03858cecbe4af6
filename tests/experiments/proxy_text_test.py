"""The table of two protocols: which runs it has, and what it says of their orders."""

import dataclasses
import pathlib

import pytest

from elas_jax.run.record import Record
from elas_jax.tables.render import Section
from experiments import papers, run
from experiments.papers import proxy_text
from tests.tables.fakes import plan_of, recorded

TABLE = proxy_text.TABLE
ORDER = ('full', 'loro', 'elas', 'galore', 'low_rank')  # as published at 130m, but for loro


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
  monkeypatch.chdir(pathlib.Path(run.__file__).parents[1])


def test_the_runs_by_bytes_are_those_of_table_1():
  def keys(table, size):
    plan = plan_of(table)
    lines = [x for x in plan.lines if x.size == size and x.row.method in proxy_text.METHODS]
    return {(x.label, x.key) for x in plan.todo(lines)}

  own = keys(TABLE, 'proxy')
  assert own == keys(papers.table_of('table1_perplexity'), 'proxy')
  assert len(own) == 15  # three rates each
  other = keys(TABLE, 'proxy_text')
  assert {label for label, _ in other} == {label for label, _ in own}
  assert not {key for _, key in other} & {key for _, key in own}


def test_the_protocol_of_text():
  plan = plan_of(TABLE, overrides=['--config.optimizer.learning_rate=0.5'])
  by = {(x.row.label, x.size): x.config for x in plan.lines}
  for method in proxy_text.METHODS:
    text, of_bytes = by[method, 'proxy_text'], by[method, 'proxy']
    assert text.model == dataclasses.replace(
      of_bytes.model, vocab_size=4096, feed_forward=text.model.feed_forward
    )
    assert text.data.protocol == 'document' and text.data.tokenizer.label().endswith('json')
    assert (text.data.batch_size, text.data.sequence_length) == (16, 128)
    assert text.train.steps == text.eval.every == 1250
    assert text.eval == dataclasses.replace(of_bytes.eval, every=1250)
  # Periods are the same shares of the run.
  assert by['elas', 'proxy_text'].model.feed_forward.dense_steps == 125
  assert by['loro', 'proxy_text'].optimizer.exact_every == 250
  assert by['galore', 'proxy_text'].optimizer.every == 125


def test_a_smoke_run_needs_no_corpus():
  configs = [x.config for x in plan_of(TABLE, scale='smoke').lines]
  assert len(configs) == 10
  for config in configs:
    assert config.data.source.label() == 'python_source'
    assert config.data.tokenizer.label() == 'bytes'
  assert {x.data.protocol for x in configs} == {'document', 'packed'}


def test_tau_by_hand():
  one = dict(zip('abcde', (1.0, 2.0, 3.0, 4.0, 5.0)))
  said = lambda other: proxy_text.tau_line('x', one, other)
  assert said({k: 7 * v for k, v in one.items()}) == (
    "x: Kendall's tau +1.00 over 5 methods; turned: no pair."
  )
  # Of six pairs one is turned: (5 - 1) / 6.
  assert said({'a': 1, 'c': 4, 'd': 3, 'e': 9, 'z': 0}) == (
    "x: Kendall's tau +0.67 over 4 methods; turned: c and d."
  )
  assert said({'a': 3, 'b': 2, 'c': 1}).endswith(
    '-1.00 over 3 methods; turned: a and b, a and c, b and c.'
  )


def concluded(bits, data='abc'):
  """By (protocol, method) -> bits per byte, with a spread of 0.01 over three seeds."""
  flags = ['--config.optimizer.learning_rate=0.5']
  plan = plan_of(TABLE, overrides=flags)
  runs = [
    recorded(
      one.config,
      bits[line.size, line.row.label] + 0.01 * (one.seed - 1) * ORDER.index(line.row.label),
      versions={'jax': '0', 'python': '3.14.1'},
      data=data,
    )
    for line in plan.lines
    if (line.size, line.row.label) in bits
    for one in line.runs
  ]
  return TABLE.conclude(Section(plan.by(Record(runs)), 'a').entries), runs


def test_what_it_says_of_two_orders():
  text = {('proxy_text', x): 2.0 + 0.2 * i for i, x in enumerate(ORDER)}
  # Here galore is best, by far, and elas before loro, by nothing.
  of_bytes = {('proxy', x): 1.0 + 0.2 * i for i, x in enumerate(ORDER)}
  of_bytes |= {('proxy', 'galore'): 0.5, ('proxy', 'elas'): 1.199}
  said, runs = concluded(text | of_bytes)
  assert said[:6] == [
    "proxy_text beside proxy: Kendall's tau +0.20 over 5 methods; turned: full and galore, "
    'galore and loro, galore and elas, loro and elas.',
    'Turned, and shown to differ by both: full and galore, galore and loro, galore and '
    'elas.',
    # 34.06, 34.12, 34.88, 78.18: in that order.
    "proxy_text beside published values at 60m: Kendall's tau +1.00 over 4 methods; "
    'turned: no pair.',
    "proxy beside published values at 60m: Kendall's tau +0.33 over 4 methods; turned: "
    'full and galore, galore and elas.',
    # loro 24.59, elas 24.80, full 25.08, galore 25.36, low_rank 45.51.
    "proxy_text beside published values at 130m: Kendall's tau +0.60 over 5 methods; "
    'turned: full and loro, full and elas.',
    "proxy beside published values at 130m: Kendall's tau -0.20 over 5 methods; turned: "
    'full and galore, full and loro, full and elas, galore and loro, galore and elas, loro '
    'and elas.',
  ]
  assert said[6].startswith('proxy_text: By mean bits per byte (parameters): full 2.0000')
  assert said[7].startswith('proxy: By mean bits per byte (parameters): galore 0.5000')
  assert said[8:] == [
    'Rows of proxy_text: fingerprint abc (of train, as text_corpus prints it), by Python '
    '3.14.1.'
  ]
  assert runs


def test_what_it_says_before_all_runs_are_there():
  text = {('proxy_text', x): 2.0 + 0.2 * i for i, x in enumerate(ORDER)}
  some = {key: x for key, x in text.items() if key[1] not in ('loro', 'elas')}
  assert concluded(some)[0] == [
    'Order of methods by proxy_text: not known, no value of loro, elas.'
  ]
  said, _ = concluded(text | {('proxy', 'full'): 1.0}, data='')
  assert [x.partition(':')[0] for x in said] == [
    'proxy_text beside published values at 60m',
    'proxy_text beside published values at 130m',
    'proxy_text',
    'proxy',
    'Rows of proxy_text',
  ]
  assert 'fingerprint not recorded' in said[-1]


def test_runs_on_other_rows_are_said_not_to_be_comparable():
  text = {('proxy_text', x): 2.0 + 0.2 * i for i, x in enumerate(ORDER)}
  _, runs = concluded(text)
  runs[4] = dataclasses.replace(runs[4], data='other')
  plan = plan_of(TABLE, runs, overrides=['--config.optimizer.learning_rate=0.5'])
  assert Section(plan, 'a').text[0] == (
    'NOT comparable: trained on different data, abc (full, low_rank, galore, loro, elas); '
    'other (low_rank).'
  )
