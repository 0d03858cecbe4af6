"""A run that is started again, or evaluated, on other things than it was made of."""

import json
import os
import pathlib
import re
import shutil
from hashlib import sha256

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from elas_jax.common.errors import UserError
from elas_jax.config.config import to_json
from elas_jax.data import blocks
from elas_jax.evaluate import main as evaluate_run
from elas_jax.run import continuation
from elas_jax.train import train
from tests.conftest import thinned, tiny_config, write_corpus
from tests.finished_runs import computed, drop_items, final_params, notes, train_until

WORDS = ('alpha', 'beta', 'gamma', 'delta', 'return', 'import', 'self', 'None', '[UNK]')
WRITE_IN_SUBPROCESS = blocks._write_in_subprocess


def write_tokenizer(path, words=WORDS):
  vocabulary = {word: number for number, word in enumerate((*words, '</s>'))}
  tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token='[UNK]'))
  tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  tokenizer.save(str(path))


def config_of(**fields):
  """Every place is relative, so that a folder with a run in it can be copied."""
  words = {'data.tokenizer': 'file', 'data.tokenizer.path': 'words.json'}
  return tiny_config(pathlib.Path(), **words | fields)


@pytest.fixture(scope='module')
def begun(tmp_path_factory):
  """A folder with a corpus, a tokenizer, and a run that has done 4 of 8 steps."""
  folder = tmp_path_factory.mktemp('begun')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    write_corpus(pathlib.Path('corpus'), [80] * 40)
    write_tokenizer('words.json')
    train_until(4, config_of(), 'run')
  return folder


@pytest.fixture
def place(begun, tmp_path, monkeypatch):
  """A copy of it, in which a test works."""
  shutil.copytree(begun, tmp_path / 'copy')
  monkeypatch.chdir(tmp_path / 'copy')
  return tmp_path / 'copy'


def saved_text(workdir='run'):
  return {
    name: (pathlib.Path(workdir) / name).read_text()
    for name in ('config.json', 'metrics.jsonl')
  }


def refused(match, config=None):
  """The run is not continued, and nothing of it changes."""
  before = saved_text()
  with pytest.raises(UserError, match=match) as error:
    train(config or config_of(), 'run')
  assert '\n' not in str(error.value)
  assert saved_text() == before
  assert sorted(os.listdir('run/checkpoints')) == ['4']


@pytest.fixture(scope='module')
def whole(begun):
  """What 8 steps give when nothing happens in between."""
  folder = begun.with_name('whole')
  shutil.copytree(begun, folder)
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    train(config_of(), 'run')
    return computed('run'), final_params('run')


def evaluated(*flags):
  """What the command writes."""
  evaluate_run(['--workdir=run', *flags])
  return json.loads(pathlib.Path('run/evaluation.json').read_text())


def swap_tokenizer():
  """Another tokenizer of the same size."""
  before = os.path.getsize('words.json')
  write_tokenizer('words.json', (*WORDS[1::-1], *WORDS[2:]))
  assert os.path.getsize('words.json') == before


def test_nothing_changed(place, whole):
  os.utime('corpus/000.txt')  # as a copy to another machine does
  os.utime('words.json')
  train(config_of(), 'run')
  assert computed('run') == whole[0]
  assert not notes('run')


# The tokenizer.


def test_another_tokenizer_is_refused(place):
  swap_tokenizer()
  refused(
    r"data.tokenizer.path='words.json' is not the tokenizer of the run in run; give that"
  )
  # Not even on request: the embedding is of the other one's tokens.
  refused("data.tokenizer.path='words.json'", config_of(**{'data.accept_changed': True}))


@pytest.mark.conformance
def test_the_tokenizer_may_move(place, whole):
  pathlib.Path('elsewhere').mkdir()
  # Laid out otherwise, which is no other tokenizer.
  content = json.loads(pathlib.Path('words.json').read_text())
  pathlib.Path('elsewhere/tokenizer.json').write_text(json.dumps(content))
  os.remove('words.json')
  train(config_of(**{'data.tokenizer.path': 'elsewhere'}), 'run')
  assert computed('run') == whole[0]


@pytest.mark.parametrize('cache', thinned(['warm', 'cold'], 'cold'))
def test_a_lost_tokenizer_is_taken_from_the_checkpoint(
  place, whole, cache, capsys, monkeypatch
):
  monkeypatch.setattr(blocks, '_write_in_subprocess', WRITE_IN_SUBPROCESS)
  os.remove('words.json')
  if cache == 'cold':
    shutil.rmtree('cache')
  train(config_of(), 'run')
  assert computed('run') == whole[0]
  jax.tree.map(np.testing.assert_array_equal, final_params('run'), whole[1])
  said = (
    "data.tokenizer.path='words.json' is not there: the copy in the checkpoint of step 4"
  )
  assert said in capsys.readouterr().out
  ((step, note),) = notes('run')
  assert step == 4
  assert said in note


