"""Set-up that these tests need besides that of the conftest.py above them."""

import os

# Mosaic GPU's interpreter has a thread of JAX's CPU client for each warpgroup, and one that
# waits holds it: with as many as there are cores, two of them can wait for a third forever.
# The client reads this when it starts.
os.environ.setdefault('NPROC', '16')
