"""A headless Chromium by its DevTools protocol over a pipe: pages, keys, what fails."""

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time

SECONDS = 30.0  # for one answer: a loaded machine is slow
NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
FLAGS = (
  '--headless=new',
  '--no-sandbox',  # a container's root has none
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--no-first-run',
  '--remote-debugging-pipe',
)


# The protocol's pipe is the third and the fourth file of the process.
START = """
import os, sys
for number, place in zip(map(int, sys.argv[1:3]), (3, 4)):
  os.dup2(number, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


def chromium():
  """Its path, or None."""
  return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
  """One page; `errors` has what its console and its scripts complained of."""

  def __init__(self, read, write):
    self._read, self._write, self._buffer = read, write, b''
    self._numbers, self._session = itertools.count(1), None
    self.errors, self.requests, self._events = [], [], []
    target = self.call('Target.createTarget', url='about:blank')['targetId']
    found = self.call('Target.attachToTarget', targetId=target, flatten=True)
    self._session = found['sessionId']
    for domain in ('Page', 'Runtime', 'Log', 'Network'):
      self.call(f'{domain}.enable')

  def call(self, method, **parameters):
    number = next(self._numbers)
    message = {'id': number, 'method': method, 'params': parameters}
    if self._session:
      message['sessionId'] = self._session
    os.write(self._write, json.dumps(message).encode() + b'\0')
    while True:
      answer = self._next()
      if answer.get('id') == number:
        assert 'error' not in answer, (method, answer)
        return answer['result']
      self._note(answer)

  def _next(self):
    end = time.monotonic() + SECONDS
    while b'\0' not in self._buffer:
      left = max(0.0, end - time.monotonic())
      assert select.select([self._read], [], [], left)[0], 'the browser does not answer'
      part = os.read(self._read, 1 << 16)
      assert part, 'the browser has ended'
      self._buffer += part
    message, _, self._buffer = self._buffer.partition(b'\0')
    return json.loads(message)

  def _note(self, event):
    name, about = event.get('method', ''), event.get('params', {})
    self._events.append(name)
    if name == 'Runtime.exceptionThrown':
      self.errors.append(about['exceptionDetails'])
    elif name == 'Runtime.consoleAPICalled' and about['type'] in ('error', 'warning'):
      self.errors.append(about)
    elif name == 'Log.entryAdded' and about['entry']['level'] in ('error', 'warning'):
      self.errors.append(about['entry'])
    elif name == 'Network.requestWillBeSent':
      self.requests.append(about['request']['url'])

  def open(self, path):
    """A file, as from a disk; returns when it is loaded."""
    self._events = []
    self.call('Page.navigate', url=path.resolve().as_uri())
    while 'Page.loadEventFired' not in self._events:
      self._note(self._next())

  def run(self, script):
    """The value of an expression in the page, as if a key or a click had called it."""
    options = {'returnByValue': True, 'userGesture': True}
    found = self.call('Runtime.evaluate', expression=script, **options)
    assert 'exceptionDetails' not in found, found
    return found['result'].get('value')

  def press(self, key, code):
    for kind in ('keyDown', 'keyUp'):
      about = {'key': key, 'code': key, 'windowsVirtualKeyCode': code}
      if kind == 'keyDown' and key == 'Enter':
        about['text'] = '\r'
      self.call('Input.dispatchKeyEvent', type=kind, **about)

  def close(self):
    self._session = None
    self.call('Browser.close')

  def width(self, pixels, height=800):
    self.call(
      'Emulation.setDeviceMetricsOverride',
      width=pixels,
      height=height,
      deviceScaleFactor=1,
      mobile=False,
    )

  def media(self, scheme, kind='screen'):
    features = [{'name': 'prefers-color-scheme', 'value': scheme}]
    self.call('Emulation.setEmulatedMedia', media=kind, features=features)

  def shot(self, path, whole=False):
    found = self.call('Page.captureScreenshot', captureBeyondViewport=whole)
    path.write_bytes(base64.b64decode(found['data']))


@contextlib.contextmanager
def browser(folder):
  """A browser with its profile in `folder`."""
  to_read, write = map(_high, os.pipe())
  read, to_write = map(_high, os.pipe())
  flags = [*FLAGS, f'--user-data-dir={folder}']
  process = subprocess.Popen(
    [sys.executable, '-c', START, str(to_read), str(to_write), chromium(), *flags],
    pass_fds=(to_read, to_write),
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    start_new_session=True,
  )
  os.close(to_read)
  os.close(to_write)
  try:
    page = Browser(read, write)
    yield page
    page.close()
    process.wait(SECONDS)
  finally:
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()
    os.close(read)
    os.close(write)


def _high(descriptor):
  """The same pipe under a number that is neither of the two that the browser reads."""
  found = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
  os.close(descriptor)
  return found
