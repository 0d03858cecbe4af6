"""Generation: the cache against none, the nucleus against NumPy, and the command."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from elas_jax.common.errors import UserError
from elas_jax.config.config import ModelConfig
from elas_jax.data.tokenizers import BytesTokenizer, HuggingFaceTokenizer
from elas_jax.generate import main
from elas_jax.models import sampling
from elas_jax.models.decoder import Decoder
from elas_jax.models.sampling import continuation, generate, in_nucleus, sample
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.linears import LINEARS
from tests.conftest import thinned
from tests.programs import init_variables, jit_logits

GREEDY = {'temperature': 0.0, 'top_p': 1.0, 'seed': 0}
# Of 15 bytes, as `LONG[:-1] + 'bcd'`. Calls of three prompts of which the longest has as
# many share a program.
LONG = 'Zoë drinks 水'


@pytest.fixture(scope='module')
def wild(trained):
  """(model, variables) whose logits are far apart, so that rounding decides nothing."""
  config, _ = trained
  variables = init_variables(config)
  params = variables['params']
  params['embedding'] = params['embedding'] * 50
  params['head'] = params['head'] * 20
  return config.model, variables


def without_cache(model, variables, prompt, length, first=(256,)):
  """The greedy ids behind `prompt`, each from a pass over everything before it."""
  ids = [*first, *prompt.encode()]
  start = len(ids)
  apply = lambda tokens: jit_logits(model, variables, tokens, None)
  for _ in range(length):
    # Padded, or every length would be compiled; no token sees what is behind it.
    padded = ids + [7] * (24 - len(ids))
    ids.append(int(np.argmax(apply(jnp.asarray([padded]))[0, len(ids) - 1])))
  new = ids[start:]
  return new[: new.index(256)] if 256 in new else new


def test_greedy_equals_passes_without_a_cache(wild):
  prompts = ['ab', '', LONG]
  expected = [
    BytesTokenizer().decode(without_cache(*wild, prompt, 5)) for prompt in prompts
  ]
  assert len(set(expected)) == 3
  # Together, though the lengths differ, and alone, as when no prompt is given.
  assert generate(*wild, BytesTokenizer(), prompts, length=5, **GREEDY) == expected
  assert (
    generate(*wild, BytesTokenizer(), prompts[1:2], length=5, **GREEDY) == expected[1:2]
  )


# Layers alike and in a cycle; dense and low-rank maps.
SPARSE = {
  'mlp': {'linear': LINEARS['low_rank'](4)},
  'two_four': {'feed_forward': FEED_FORWARDS['relu2_two_four'](dense_steps=0)},
  'cycle': {
    'feed_forward': FEED_FORWARDS['glu'](ACTIVATIONS['relu']()),
    'feed_forwards': (FEED_FORWARDS['mlp'](),),
    'pattern': 'attention,attention+mlp',
    'layers': 4,
  },
}


@pytest.mark.parametrize('name', thinned(SPARSE, 'mlp'))
def test_passing_over_zeros_changes_nothing(name):
  sizes = {'width': 16, 'layers': 2, 'feed_forward_width': 64, 'init_std': 0.5}
  model = ModelConfig(**sizes | {'linear': LINEARS['dense']()} | SPARSE[name])
  tokens = jnp.zeros((1, 4), jnp.int32)
  variables = jax.jit(Decoder(model).init)(jax.random.key(0), tokens)
  given = model, variables, BytesTokenizer(), ['ab']
  texts = [
    generate(*given, length=12, **GREEDY, skip_zeros=how) for how in ('never', 'always')
  ]
  assert texts[0] == texts[1] != ['']


def test_zeros_are_passed_over_where_asked(monkeypatch, wild):
  """By 'always'; by 'auto' not in a small model, nor where several devices are."""
  seen = []
  monkeypatch.setattr(
    sampling, '_fill', lambda *given, **rest: seen.append(rest['skip_zeros']) or given[2]
  )
  for how in ('always', 'never', 'auto'):
    generate(*wild, BytesTokenizer(), ['ab'], length=3, **GREEDY, skip_zeros=how)
  assert seen == [True, False, False]
  monkeypatch.setattr(sampling, 'LEAST_ENTRIES', 1)
  assert not sampling.pays(wild[0], 1)
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  assert sampling.pays(wild[0], 1) and not sampling.pays(wild[0], 2)
  silu = dataclasses.replace(wild[0], feed_forward=FEED_FORWARDS['glu']())
  assert not sampling.pays(silu, 1)


def test_what_cannot_pass_over_zeros_says_why(wild):
  ask = lambda model, prompts: generate(
    model, wild[1], BytesTokenizer(), prompts, length=3, **GREEDY, skip_zeros='always'
  )
  with pytest.raises(UserError, match="skip_zeros='always': .* with 2 prompts"):
    ask(wild[0], ['a', 'b'])
  silu = dataclasses.replace(wild[0], feed_forward=FEED_FORWARDS['glu']())
  with pytest.raises(UserError, match='no feed-forward of it has activations'):
    ask(silu, ['a'])
  cola = dataclasses.replace(wild[0], linear=LINEARS['cola'](4))
  with pytest.raises(UserError, match='no plain products'):
    ask(cola, ['a'])


def test_documents_of_their_own_start_behind_nothing(wild):
  prompts = ['ab', '', LONG]
  firsts = ((), (256,), ())  # an empty one has to start with something
  expected = [
    BytesTokenizer().decode(without_cache(*wild, prompt, 5, first))
    for prompt, first in zip(prompts, firsts)
  ]
  options = {'length': 5, 'behind_end': False} | GREEDY
  assert generate(*wild, BytesTokenizer(), prompts, **options) == expected
  assert generate(*wild, BytesTokenizer(), prompts, length=5, **GREEDY) != expected


def test_stops_before_the_end_of_the_document(wild):
  """Weights by which each of a, b, c, d, end names the next one, whatever came before."""
  model, variables = wild
  chained = chain_of(model, variables, [*b'abcd', 256])
  prompts = ['b', '', LONG[:-1] + 'bcd']
  texts = generate(model, chained, BytesTokenizer(), prompts, length=5, **GREEDY)
  assert texts == ['cd', 'abcd', '']
  options = {'length': 5, 'stops': (ord('d'),)} | GREEDY
  texts = generate(model, chained, BytesTokenizer(), prompts, **options)
  assert texts == ['c', 'abc', '']


def test_seed_decides_the_text(wild):
  options = {'length': 5, 'temperature': 10.0, 'top_p': 1.0}
  prompts = ['ab', '', LONG]
  text = lambda seed: generate(*wild, BytesTokenizer(), prompts, seed=seed, **options)
  assert text(1) == text(1)
  assert text(1) != text(2)


def chain_of(model, variables, chain):
  """Variables by which each token of the chain names the next one, the last the first."""
  params = variables['params']
  params = params | {'layers': jax.tree.map(jnp.zeros_like, params['layers'])}
  embedding = np.array(params['embedding'])
  head = np.zeros_like(params['head'])
  for number, (token, following) in enumerate(zip(chain, [*chain[1:], chain[0]])):
    embedding[token] = np.eye(model.width)[number]
    head[number, following] = 1.0
  params |= {'embedding': jnp.asarray(embedding), 'head': jnp.asarray(head)}
  return {'params': params, 'buffers': {}}


def test_space_between_prompt_and_continuation_is_kept(wild):
  """Of words that carry their space in front, as SentencePiece writes them."""
  words = ['\u2581hello', '\u2581big', '\u2581world', '</s>', '<unk>']
  vocabulary = {word: number for number, word in enumerate(words)}
  tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, '<unk>'))
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
  tokenizer.decoder = tokenizers.decoders.Metaspace()
  tokenizer.add_special_tokens(['</s>'])
  model, variables = wild
  chained = chain_of(model, variables, [3, 0, 1, 2])
  ours = HuggingFaceTokenizer(tokenizer.to_str(), 'metaspace')
  expected = {
    'hello': ' big world',
    'hello big': ' world',
    '': 'hello big world',
    'world': '',
  }
  texts = generate(model, chained, ours, list(expected), length=9, **GREEDY)
  assert texts == list(expected.values())
  # What comes behind tokens, as a chat template gives them, is a text of its own.
  ids = [np.array(row) for row in ([3, 0], [3, 0, 1], [3], [2])]
  texts = generate(model, chained, ours, ids, length=9, **GREEDY)
  assert texts == ['big world', 'world', 'hello big world', '']


def test_decoder_that_changes_the_prompt_gives_the_new_text_alone():
  class Joins:
    decode = staticmethod(lambda ids: ' '.join(['it', "'", 's'][i] for i in ids))

  class Cleans:
    decode = staticmethod(lambda ids: Joins.decode(ids).replace(" ' ", "'"))

  assert continuation(Joins, [0, 1], [2]) == ' s'
  assert continuation(Cleans, [0, 1], [2]) == 's'  # "it '" and then "it's"


@pytest.mark.parametrize('prompt', ['\ud800', 'a\udcff', '\udcc3(', '\U0001f600\udc80'])
def test_prompt_that_is_no_text_is_refused(wild, prompt):
  with pytest.raises(UserError, match='^prompt=.*is not Unicode text'):
    generate(*wild, BytesTokenizer(), ['fine', prompt], length=1, **GREEDY)


def test_prompt_of_a_terminal_that_is_not_utf8(wild):
  """Python hands over bytes that the locale cannot read as half surrogates."""
  as_read = LONG.encode().decode('ascii', 'surrogateescape')
  prompts = [LONG, as_read, '']
  texts = generate(*wild, BytesTokenizer(), prompts, length=5, **GREEDY)
  assert texts[0] == texts[1] != texts[2]


def test_sample_of_the_config_is_checked_before_training(make_config):
  with pytest.raises(UserError, match='^eval.prompt=.*is not Unicode text'):
    make_config(**{'eval.prompt': 'a\ud800'})


@pytest.mark.parametrize('top_p', [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0])
@pytest.mark.parametrize('exponent', [0.0, 1.1, 2.0, 3.0])
def test_nucleus_of_a_long_tail(top_p, exponent):
  """50,000 tokens whose probabilities fall slowly, against float64."""
  p = np.arange(1, 50_001, dtype=np.float64) ** -exponent
  p /= p.sum()
  before = np.cumsum(p) - p
  expected = int((before < float(np.float32(top_p))).sum()) if top_p < 1 else len(p)
  rounded = jax.nn.softmax(jnp.asarray(np.log(p), jnp.float32)[None])  # as sample has them
  kept = np.asarray(in_nucleus(rounded, jnp.float32(top_p)))[0]
  assert not np.any(np.diff(kept.astype(int)) > 0)  # the first ones, without a gap
  assert abs(int(kept.sum()) - expected) <= (0 if top_p == 1 else 0.002 * expected + 1)


def test_nucleus_is_never_empty():
  for p in ([1.0], [0.5, 0.5], [1 / 3] * 3, [1e-5] * 100_000):
    kept = in_nucleus(jnp.asarray([p], jnp.float32), jnp.float32(1e-7))
    assert kept[0, 0]


def draw(logits, *, temperature, top_p, count):
  """Relative frequency of each token among `count` samples from the same logits."""
  rows = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (count, len(logits)))
  tokens = sample(jax.random.key(0), rows, jnp.float32(temperature), jnp.float32(top_p))
  return np.bincount(tokens, minlength=len(logits)) / count


@pytest.mark.parametrize('temperature', [0.7, 1.0, 1.5])
@pytest.mark.parametrize('top_p', [0.3, 0.8, 1.0])
def test_samples_follow_the_renormalised_nucleus(temperature, top_p):
  logits = np.random.default_rng(5).normal(size=7) * 1.5
  p = np.exp(logits / temperature)
  p /= p.sum()
  order = np.argsort(-p)
  count = int(np.searchsorted(np.cumsum(p[order]), top_p)) + 1
  nucleus = order[: min(count, 7)]
  expected = np.zeros(7)
  expected[nucleus] = p[nucleus] / p[nucleus].sum()
  found = draw(logits, temperature=temperature, top_p=top_p, count=20_000)
  assert set(np.nonzero(found)[0]) <= set(nucleus)
  # Five standard deviations of a share of 20000 draws are below 0.018.
  np.testing.assert_allclose(found, expected, atol=0.018)


@pytest.mark.parametrize(
  'temperature, top_p', [(0.0, 1.0), (0.0, 0.5), (1.0, 1e-6), (5.0, 1e-6)]
)
def test_temperature_zero_and_a_tiny_nucleus_are_greedy(temperature, top_p):
  logits = np.array([0.0, 1.1, 1.1, 0.9])  # of a tie the first
  found = draw(logits, temperature=temperature, top_p=top_p, count=500)
  np.testing.assert_array_equal(found, [0, 1, 0, 0])


def test_huge_logits_do_not_overflow():
  found = draw([3e4, -3e4, 0.0], temperature=1e-3, top_p=0.9, count=100)
  np.testing.assert_array_equal(found, [1, 0, 0])


@pytest.mark.parametrize(
  'option, message',
  [
    ('--tokens=0', "--tokens: '0': must be an integer from 1 to 2147483647"),
    ('--tokens=2147483647', 'tokens=2147483647: must be at most 2147483646 behind'),
    ('--tokens=1000000000', 'tokens=1000000000: needs at least .* GB of memory.*which has'),
    ('--temperature=-1', 'temperature=-1.0: must be at least 0'),
    ('--temperature=nan', 'temperature=nan'),
    ('--temperature=1e39', r'temperature=1e\+39: must be finite, at most 3.40'),
    ('--top_p=0', 'top_p=0.0: must be above 0 and at most 1'),
    ('--top_p=1.5', 'top_p=1.5'),
    ('--top_p=nan', 'top_p=nan'),
    ('--seed=4294967296', '--seed: .*: must be an integer from 0 to 4294967295'),
    ('--step=3', r'step=3.*\[4, 8\]'),
    ('--tokens=many', "--tokens: 'many': must be an integer from"),
    ('--step=' + '9' * 5000, '--step: .*: must be an integer from 0 to 2147483647'),
  ],
)
def test_command_refuses(trained, option, message):
  with pytest.raises(UserError, match=message):
    main([f'--workdir={trained[1]}', option])


def test_command_prints_prompts_and_continuations(trained, capsys):
  config, workdir = trained
  prompts = ['alpha', '水']
  options = ['--tokens=6', '--temperature=0.9', '--seed=3', '--step=4']
  main([f'--workdir={workdir}', *[f'--prompt={text}' for text in prompts], *options])
  first = capsys.readouterr().out
  assert first.startswith("--- 'alpha'\nalpha")
  assert "\n--- '水'\n水" in first
  main([f'--workdir={workdir}', *[f'--prompt={text}' for text in prompts], *options])
  assert capsys.readouterr().out == first
  main([f'--workdir={workdir}', '--tokens=3'])
  assert capsys.readouterr().out.startswith("--- ''\n")
  with pytest.raises(UserError, match='no checkpoint'):
    main([f'--workdir={workdir.parent / "absent"}'])
