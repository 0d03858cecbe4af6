import contextlib
import dataclasses
import io
import json
import pathlib
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from elas_jax.common.errors import UserError
from elas_jax.data import blocks, catalogue, train_tokenizer
from elas_jax.data.rows import of_set
from elas_jax.data.sources import list_source, open_source, open_split


class TinySet(tfds.core.GeneratorBasedBuilder):
  """Stands for a set of the TFDS catalogue."""

  VERSION = tfds.core.Version('1.0.0')

  def __init__(self, *, splits, feature='text', **kwargs):
    self._splits, self._feature = splits, feature
    super().__init__(**kwargs)

  def _info(self):
    kinds = {'text': tfds.features.Text(), 'label': tfds.features.Scalar(np.int64)}
    features = tfds.features.FeaturesDict({self._feature: kinds[self._feature]})
    return tfds.core.DatasetInfo(builder=self, description='Tiny.', features=features)

  def _split_generators(self, dl_manager):
    return {name: self._generate_examples(texts) for name, texts in self._splits.items()}

  def _generate_examples(self, texts):
    for i, text in enumerate(texts):
      yield i, {self._feature: text if self._feature == 'text' else i}


@pytest.fixture
def build(tmp_path):
  def build(splits, **kwargs):
    with contextlib.redirect_stdout(io.StringIO()):
      builder = TinySet(
        splits=splits, data_dir=tmp_path / 'tfds', file_format='array_record', **kwargs
      )
      builder.download_and_prepare(download_dir=tmp_path / 'downloads')
    return pathlib.Path(builder.data_dir)

  return build


@pytest.fixture
def tiny_config(make_corpus, tmp_path):
  return make_corpus(source='tiny_set', path=str(tmp_path / 'tfds'))


TRAIN = ['a b', 'é ü', 'third']


@pytest.mark.parametrize('held_out', ['validation', 'test'])
def test_real_files_are_opened(build, tiny_config, held_out):
  folder = build({'train': TRAIN, held_out: ['held out']})
  source = open_source(tiny_config)
  assert source.folder == folder
  assert sorted(x['text'] for x in source.splits['train']) == sorted(
    text.encode() for text in TRAIN
  )
  assert [x['text'] for x in source.splits['validation']] == [b'held out']
  assert source.split_names == {'train': 'train', 'validation': held_out}
  assert source.sizes['train'] > sum(map(len, TRAIN))
  assert source.fingerprint == list_source(tiny_config).fingerprint


def test_default_folder_is_that_of_tfds(build, tiny_config, make_corpus, monkeypatch):
  build({'train': TRAIN, 'test': ['x']})
  monkeypatch.setenv('TFDS_DATA_DIR', tiny_config.path)
  assert len(open_source(make_corpus(source='tiny_set', path='')).splits['train']) == 3


def test_newest_version_and_config(build, tiny_config, make_corpus):
  folder = build({'train': TRAIN, 'test': ['x']})
  newest = folder.with_name('1.10.0')
  folder.with_name('1.9.0.incompleteABC').mkdir()
  folder.rename(newest)
  (folder.with_name('1.9.0')).symlink_to(newest)
  assert open_source(tiny_config).folder == newest
  # The same folders below the name of a config.
  config_folder = folder.parent / 'en'
  config_folder.mkdir()
  newest.rename(config_folder / '2.0.0')
  folder.with_name('1.9.0').unlink()
  with_config = make_corpus(source='tiny_set/en', path=tiny_config.path)
  assert open_source(with_config).folder == config_folder / '2.0.0'
  with pytest.raises(UserError, match="needs a config; prepared are 'tiny_set/en'"):
    open_source(tiny_config)


@pytest.mark.parametrize('name', ['c4/en', 'lm1b', 'pyton_source'])
def test_unprepared_set_says_which_command_prepares_it(make_corpus, tmp_path, name):
  with pytest.raises(UserError) as error:
    open_source(make_corpus(source=name, path=str(tmp_path)))
  message = str(error.value)
  assert message.startswith(f"data.source.name='{name}'")
  command = f'tfds build {name} --data_dir={tmp_path} --file_format=array_record'
  assert command in message
  assert 'pip install tensorflow apache-beam' in message
  assert 'python_source' in message
  assert '\n' not in message