@pytest.mark.parametrize('what', thinned(['swapped', 'lost', 'broken'], 'swapped'))
def test_evaluation_takes_the_tokenizer_of_the_checkpoint(place, what, capsys):
  expected = evaluated()
  capsys.readouterr()
  {
    'swapped': swap_tokenizer,
    'lost': lambda: os.remove('words.json'),
    'broken': lambda: pathlib.Path('words.json').write_text('{'),
  }[what]()
  shutil.rmtree('cache')
  assert evaluated() == expected
  error = capsys.readouterr().err
  assert "data.tokenizer.path='words.json'" in error
  assert 'the copy in the checkpoint is used' in error


def test_restored_parameters_need_their_tokenizer(place):
  swap_tokenizer()
  with pytest.raises(
    UserError, match="restore='run': data.tokenizer.path='words.json' is not"
  ):
    train(config_of(restore='run'), 'other')
  assert not pathlib.Path('other').exists()
  train(config_of(restore='run', **{'data.accept_changed': True}), 'other')
  assert notes('other')[0][0] == 0
  assert 'is not the tokenizer' in notes('other')[0][1]


# The corpus.


def edit_quietly(path):
  """Other text, of the same size and with the time of the old."""
  stat, text = path.stat(), path.read_text()
  path.write_text(text.replace('alpha', 'gamma', 1))
  assert path.read_text() != text
  os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
  now = path.stat()
  assert (now.st_size, now.st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)


CHANGES = {
  'new': (
    lambda: pathlib.Path('corpus/new.txt').write_text('alpha ' * 90),
    r'data.source.path: 1 file \(new.txt\) new',
  ),
  'missing': (
    lambda: os.remove('corpus/003.txt'),
    r'data.source.path: 1 file \(003.txt\) missing',
  ),
  'changed': (
    lambda: pathlib.Path('corpus/003.txt').write_text('beta ' * 80),
    r'data.source.path: 1 file \(003.txt\) changed',
  ),
  'changed quietly': (
    lambda: edit_quietly(pathlib.Path('corpus/003.txt')),
    r'data.source.path: 1 file \(003.txt\) changed',
  ),
  'renamed': (
    lambda: os.rename('corpus/003.txt', 'corpus/zzz.txt'),
    r'1 file \(zzz.txt\) new; data.source.path: 1 file \(003.txt\) missing',
  ),
  'many': (
    lambda: [os.remove(f'corpus/00{i}.txt') for i in range(1, 8)],
    r'data.source.path: 7 files \(001.txt, 002.txt, 003.txt, ...\) missing',
  ),
}


@pytest.mark.parametrize('kind', CHANGES)
def test_another_corpus_is_refused(place, kind):
  make, match = CHANGES[kind]
  make()
  refused(rf'the data are not those of step 4 in run: .*{match}.*accept_changed=True')


def test_another_corpus_can_be_accepted(place, capsys):
  CHANGES['changed'][0]()
  train(config_of(**{'data.accept_changed': True}), 'run')
  ((step, note),) = notes('run')
  assert step == 4
  assert 'data.source.path: 1 file (003.txt) changed' in note
  assert note in capsys.readouterr().out
  assert computed('run')[-1]['step'] == 8
  # From then on it is the corpus of the run.
  train(config_of(), 'run')
  assert len(notes('run')) == 1


def test_a_relative_path_seen_from_elsewhere(place, tmp_path, monkeypatch):
  other = tmp_path / 'other'
  other.mkdir()
  write_corpus(other / 'corpus', [70] * 40)
  shutil.copy('words.json', other)
  shutil.copytree('run', other / 'run')
  monkeypatch.chdir(other)
  refused(r'data.source.path: 40 files \(000.txt, 001.txt, 002.txt, ...\) changed')


@pytest.mark.conformance
def test_the_corpus_may_move(place, whole):
  os.rename('corpus', 'moved')
  train(config_of(**{'data.source.path': 'moved'}), 'run')
  assert computed('run') == whole[0]


@pytest.mark.conformance
def test_workdir_inside_of_the_corpus(begun, tmp_path, monkeypatch, whole, capfd):
  shutil.copytree(begun, tmp_path / 'copy')
  monkeypatch.chdir(tmp_path / 'copy')
  shutil.rmtree('run')
  workdir = 'corpus/deep/run'
  train_until(4, config_of(), workdir)
  pathlib.Path(workdir, 'profile').mkdir()
  pathlib.Path(workdir, 'profile/trace.json.gz').write_bytes(b'')
  capfd.readouterr()
  train(config_of(), workdir)
  assert computed(workdir) == whole[0]
  assert not notes(workdir)
  said = capfd.readouterr().err
  assert re.search(
    r'left out, as written by a run: \d+ files \(deep/run/checkpoints/4/', said
  )
  assert 'ocdbt' not in said  # nor are the others told as files that are not read
  # A text that somebody puts there is one of the corpus.
  pathlib.Path(workdir, 'mine.txt').write_text('alpha ' * 90)
  with pytest.raises(UserError, match=r'1 file \(deep/run/mine.txt\) new'):
    train(config_of(), workdir)


