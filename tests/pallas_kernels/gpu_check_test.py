"""The calls: which steps in which order, what is refused, and what goes without a GPU."""

import json
import tarfile
import time

import pytest

from pallas_kernels import gpu_check, tune
from pallas_kernels.bench import contact, dry, measure, report, selection
from pallas_kernels.bench.run import Run
from pallas_kernels.two_four import dispatch

FAKE = 'tests.pallas_kernels.fake_device'


def refused(arguments, capsys):
  with pytest.raises(SystemExit) as stopped:
    gpu_check.main(arguments)
  assert stopped.value.code == 2
  return capsys.readouterr().err.strip().splitlines()[-1]


def test_help(capsys):
  with pytest.raises(SystemExit, match='0'):
    gpu_check.main(['--help'])
  out = capsys.readouterr().out
  for option in ('--call', '--steps', '--out', '--checks', '--wheels', '--minutes'):
    assert f'\n  {option} ' in out
  assert '\n  python -m pallas_kernels.gpu_check --call=1' in out


def test_bad_arguments_are_named_with_what_is_accepted(tmp_path, capsys):
  say = lambda *arguments: refused([f'--out={tmp_path / "new"}', *arguments], capsys)
  said = say('--steps=layers,dance')
  assert "'dance': must be among device, contact, ceilings, headline, layers" in said
  assert 'one of the arguments --call --steps is required' in say()
  assert 'not allowed with' in say('--call=1', '--steps=layers')
  for value in ('nan', '0', '-3', 'inf', 'x'):
    assert 'must be a number above 0' in say('--call=1', f'--minutes={value}')
  assert 'a folder with .whl files' in say('--call=2', f'--wheels={tmp_path}')
  assert 'cannot be read' in say('--call=2', f'--checks={tmp_path / "none.json"}')
  (tmp_path / 'other.json').write_text('{"device": 1}')
  assert 'must be a gpu_check.json' in say('--call=2', f'--checks={tmp_path}/other.json')
  about = {'device': 'H', 'source': 's', 'timer': 'loop', 'checks': {}}
  others = [{'checks': 3}, {'timer': 'sun'}]
  others += [{'checks': {'a': wrong}} for wrong in (True, {}, {'passed': 1})]
  for wrong in ('device source checks', [1], None, 3, *(about | x for x in others)):
    (tmp_path / 'other.json').write_text(json.dumps(wrong))
    said = say('--call=2', f'--checks={tmp_path}/other.json', '--minutes=0.001')
    assert 'must be a gpu_check.json' in said
  (tmp_path / 'file').write_text('')
  for folder in (tmp_path / 'file/below', '/proc/none'):
    assert 'cannot be made' in refused(
      ['--call=1', f'--out={folder}', '--minutes=0.001'], capsys
    )
  assert 'no regular expression' in say('--call=3', '--only=(')
  assert 'a new or an empty folder' in refused(['--call=1', f'--out={tmp_path}'], capsys)
  assert not (tmp_path / 'new').exists()


def test_calls_and_steps(tmp_path):
  parse = lambda *words: gpu_check.parse([*words, f'--out={tmp_path}'])
  assert parse('--call=1').steps == ['contact', 'ceilings', 'headline']
  assert parse('--call=2').steps == ['layers', 'train_steps', 'proxy']
  assert parse('--call=3').steps == ['tune', 'kernels']
  assert all(parse(f'--call={x}').minutes < y for x, y in ((1, 6), (2, 5), (3, 4)))
  assert parse('--call=2', '--minutes=3').minutes == 3
  assert parse('--steps=kernels,device,layers').steps == ['kernels', 'layers']


# The order of steps, by steps that only say that they were there


