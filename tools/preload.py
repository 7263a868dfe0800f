"""Imports all that a run imports up to its last step: for a process that forks runs, each of which then lacks nothing.

Forked, a small run takes half as long: torch._dynamo (asked by every optimiser) and scikit-learn alone take seconds.
"""

import contextlib
import gc

import deepspeed  # noqa: F401
import open_clip  # noqa: F401
import sklearn.linear_model  # noqa: F401
import sklearn.mixture  # noqa: F401
import timm  # noqa: F401
import torch._dynamo  # noqa: F401
import transformers.models.bert  # noqa: F401

import distpre.train  # noqa: F401
from distpre.runtime.build import compile_at_first_call
from distpre.views.text import open_clips

with compile_at_first_call():
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401  (each engine imports it: 2 s)

with contextlib.suppress(ImportError):  # it is optional
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401

open_clips(None)
gc.freeze()  # no run walks through what it never frees, nor copies its pages
