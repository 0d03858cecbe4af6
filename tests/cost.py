"""What a run of the tests costs: CPU seconds, children included, in all and by file."""

import collections
import os

import pytest

SHOWN = 10
_seconds, _last, _workers = collections.Counter(), [0.0], []


def cpu_seconds() -> float:
  """Of this process and of the children that have ended."""
  return sum(os.times()[:4])


def pytest_collection_finish():
  _last[0] = cpu_seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call):
  """The last report of a test carries what has been spent since that of the one before."""
  report = yield
  if call.when == 'teardown':
    now = cpu_seconds()
    report.user_properties.append(('cpu', now - _last[0]))
    _last[0] = now
  return report


def pytest_runtest_logreport(report):
  if report.when == 'teardown':
    _seconds[report.nodeid.partition('::')[0]] += dict(report.user_properties)['cpu']


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
  """A worker of xdist has ended, and says what it has used."""
  _workers.append(getattr(node, 'workeroutput', {}).get('cpu', 0.0))


def pytest_sessionfinish(session):
  if hasattr(session.config, 'workeroutput'):
    session.config.workeroutput['cpu'] = cpu_seconds()


def pytest_terminal_summary(terminalreporter):
  tests = sum(_seconds.values())
  own = cpu_seconds() if not _workers else sum(_workers)
  terminalreporter.section('CPU seconds')
  shown = int(os.environ.get('COST_FILES', SHOWN))
  for name, seconds in _seconds.most_common(shown):
    terminalreporter.write_line(f'{seconds:8.1f}  {name}')
  terminalreporter.write_line(
    f'{tests:8.1f}  in tests, of {own:.1f} with start and imports'
  )
