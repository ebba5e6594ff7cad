"""matplotlib for the tools that draw; nothing else needs it, and it need not be installed."""

from __future__ import annotations

from types import ModuleType

from utils.cli import UserError


def load_pyplot() -> ModuleType:
    """matplotlib.pyplot for pictures in files: no window is opened. Raises UserError where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise UserError("matplotlib is not installed: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