@pytest.mark.parametrize('name', ['', '../c4', 'c4/en/3', 'c4;rm'])
def test_impossible_names(make_corpus, name):
  with pytest.raises(UserError, match='^data.source.name=.*accepted are names of'):
    open_source(make_corpus(source=name))


@pytest.mark.parametrize('file_format', ['tfrecord', None])
def test_other_file_format(build, tiny_config, file_format):
  folder = build({'train': TRAIN, 'test': ['x']})
  info = json.loads((folder / 'dataset_info.json').read_text())
  info.pop('fileFormat')
  if file_format:
    info['fileFormat'] = file_format
  (folder / 'dataset_info.json').write_text(json.dumps(info))
  with pytest.raises(UserError, match='is prepared as tfrecord.*=array_record'):
    open_source(tiny_config)


def test_broken_metadata(build, tiny_config):
  folder = build({'train': TRAIN, 'test': ['x']})
  for content in ('{', '[' * 100_000, '[]'):
    (folder / 'dataset_info.json').write_text(content)
    with pytest.raises(UserError, match='dataset_info.json cannot be read'):
      open_source(tiny_config)


def test_set_without_text(build, tiny_config):
  build({'train': TRAIN, 'test': ['x']}, feature='label')
  with pytest.raises(UserError, match="no string feature 'text', only label"):
    open_source(tiny_config)


@pytest.mark.parametrize('splits', [('train',), ('train', 'extra'), ('test',)])
def test_set_without_needed_splits(build, tiny_config, splits):
  build({name: ['x'] for name in splits})
  with pytest.raises(UserError, match="needed are 'train' and one of"):
    open_source(tiny_config)


def test_documents_that_are_not_utf8_are_left_out_and_counted(
  build, tiny_config, tmp_path, capsys
):
  texts = [f'text {i}' for i in range(30)]
  build({'train': [*texts, b'\xff' * 9, b'ab\xe9'], 'test': ['held out']})
  accepting = dataclasses.replace(tiny_config, max_bad_share=0.2)
  blocks.write(accepting)
  prepared = blocks.prepare(accepting)
  report = prepared.report
  assert (report.total, report.bad, report.bad_bytes) == (33, 2, 12)
  assert report.total_bytes == sum(map(len, texts)) + 12 + len('held out')
  assert prepared.train.documents == 30
  assert prepared.train.text_bytes == sum(map(len, texts))
  ids = prepared.train.read(range(len(prepared.train)))['tokens']
  assert 0xFF not in ids
  assert 'train-00000-of-00001.array_record: 2 documents are not UTF-8' in (
    capsys.readouterr().err
  )
  with pytest.raises(UserError, match=r'^data\.max_bad_share=0\.01: 2 of 33[^\n]*$'):
    blocks.prepare(tiny_config)
  output = str(tmp_path / 't.json')
  options = ['--max_bad_share=0.2', f'--cache_dir={tiny_config.cache_dir}']
  options += [f'--source={tiny_config.source}', f'--path={tiny_config.path}']
  train_tokenizer.main([*options, '--vocab_size=300', f'--output={output}'])
  assert '2 of 32 records were unreadable' in capsys.readouterr().err
  with pytest.raises(UserError, match=r'^data\.max_bad_share=0\.05: 2 of 32[^\n]*$'):
    train_tokenizer.main([*options, '--max_bad_share=0.05', '--output=/dev/null/x'])