@pytest.fixture
def acts(monkeypatch):
  """What the steps were given: [(name, seconds)]; the clock stands still."""
  found = []

  def act(name):
    return lambda run, end: found.append((name, round(end - time.monotonic())))

  for name, step in gpu_check.STEPS.items():
    fake = gpu_check.Step(act(name), step.most, step.least, step.timed)
    monkeypatch.setitem(gpu_check.STEPS, name, fake)
  monkeypatch.setattr(
    gpu_check, 'DIAGNOSIS', gpu_check.Step(act('diagnosis'), 90, 1, False)
  )
  return found


def passing(*wrong):
  return {name: {'passed': name not in wrong} for name in contact.contact(0)}


def test_steps_share_the_time_and_end_before_it(acts, tmp_path):
  with Run(tmp_path, seconds=100) as run:
    run.record['checks'] = passing()
    gpu_check.on_device(run, ['ceilings', 'headline', 'proxy'])
    run.end = time.monotonic() + 30
    gpu_check.on_device(run, ['kernels', 'tune'])
  ends = dict(acts)
  assert ends['ceilings'] == gpu_check.STEPS['ceilings'].most
  for name in ('headline', 'proxy'):
    assert 90 <= ends[name] <= 100 - gpu_check.FINISH
  assert 20 <= ends['kernels'] <= 30 - gpu_check.FINISH and 'tune' not in ends
  assert run.record['steps']['tune']['verdict'] == 'not run: no time was left'


def test_what_was_not_checked_is_not_timed(acts, tmp_path):
  """Contact goes first; it does nothing here, so nothing is timed."""
  with Run(tmp_path, seconds=900) as run:
    gpu_check.on_device(run, ['ceilings', 'layers', 'tune'])
  assert [name for name, _ in acts] == ['contact', 'ceilings']
  for name in ('layers', 'tune'):
    verdict = run.record['steps'][name]['verdict']
    assert verdict == f'not run: {len(contact.contact(0))} checks were not made'


def test_a_wrong_kernel_is_diagnosed_and_nothing_is_timed(acts, tmp_path):
  wrong = next(iter(contact.contact(0)))
  with Run(tmp_path, seconds=900) as run:
    run.record['checks'] = passing(wrong)
    gpu_check.on_device(run, gpu_check.CALLS[1][1])
  assert [name for name, _ in acts] == ['contact', 'diagnosis', 'ceilings']
  verdict = run.record['steps']['headline']['verdict']
  assert verdict == f'not run: 1 of {len(contact.contact(0))} checks did not pass'


def test_checks_without_time_are_not_made_and_not_wrong(fakes, tmp_path, monkeypatch):
  monkeypatch.setattr(contact, 'RUN_CHECK', f'{FAKE}:slow_check')
  with Run(tmp_path, seconds=900) as run:
    contact.step(run, time.monotonic() + 1.5)
    missing = contact.unchecked(run.record)
    assert missing and not contact.wrong(run.record)
    step, total = run.record['steps']['contact'], len(contact.contact(0))
    assert step['verdict'] == f'failed: no time was left for {len(missing)} of {total}'
    assert step['not_run'] == missing
    assert gpu_check.untimed(run.record) == f'{len(missing)} checks were not made'


def test_checks_are_those_of_this_device_and_source(tmp_path, capsys):
  path = tmp_path / 'gpu_check.json'
  record = {'device': 'H', 'source': 's'}
  checks = {
    'a': {'passed': True}, 'b': {'passed': False, 'failed': 'no time was left'},
    'c': {'passed': False, 'wrong_rows': 3},
  }  # fmt: skip
  path.write_text(json.dumps(record | {'checks': checks, 'timer': 'loop'}))
  known = contact.known(path, record)
  assert set(known['checks']) == {'a', 'c'} and known['timer'] == 'loop'
  for field in record:
    assert contact.known(path, record | {field: 'other'}) == {}
    assert f'of {field} {record[field]}, not other: not used' in capsys.readouterr().out


