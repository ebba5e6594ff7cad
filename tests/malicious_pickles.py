"""Pickles that run something when loaded: each makes a folder, the canary. For tests only."""

from __future__ import annotations

import importlib
import os
import pickle
import struct
import subprocess
import time
import timeit
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np


class Gadget:
    def __init__(self, *reduced: Any):
        self.reduced = reduced

    def __reduce__(self) -> tuple:
        return self.reduced


class Subclass(dict):
    """A dict with a state that is set by a gadget's result."""

    def __init__(self, inner: Any):
        super().__init__()
        self.inner = inner

    def __reduce__(self) -> tuple:
        return OrderedDict, (), {"state": self.inner}


def simple(canary: Path) -> dict[str, Any]:
    code = f"__import__('os').mkdir({str(canary)!r})"
    return {
        "mkdir": Gadget(os.mkdir, (str(canary),)),
        "system": Gadget(os.system, (f"mkdir {canary}",)),
        "Popen": Gadget(subprocess.check_call, (["mkdir", str(canary)],)),
        "eval": Gadget(eval, (code,)),
        "exec": Gadget(exec, (code,)),
        "getattr": Gadget(getattr, (Gadget(importlib.import_module, ("os",)), "mkdir")),
        "path": Gadget(Path.mkdir, (canary,)),
        "makedirs": Gadget(os.makedirs, (str(canary),)),
        "map": Gadget(list, (Gadget(map, (os.mkdir, [str(canary)])),)),
        "timeit": Gadget(timeit.timeit, (code, "pass", time.perf_counter, 1)),
    }


def wrapped(gadget: Any) -> dict[str, Any]:
    """The places where a gadget may hide; each among arrays that look right."""
    weight = np.ones((2, 2), np.float32)
    return {
        "alone": gadget,
        "value": {"coarse_generator.conv1.conv.weight": weight, "other": gadget},
        "key": {(1, gadget): weight},
        "nested": {"localD": {"a": [(weight, {"b": (gadget,)})]}},
        "optimiser": {"gen": {"state": {0: {"step": gadget, "exp_avg": weight}}}, "dis": {}},
        "state of a table": {"a": weight, "b": Subclass(gadget)},
        "pair": {"a": Gadget(tuple, (("name", gadget),))},
    }


def handwritten(canary: Path) -> dict[str, bytes]:
    """What Python's own pickler does not write."""
    path = str(canary).encode()
    weight = b"X\x06\x00\x00\x00weight"
    text = b"X" + struct.pack("<I", len(path)) + path
    dtype = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4I00\nI01\ntR"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + weight + b"tR"
    return {
        "INST": b"(S'" + path + b"'\nios\nmkdir\n.",
        "OBJ": b"\x80\x02(cos\nmkdir\n" + text + b"o.",
        "NEWOBJ": b"\x80\x02csubprocess\nPopen\n(](X\x05\x00\x00\x00mkdir" + text + b"et\x81.",
        "thrown away": b"\x80\x02cos\nmkdir\n(" + text + b"tR0}.",
        "memo": b"\x80\x02cos\nmkdir\nq\x000h\x00(" + text + b"tR0}.",
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x08os.mkdir\x93" + text + b"\x85R.",
        "after something valid": b"\x80\x02}(" + weight + dtype + b"K\x00cos\nmkdir\n(" + text + b"tRu.",
        "BUILD of a dtype": b"\x80\x02" + dtype + b"cos\nmkdir\n(" + text + b"tRb.",
        "call of an array": b"\x80\x02" + array + b"(" + text + b"tR.",
        "call of ndarray": b"\x80\x02cnumpy\nndarray\n((J\x00\x00\x00\x7ftJ\x00\x00\x00\x7ftR.",
        "EXT": b"\x80\x02\x82\x01(" + text + b"tR.",
        "PERSID": b"P" + path + b"\n.",
    }


def protocols() -> range:
    return range(pickle.HIGHEST_PROTOCOL + 1)