@pytest.mark.conformance
def test_the_workdir_may_be_the_corpus(place, whole):
  shutil.rmtree('run')
  train_until(4, config_of(), 'corpus')
  train(config_of(), 'corpus')
  assert computed('corpus') == whole[0]


def test_evaluation_of_other_data_is_refused(place, capsys):
  expected = evaluated()
  held_out = validation_file()
  held_out.write_text('self None ' * 50)
  with pytest.raises(UserError, match=rf'1 file \({held_out.name}\) changed.*put them'):
    evaluated()
  assert json.loads(pathlib.Path('run/evaluation.json').read_text()) == expected
  capsys.readouterr()
  result = evaluated('--accept_changed')
  assert f'1 file ({held_out.name}) changed' in result['changed_data']
  assert f'not on the data of the run: {result["changed_data"]}' in capsys.readouterr().out
  assert result['eval/loss'] != expected['eval/loss']


def test_evaluation_does_not_care_for_the_train_split(place):
  expected = evaluated()
  held_out = validation_file()
  other = '000.txt' if held_out.name != '000.txt' else '001.txt'
  pathlib.Path('corpus', other).write_text('self None ' * 50)
  assert evaluated() == expected


def validation_file():
  """A file that the hash of its name sends to the validation split."""
  share = lambda path: int.from_bytes(sha256(path.name.encode()).digest()[:8]) / 2**64
  return min(pathlib.Path('corpus').iterdir(), key=share)


# The workdir.


def test_a_deleted_config_does_not_free_the_fields(place):
  os.remove('run/config.json')
  with pytest.raises(UserError, match=r'optimizer.learning_rate=0.5.*started with 0.002'):
    train(config_of(**{'optimizer.learning_rate': 0.5}), 'run')
  assert not os.path.exists('run/config.json')
  train(config_of(), 'run')
  written = json.loads(pathlib.Path('run/config.json').read_text())
  assert written == json.loads(to_json(config_of()))


def test_an_edited_config_does_not_either(place):
  tree = json.loads(pathlib.Path('run/config.json').read_text())
  tree['optimizer']['learning_rate'] = 0.5
  pathlib.Path('run/config.json').write_text(json.dumps(tree))
  refused(
    r'optimizer.learning_rate=0.5.*started with 0.002',
    config_of(**{'optimizer.learning_rate': 0.5}),
  )


def test_lost_metrics_are_said_to_be_lost(place, whole, capsys):
  os.remove('run/metrics.jsonl')
  train(config_of(), 'run')
  said = 'metrics.jsonl: the lines of steps 1 to 4 are lost'
  assert said in capsys.readouterr().err
  assert notes('run') == [(4, said)]
  assert computed('run') == [line for line in whole[0] if line['step'] > 4]


def test_fewer_steps_than_are_done_are_refused(place):
  refused(
    'train.steps=3: the run in run has done 4 already', config_of(**{'train.steps': 3})
  )
  train(config_of(**{'train.steps': 4}), 'run')  # done: shows what there is


def test_a_checkpoint_without_a_record_goes_on_and_says_so(place, whole, capsys):
  drop_items(pathlib.Path('run/checkpoints/4'), 'record', 'checksums')
  train(config_of(), 'run')
  assert computed('run') == whole[0]
  ((step, note),) = notes('run')
  assert step == 4
  assert 'keeps no record of its data' in note
  assert note in capsys.readouterr().out
  swap_tokenizer()
  with pytest.raises(UserError, match='is not the tokenizer'):
    train(config_of(**{'train.steps': 9}), 'run')


def test_evaluation_of_a_checkpoint_without_a_record_says_so(place, capsys):
  drop_items(pathlib.Path('run/checkpoints/4'), 'record', 'checksums')
  evaluated()
  assert 'keeps no record of its data' in capsys.readouterr().err


def test_another_process_may_have_trained_meanwhile(place, monkeypatch):
  monkeypatch.setattr(continuation, 'past_of', lambda workdir: None)
  swap_tokenizer()
  refused("data.tokenizer.path='words.json' is not the tokenizer of the run")


@pytest.mark.conformance
def test_an_older_step_has_its_own_description(place):
  """Of a run whose data changed between two checkpoints."""
  held_out = validation_file()
  text = held_out.read_text()
  held_out.write_text('self None ' * 50)
  train(config_of(**{'data.accept_changed': True}), 'run')
  evaluated()
  with pytest.raises(UserError, match='the data are not those of step 4'):
    evaluated('--step=4')
  held_out.write_text(text)
  evaluated('--step=4')
  with pytest.raises(UserError, match='the data are not those of step 8'):
    evaluated()