def test_checks_made_with_another_compiler_are_not_taken(tmp_path, capsys):
  path, versions = tmp_path / 'gpu_check.json', {'jax': '0.11.2', 'jaxlib': '0.11.2'}
  record = {'device': 'H', 'source': 's', 'checks': {}, 'driver': '1', 'versions': versions}
  # A call that timed PyTorch has its version as well.
  path.write_text(json.dumps(record | {'versions': versions | {'torch': '2.11'}}))
  assert contact.known(path, record)
  newer = {'versions': versions | {'jax': '0.12.0'}}, {'driver': '2'}
  for change, said in zip(newer, ('of jax 0.11.2, not 0.12.0', 'of driver 1, not 2')):
    assert contact.known(path, record | change) == {}
    assert said in capsys.readouterr().out


# A call, its workers' functions faked


@pytest.fixture
def fakes(monkeypatch):
  monkeypatch.setattr(measure, 'TASKS', FAKE)
  monkeypatch.setattr(report, 'CEILINGS', FAKE)
  monkeypatch.setattr(contact, 'RUN_CHECK', f'{FAKE}:check')
  monkeypatch.setattr(gpu_check, 'missing_module', lambda name: '')


def test_call_1(fakes, tmp_path, capsys):
  """A timer that fails is replaced, a tile that ends its process is left out."""
  assert gpu_check.main(['--call=1', f'--out={tmp_path}']) == 1
  record = json.loads((tmp_path / 'gpu_check.json').read_text())
  steps = {name: step['verdict'] for name, step in record['steps'].items()}
  assert steps == {
    'device': 'Fake GPU', 'contact': 'passed', 'ceilings': 'passed',
    'headline': 'failed: 1 of 1',
  }  # fmt: skip
  assert record['timer'] == 'loop' and 'no CUPTI here' in record['timer_failed']
  assert record['peaks']['asked'] == [7, 'loop']
  assert record['ceilings'] == {'timer': 'loop'}
  [item] = record['items']
  assert item['peers']['ours']['tflops'] == 54975.6  # 2 M K N over 10 us
  assert item['peers']['ours, cluster=2']['failed'] == 'the process ended with status 3'
  assert 'torch' in record['versions']
  text = (tmp_path / 'gpu_check.md').read_text()
  assert 'Ceilings by loop.' in text and 'Fake GPU' in text
  about = 'ptxas: /x/ptxas: V13.0; CUDA of jax: /x; 16 CPUs. Memory: 80 GB of the device'
  out = capsys.readouterr().out
  assert about in out[: out.index('contact: passed')]  # at once, and in the tables
  assert about in text and '800 TFLOP/s' in out[: out.index('contact: passed')]
  assert set(record['checks']) == set(contact.contact(0))


def test_call_2_takes_the_checks_of_call_1(fakes, tmp_path, capsys):
  checks = tmp_path / 'gpu_check.json'
  known = {'device': 'Fake GPU', 'source': report.source(), 'timer': 'wall'}
  known |= {'driver': report.driver(), 'versions': {}}
  checks.write_text(json.dumps(known | {'checks': passing()}))
  words = ['--steps=kernels', '--only=^feed_forward.*K?R128', f'--out={tmp_path / "out"}']
  assert gpu_check.main([*words, f'--checks={checks}']) == 0
  record = json.loads((tmp_path / 'out/gpu_check.json').read_text())
  assert list(record['steps']) == ['device', 'kernels'] and record['timer'] == 'wall'
  assert [item['op'] for item in record['items']] == ['feed_forward']
  words = ['--steps=kernels', '--only=cube', f'--out={tmp_path / "nothing"}']
  assert gpu_check.main([*words, f'--checks={checks}']) == 1
  assert '| kernels | failed: --only=cube matches nothing' in capsys.readouterr().out


