"""The rules of the house, held by reading the imports of every module."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("models", "data", "utils")
SCRIPTS = ("train", "test")
# The files of tools/ are scripts, too, but for these, which tools alone import: the parts of the page.
TOOL_MODULES = {"web_page", "web_steps"}
TOOL_SCRIPTS = {path.stem for path in (PROJECT / "tools").glob("*.py")} - TOOL_MODULES
OWN = (*PACKAGES, *SCRIPTS, "trainer", "tester", "tools", "tests")
RUNTIME = {"paddle", "numpy", "cv2", "yaml", "tqdm", "skimage"}
WITH_SKIMAGE = {"scipy", "PIL", "imageio", "tifffile"}  # installed with scikit-image

# the places that exist to import paddle, to choose its device and to speak to those of other processes
PADDLE_IN_UTILS = {"utils/cli.py", "utils/device.py", "utils/ranks.py"}
# the one that may import an optional package of the main road, where the configuration asks for it
OPTIONAL = {"utils/monitor.py": {"visualdl"}}

# of utils, what may read images and their masks by data
WITH_DATA = ("utils/evaluation/", "utils/inpaint.py")

# what data may import of utils
ERRORS = {"utils.cli", *(f"utils.cli.{name}" for name in ("UserError", "one_line", "printable"))}

# who may import which of our own packages; whoever is not named here may import what is not a script
ALLOWED = {
    "models": {"models"},
    "data": {"data", "utils"},  # of utils the errors alone
    "utils": {"utils"},
    "trainer": {"models"},
    "tester": {"models", "utils", "data"},
}
# Modules of utils that may import data: what is made of images of users, and of evaluations.
WITH_DATA = ("utils/inpaint.py", "utils/image_jobs.py", "utils/evaluation/")


def imported_modules(source: str, package: str = "") -> set[str]:
    """Full dotted names of all modules that a source imports, at any depth; `from a import b` gives a, a.b.

    `package` is the dotted package that relative imports start from.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(filter(None, [package.rsplit(".", node.level - 1)[0], base]))
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            found.update(str(name) for name in names)
    return found


def owner(path: Path) -> str:
    """The package or top-level module that a file belongs to."""
    relative = path.relative_to(PROJECT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def source_files() -> list[Path]:
    folders = [PROJECT / name for name in (*PACKAGES, "tools")]
    return sorted([*PROJECT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))])


def violations(owner_name: str, imports: set[str]) -> list[str]:
    """What is wrong with a module of `owner_name` that imports these."""
    roots = {name.split(".")[0] for name in imports}
    own = roots & set(OWN)
    wrong = [f"{owner_name} imports {name}" for name in sorted(own - ALLOWED.get(owner_name, own))]
    forbidden = roots & {*SCRIPTS, *TOOL_SCRIPTS, "tools", "tests"}
    wrong += [f"{owner_name} imports the script {name}" for name in sorted(forbidden)]
    if owner_name != "tools":
        wrong += [f"{owner_name} imports {name}, which only tools may" for name in sorted(roots & TOOL_MODULES)]
    if owner_name in ("data", "utils") and "paddle" in roots:
        wrong.append(f"{owner_name} imports paddle")
    if owner_name == "data" and {name for name in imports if name.startswith("utils.")} - ERRORS:
        wrong.append("data imports more of utils than its errors")
    if "matplotlib" in roots and owner_name != "tools":
        wrong.append(f"{owner_name} imports matplotlib, which only tools may")
    return wrong


FILES = source_files()


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PROJECT)) for path in FILES])
def test_imports_keep_to_the_rules(path: Path) -> None:
    package = ".".join(path.relative_to(PROJECT).parts[:-1])
    imports = imported_modules(path.read_text(encoding="utf-8"), package)
    if path.relative_to(PROJECT).as_posix() in PADDLE_IN_UTILS:
        imports.discard("paddle")
    if path.relative_to(PROJECT).as_posix().startswith(WITH_DATA):
        imports = {name for name in imports if name.split(".")[0] != "data"}
    assert violations(owner(path), imports) == []


@pytest.mark.skipif(sys.version_info < (3, 10), reason="Python 3.9 cannot list its own modules")
@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PROJECT)) for path in FILES])
def test_main_road_needs_the_listed_packages_only(path: Path) -> None:
    if owner(path) == "tools":
        pytest.skip("tools may have optional dependencies")
    package = ".".join(path.relative_to(PROJECT).parts[:-1])
    roots = {name.split(".")[0] for name in imported_modules(path.read_text(encoding="utf-8"), package)}
    roots -= OPTIONAL.get(path.relative_to(PROJECT).as_posix(), set())
    assert roots - RUNTIME - WITH_SKIMAGE - set(OWN) - sys.stdlib_module_names == set()


def test_there_is_something_to_check() -> None:
    owners = {owner(path) for path in FILES}
    assert {*PACKAGES, *SCRIPTS, "trainer", "tester", "tools"} <= owners


@pytest.mark.parametrize(
    ("owner_name", "source", "expected"),
    [
        ("models", "import utils.config", ["models imports utils"]),
        ("models", "def f():\n    from data import masks", ["models imports data"]),
        ("utils", "from models.layers import crop", ["utils imports models"]),
        ("trainer", "import tester", ["trainer imports tester"]),
        ("trainer", "from utils import logger", ["trainer imports utils"]),
        ("tester", "import trainer", ["tester imports trainer"]),
        ("test", "from train import main", ["test imports the script train"]),
        ("tools", "import tools.make_demo_data", ["tools imports the script tools"]),
        ("tools", "import make_demo_data", ["tools imports the script make_demo_data"]),
        ("tester", "import web_page", ["tester imports web_page, which only tools may"]),
        ("tools", "import web_page", []),
        ("utils", "from data.image_io import read_image", ["utils imports data"]),
        ("data", "from utils.cli import UserError", []),
        ("data", "from utils.config import load_config", ["data imports more of utils than its errors"]),
        ("data", "import paddle.io as io", ["data imports paddle"]),
        ("data", "from paddle import io", ["data imports paddle"]),
        ("utils", "import paddle", ["utils imports paddle"]),
        ("utils", "import importlib\nimportlib.import_module('models.layers')", ["utils imports models"]),
        ("utils", "import matplotlib.pyplot", ["utils imports matplotlib, which only tools may"]),
        ("tools", "def f():\n    import matplotlib", []),
        ("models", "from .layers import crop", []),
        ("train", "import models, data, utils, trainer, paddle", []),
        ("tester", "from models import generator\nfrom utils import checkpoint", []),
    ],
)
def test_violations_are_seen(owner_name: str, source: str, expected: list[str]) -> None:
    assert violations(owner_name, imported_modules(source, owner_name)) == expected
