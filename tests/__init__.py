"""Tests, in folders as the packages have."""

import os

# Before torch is imported. The models here are tiny: of several threads each would mostly wait for
# the others, at full speed; and `pytest -n 2` has two processes already.
os.environ.setdefault("OMP_NUM_THREADS", "1")