def test_what_hung_once_is_not_tried_again(fakes, tmp_path, capsys):
  words = ['--steps=contact,layers', '--only=^(60m|130m) low.*backward, T16384$']
  assert gpu_check.main([*words, f'--out={tmp_path}']) == 1
  record = json.loads((tmp_path / 'gpu_check.json').read_text())
  why = [item['peers']['ours']['failed'] for item in record['items']]
  assert why == ['no answer within 1 s; stopped'] * 2
  assert record['items'][1]['peers']['XLA dense']['tflops'] > 0
  with tarfile.open(tmp_path / 'rest.tar.gz') as archive:
    log = archive.extractfile('rest/workers.log').read().decode()
  assert log.count('tried ours') == 1


def test_call_3_tunes(fakes, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(tune, 'TUNE_KEY', f'{FAKE}:tune_key')
  monkeypatch.setattr(selection, 'OPS', ('feed_forward',))
  monkeypatch.setattr(dispatch, 'TUNED', tmp_path / 'tuned')
  words = ['--steps=tune', '--only=R=(128|256) F=(2176|3072)', f'--out={tmp_path / "out"}']
  assert gpu_check.main(words) == 0
  record = json.loads((tmp_path / 'out/gpu_check.json').read_text())
  assert list(record['steps']) == ['device', 'contact', 'tune']
  assert record['steps']['tune']['verdict'] == 'passed: 2 keys in Fake_GPU.json'
  made = json.loads((tmp_path / 'out/Fake_GPU.json').read_text())
  keys = [f'feed_forward T=16384 R={r} F={f} N={r}' for r, f in ((256, 3072), (128, 2176))]
  assert made['configs'] == dict.fromkeys(keys, {'warpgroups': 1, 'stages': 2})
  text = (tmp_path / 'out/gpu_check.md').read_text()
  assert f'- {keys[0]}: default 10.0 us, ' in text and ': 5.0 us' in text


def test_what_the_processes_of_a_command_say_is_kept(tmp_path, monkeypatch):
  given = []
  monkeypatch.setattr(gpu_check, 'missing_module', lambda name: '')
  with Run(tmp_path, seconds=100) as run:
    monkeypatch.setattr(run, 'command', lambda name, words, end: given.append(words))
    gpu_check.train_steps(run, time.monotonic() + 60)
    log = f'--log={run.rest}/train_steps_workers.log'
  assert log in given[0] and any(word.startswith('--seconds=4') for word in given[0])


# Without a GPU


@pytest.mark.conformance
def test_without_a_gpu_what_goes_is_tried(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(gpu_check, 'COMMANDS', {'train_steps': ['no_such.module']})
  steps = '--steps=layers,train_steps'
  assert gpu_check.main([steps, '--only=60m low', f'--out={tmp_path}']) == 0
  out = capsys.readouterr().out
  assert '| layers | not available: ' in out and '| layers, dry run | passed |' in out
  assert '| train_steps, dry run | not available: no module no_such.module |' in out
  # As python -m pallas_kernels.roofline --all has it.
  expected = 'XLA dense 146.1, XLA 2:4 205.1, ours, unpruned 134.4, ours 95.6'
  assert f'60m low rank, forward and backward, T16384: floors in us: {expected}' in out
  record = json.loads((tmp_path / 'gpu_check.json').read_text())
  assert record['checks'] == {} and record['device'] == 'cpu' and record['items'] == []
  assert {path.name for path in tmp_path.iterdir()} == {
    'gpu_check.json', 'gpu_check.md', 'rest.tar.gz',
  }  # fmt: skip


def test_a_dry_run_that_fails_says_so(tmp_path, capsys):
  assert gpu_check.main(['--steps=kernels', '--only=cube', f'--out={tmp_path}']) == 1
  said = capsys.readouterr().out
  assert '| kernels, dry run | failed: NothingMatches: --only=cube matches nothing' in said


def test_a_dry_run_ends_with_its_time(monkeypatch):
  monkeypatch.setattr(dry, '_build_layer', lambda name, tokens: 'built')
  lines = dry.layers(time.time() + 60, 16384, None)
  assert len(lines) == 8 and lines[0] == '60m low rank, forward, T16384: built'
  assert dry.layers(0, 16384, None) == ['0 of 8, then the time was over']
