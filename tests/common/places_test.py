"""Paths of fields and flags: `~`, addresses, what no path can hold, and no home."""

import os
import pathlib
import pwd

import pytest

from elas_jax import convert, evaluate, generate, train
from elas_jax.common.errors import UserError
from elas_jax.common.places import check_new_folder, check_writable, new_folder, place
from elas_jax.config.overrides import set_field
from elas_jax.config.parsing import parse
from elas_jax.data import blocks, catalogue, train_tokenizer
from elas_jax.run import checkpoint
from elas_jax.run.workdir import locked

COMMANDS = {
  'train': [train.main, '--dry_run', '--config=configs/default.py'],
  'evaluate': [evaluate.main],
  'generate': [generate.main],
  'convert': [convert.main, '--output=x', '--converter=merge'],
}


@pytest.fixture
def home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  return tmp_path


@pytest.fixture
def no_home(monkeypatch):
  """A user that no list knows, without HOME: as containers start programs."""

  def unknown(user):
    raise KeyError(user)

  monkeypatch.delenv('HOME', raising=False)
  monkeypatch.setattr(pwd, 'getpwuid', unknown)


def test_home_is_expanded(home):
  assert place('--workdir', '~/runs/x') == home / 'runs/x'
  assert place('--workdir', '~') == home
  assert place('--workdir', 'runs/~x') == pathlib.Path('runs/~x')


@pytest.mark.parametrize('command', ['evaluate', 'generate', 'convert'])
def test_workdir_of_the_commands_is_expanded(home, command):
  main, *arguments = COMMANDS[command]
  with pytest.raises(UserError, match=f'no checkpoint under {home}/none/checkpoints'):
    main([*arguments, '--workdir=~/none'])


