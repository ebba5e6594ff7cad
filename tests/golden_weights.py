"""The original programs' weights for our networks, for tests only: TF1 arrays, PyTorch and Paddle files.

Both file kinds are pickles, which can run code when loaded; the readers here admit only the few names that
arrays need. PyTorch itself is not used: its files are zip archives of a pickle and raw arrays.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_UPSAMPLED = ("conv13", "conv15", "allconv13", "allconv15")


def tf1_name(network: str, parameter: str) -> str:
    """TF1's variable for a parameter of "generator", "local_critic" or "global_critic"."""
    part, layer = parameter.split(".")[:2]
    kind = "kernel" if parameter.endswith("weight") else "bias"
    if network != "generator":
        side = network.split("_")[0]
        if part == "linear":
            return f"discriminator/dout_{side}_fc/{kind}"
        return f"discriminator/discriminator_{side}/{layer}/{kind}"
    if part == "fine_generator" and layer.startswith("conv"):
        layer = f"x{layer}"
    return (
        f"inpaint_net/{layer}_upsample/{layer}_upsample_conv/{kind}"
        if layer in _UPSAMPLED
        else (f"inpaint_net/{layer}/{kind}")
    )


def from_tf1(array: np.ndarray, grid: int = 1) -> np.ndarray:
    """TF1's layout in ours: HWIO kernels to OIHW; dense rows from H, W, C to C, H, W (H = W = grid)."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if array.ndim == 2:
        return array.reshape(grid, grid, -1, 1).transpose(2, 0, 1, 3).reshape(-1, 1)
    return array


def dense_grid(network: Any) -> int:
    """Side of the feature map that a critic flattens; 1 for the generator."""
    return -(-network.size[0] // 16) if hasattr(network, "size") else 1


def tf1_arrays(name: str, network: Any, variables: Mapping[str, np.ndarray], prefix: str = "") -> dict:
    """Those of `network`'s parameters (or gradients, with a prefix) that `variables` holds, in our layout."""
    found = {}
    for parameter in network.state_dict():
        key = prefix + tf1_name(name, parameter)
        if key in variables:
            found[parameter] = from_tf1(variables[key], dense_grid(network))
    return found


def tf1_shapes(name: str, network: Any) -> dict[str, list[int]]:
    """The shapes that TF1's variables need to have to fit a network."""
    shapes = {}
    for parameter, value in network.state_dict().items():
        shape = list(value.shape)
        shapes[tf1_name(name, parameter)] = [*shape[2:], shape[1], shape[0]] if len(shape) == 4 else shape
    return shapes


def full_width_shapes(path: Path) -> dict[str, list[int]]:
    """The recorded list of the full-width TF1 variables: lines of a name, a shape in brackets, a count."""
    shapes = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            name, rest = line.split(" ", 1)
            shapes[name] = [int(size) for size in rest[rest.index("[") + 1 : rest.index("]")].split(",")]
    return shapes


def fill(network: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Sets all parameters of a network; every name and shape must fit."""
    own = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert own == {name: list(value.shape) for name, value in arrays.items()}
    network.set_state_dict({name: np.ascontiguousarray(value) for name, value in arrays.items()})


class _Restricted(pickle.Unpickler):
    def __init__(
        self, file: io.BufferedIOBase, allowed: Mapping[tuple[str, str], Any], load: Callable | None = None
    ):
        super().__init__(file)
        self.allowed = allowed
        self.load_storage = load

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted")
        return self.allowed[module, name]

    def persistent_load(self, pid: Any) -> Any:
        if self.load_storage is None:
            raise pickle.UnpicklingError("no storages are expected")
        return self.load_storage(pid)


def _rebuild_tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: Any) -> np.ndarray:
    strides = tuple(step * storage.itemsize for step in stride)
    assert offset + sum((n - 1) * step for n, step in zip(size, stride)) < storage.size
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides).copy()


def load_pt(path: Path) -> Any:
    """The contents of a PyTorch file with float32 tensors, as arrays."""
    with zipfile.ZipFile(path) as archive:
        (index,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = index.rsplit("/", 1)[0]

        def storage(pid: tuple) -> np.ndarray:
            kind, dtype, key, _, count = pid
            assert kind == "storage"
            return np.frombuffer(archive.read(f"{folder}/data/{key}"), dtype, count)

        allowed = {
            ("torch", "FloatStorage"): np.float32,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("collections", "OrderedDict"): collections.OrderedDict,
        }
        return _Restricted(io.BytesIO(archive.read(index)), allowed, storage).load()


def load_pdparams(path: Path) -> Any:
    """The contents of a Paddle file: arrays, or pairs of a name and an array."""
    reconstruct = np.ndarray(0).__reduce__()[0]
    allowed = {
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("builtins", "tuple"): tuple,
    }
    with open(path, "rb") as file:
        return _Restricted(file, allowed).load()


def from_pytorch(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PyTorch's linear weights are the transpose of ours; everything else is alike."""
    return {name: value.T if name == "linear.weight" else value for name, value in state.items()}


def from_paddle(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {}
    for name, value in state.items():
        value = value[1] if isinstance(value, tuple) else value
        if isinstance(value, np.ndarray):
            arrays[name] = value
    return arrays