@pytest.mark.parametrize('damage', ['missing', 'empty', 'truncated', 'cut at a block'])
def test_damaged_files_are_named(build, tiny_config, tmp_path, damage):
  folder = build({'train': TRAIN * 100, 'test': ['x']})
  (path,) = folder.glob('*train*')
  content = path.read_bytes()
  path.unlink()
  if damage != 'missing':
    kept = {'empty': 0, 'truncated': len(content) // 2 + 99, 'cut at a block': 1 << 16}
    assert kept[damage] < len(content)
    path.write_bytes(content[: kept[damage]])
  message = rf'^{folder} \(train\).*prepare it again$'
  with pytest.raises(UserError, match=message):
    blocks.write(tiny_config)
  options = [f'--{name}={getattr(tiny_config, name)}' for name in ('source', 'path')]
  with pytest.raises(UserError, match=message):
    train_tokenizer.main([*options, f'--output={tmp_path}/t.json'])
  assert not (tmp_path / 't.json').exists()


def test_nothing_but_documents_that_are_not_utf8(build, tiny_config):
  build({'train': [b'\xff' * 9] * 3, 'test': ['held out']})
  with pytest.raises(UserError, match=r'^data\.max_bad_share=0\.01: 3 of 4[^\n]*$'):
    blocks.write(tiny_config)


EVIL = 'evil.Text'
TEXT = 'tensorflow_datasets.core.features.text_feature.Text'
LEGACY = {'type': EVIL, 'content': {}}
DICT = 'tensorflow_datasets.core.features.features_dict.FeaturesDict'


def features_of(feature):
  return {'pythonClassName': DICT, 'featuresDict': {'features': {'text': feature}}}


FOREIGN = {
  'inside': features_of({'pythonClassName': EVIL, 'text': {}}),
  'outermost': {'pythonClassName': EVIL, 'featuresDict': {'features': {}}},
  'other spelling': features_of({'python_class_name': EVIL, 'text': {}}),
  'sequence': features_of(
    {
      'pythonClassName': 'tensorflow_datasets.core.features.sequence_feature.Sequence',
      'sequence': {'feature': {'pythonClassName': EVIL, 'text': {}}, 'length': '3'},
    }
  ),
  'type and content': features_of(LEGACY),
  'older format': {'type': DICT, 'content': {'text': LEGACY}},
  'JSON in a string': {
    'pythonClassName': DICT,
    'jsonFeature': {'json': json.dumps({'text': LEGACY})},
  },
  'message in a string': {
    'type': DICT,
    'proto_cls': 'tensorflow_datasets.FeaturesDict',
    'content': json.dumps({'features': {'text': {'pythonClassName': EVIL, 'text': {}}}}),
  },
  'a module of TFDS': features_of(
    {'pythonClassName': 'tensorflow_datasets.scripts.cli.main.Text', 'text': {}}
  ),
}


def test_class_of_another_module_is_not_imported(build, tiny_config, tmp_path, monkeypatch):
  """A set says which classes read it: with evil.py in the current folder that would run."""
  folder = build({'train': TRAIN, 'test': ['x']})
  ran = tmp_path / 'ran'
  (tmp_path / 'evil.py').write_text(f'open({str(ran)!r}, "w")')
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(str(tmp_path))
  for where, features in FOREIGN.items():
    (folder / 'features.json').write_text(json.dumps(features))
    with pytest.raises(UserError, match="names the class '.*', which is none of TFDS"):
      open_source(tiny_config)
    with pytest.raises(UserError, match='names the class'):
      open_split(folder, 'train')
    assert not ran.exists(), where
  assert not {'evil', 'tensorflow_datasets.scripts.cli.main'} & set(sys.modules)


def test_rows_do_not_import_classes_either(build, tmp_path, monkeypatch):
  folder = build({'train': TRAIN, 'test': ['x']})
  (folder.parent).rename(folder.parents[1] / 'mnist')
  folder = folder.parents[1] / 'mnist' / folder.name
  (folder / 'features.json').write_text(json.dumps(FOREIGN['inside']))
  with pytest.raises(UserError, match="names the class 'evil.Text'"):
    of_set('mnist', str(tmp_path / 'tfds'), str(tmp_path / 'cache'))


def test_every_feature_class_of_tfds_is_accepted(build):
  """Those of the library's own registry, which is what a set could name before."""
  registered = set(tfds.features.FeatureConnector._registered_features)
  own = {name for name in registered if name.startswith('tensorflow_datasets.')}
  # The base of FeaturesDict and Dataset, of which no set is.
  own -= {'tensorflow_datasets.core.features.top_level_feature.TopLevelFeature'}
  assert own == catalogue.feature_classes()
  assert {TEXT, DICT} <= own


def test_broken_features(build, tiny_config):
  folder = build({'train': TRAIN, 'test': ['x']})
  for content in ('', '{', '[' * 100_000, '\xff', '{"pythonClassName": 3}', '[]', '{}'):
    (folder / 'features.json').write_text(content, encoding='latin-1')
    with pytest.raises(UserError, match='^data.source.data_dir: .*cannot be read.*prepare'):
      open_source(tiny_config)