@pytest.mark.parametrize('command', COMMANDS)
def test_an_empty_place_is_not_the_current_folder(command, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  main, *arguments = COMMANDS[command]
  with pytest.raises(UserError, match='^--workdir: empty; must be a path$'):
    main([*arguments, '--workdir='])
  assert not list(tmp_path.iterdir())


def test_run_is_written_below_home(home, make_config, corpus, monkeypatch):
  def run_steps(*arguments):
    *_, log, _ = arguments
    log.close()
    raise OSError('reached')

  monkeypatch.setattr(train, 'run_steps', run_steps)
  config = make_config(**{'data.source.path': '~/corpus', 'data.cache_dir': '~/cache'})
  with pytest.raises(UserError, match=f'reached; no checkpoint yet in {home}/one'):
    train.train(config, '~/one')
  assert (home / 'one/config.json').is_file()
  assert (home / 'cache/blocks').is_dir()


def test_restore_is_expanded(home):
  with pytest.raises(UserError, match=f"^restore='~/one': .* under {home}/one/checkpoints"):
    checkpoint.steps('~/one', 'restore')


def test_output_is_expanded(home, corpus, tmp_path):
  arguments = ['--source=text_files', '--path=~/corpus', '--cache_dir=~/cache']
  train_tokenizer.main([*arguments, '--vocab_size=260', '--output=~/new/bpe.json'])
  assert (home / 'new/bpe.json').is_file()


@pytest.mark.parametrize('address', ['gs://bucket/run', 's3://b', 'file:///tmp/x'])
@pytest.mark.parametrize('command', COMMANDS)
def test_address_as_workdir_is_refused_by_name(command, address):
  main, *arguments = COMMANDS[command]
  with pytest.raises(UserError, match=f"^--workdir='{address}': {address[:2]}.*mounted"):
    main([*arguments, f'--workdir={address}'])


@pytest.mark.parametrize(
  'kinds, field',
  [
    ({}, 'restore'),
    ({}, 'train.compilation_cache'),
    ({}, 'data.cache_dir'),
    ({}, 'data.source.path'),
    ({}, 'data.source.validation_path'),
    ({'data.source': 'tfds'}, 'data.source.data_dir'),
    ({'data.tokenizer': 'file'}, 'data.tokenizer.path'),
  ],
)
@pytest.mark.parametrize('value', ['gs://bucket/x', 'a\0b'])
def test_field_that_is_no_path_is_refused(make_config, kinds, field, value):
  with pytest.raises(UserError, match=f'^{field}=.*(addresses are not|holds no NUL)'):
    make_config(**kinds | {field: value})


@pytest.mark.parametrize('field', ['data.cache_dir', 'data.source.data_dir'])
def test_fields_of_rows_are_checked_too(field):
  from configs import images

  config = images.get_config('mnist,mlp')
  set_field(config, field, 'https://x/y')
  with pytest.raises(UserError, match=f'^{field}=.*https:// addresses'):
    parse(config)


def test_without_a_home_the_field_is_named(no_home, make_config, corpus):
  with pytest.raises(UserError, match="^--workdir='~/x': there is no home.*set HOME"):
    place('--workdir', '~/x')
  caches = {'data.cache_dir': '~/c', 'data.source.path': str(corpus)}
  with pytest.raises(UserError, match="^data.cache_dir='~/c': there is no home"):
    data = make_config(**caches).data
    blocks.prepare(data.source.corpus(data))
  with pytest.raises(UserError, match='^train.compilation_cache='):
    train.train(make_config(**{'train.compilation_cache': '~/c'}), 'unused')
  with pytest.raises(UserError, match="^data.source.data_dir='~/tensorflow_da"):
    catalogue.find_folder('c4/en', '')


@pytest.mark.parametrize('name', ['a' * 300, '/proc/none', '/dev/null'])
def test_places_where_no_run_can_be(make_config, corpus, tmp_path, name):
  with pytest.raises(UserError, match='^--workdir='), locked(pathlib.Path(name)):
    pass
  with pytest.raises(UserError, match='^restore=.*no checkpoint'):
    checkpoint.steps(name, 'restore')
  with pytest.raises(UserError, match='^data.cache_dir='):
    data = make_config(**{'data.cache_dir': name}).data
    blocks.write(data.source.corpus(data))
  with pytest.raises(UserError, match='^--output='):
    train_tokenizer.main(
      [
        *('--source=text_files', f'--path={corpus}', '--vocab_size=260'),
        *(f'--cache_dir={tmp_path / "cache"}', f'--output={name}/x.json'),
      ]
    )


def made_in(folder):
  check_new_folder('--output', folder)
  with new_folder('--output', folder) as made:
    made.mkdir()
    (made / 'result').touch()


def test_a_new_folder_may_be_there_and_empty(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pathlib.Path('empty').mkdir()
  pathlib.Path('link').symlink_to('empty')
  for name in ('new/deep', 'empty', 'link/in_it', '[1]', 'empty/../beside'):
    made_in(pathlib.Path(name))
    assert os.listdir(name) == ['result']


@pytest.mark.parametrize(
  'name',
  ['.', '../here', 'new/..', '../link', '../dangling', '../loop', '../mount'],
)
def test_a_place_that_no_folder_can_take_is_refused_before_the_work(
  name, tmp_path, monkeypatch
):
  for folder in ('here', 'empty', 'mount'):
    (tmp_path / folder).mkdir()
  for link, target in (('link', 'empty'), ('dangling', 'none'), ('loop', 'loop')):
    (tmp_path / link).symlink_to(target)
  monkeypatch.chdir(tmp_path / 'here')
  is_mount = os.path.ismount  # a mount itself needs more rights than a test has
  monkeypatch.setattr(os.path, 'ismount', lambda x: x == tmp_path / 'mount' or is_mount(x))
  with pytest.raises(UserError, match='^--output=.*: a link, a mount point or the curr'):
    check_new_folder('--output', pathlib.Path(name))
  assert not list((tmp_path / 'here').iterdir())


@pytest.mark.parametrize('name', ['file/new', 'a' * 300, 'loop/new'])
def test_a_place_where_nothing_can_be_written_is_refused(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pathlib.Path('file').touch()
  pathlib.Path('loop').symlink_to('loop')
  for check in (check_new_folder, check_writable):
    with pytest.raises(UserError, match='^--output=.*: cannot be written: '):
      check('--output', pathlib.Path(name))
