"""The rules of the house (docs/design.md, section 3), read from the source by `ast`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "patchflow"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400

# A module imports only from its own line and the lines above it.
LINES = (
    ("errors", "types", "seeding", "notices", "files"),
    ("geometry",),
    ("kernels",),
    ("images",),
    ("subjects",),
    ("quality",),
    ("preprocess",),
    ("cache",),
    ("sampling",),
    ("augment",),
    ("loading",),
    ("inference",),
    ("datamodule", "callbacks", "segmentation"),
    ("adapters", "show"),
    ("testing",),
    ("cli", "commands", "demo", "__main__"),
)
LINE_OF = {room: number for number, rooms in enumerate(LINES) for room in rooms}

# Names that make or steer a random generator, by the module they hang from.
GENERATOR_MAKERS = {
    "np.random": None,  # every call
    "numpy.random": None,
    "random": None,
    "torch": {
        "Generator",
        "manual_seed",
        "seed",
        "set_rng_state",
        "rand",
        "randn",
        "randint",
        "randperm",
        "normal",
        "bernoulli",
        "multinomial",
    },
    "torch.random": None,
    "torch.cuda": {"manual_seed", "manual_seed_all"},
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def label(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every module that is imported anywhere below `tree`, with its line; `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{'.' * node.level}{node.module or ''}.{alias.name}", node.lineno) for alias in node.names)


def top(module: str) -> str:
    return module.split(".")[0]


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name called, where it has one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            yield ast.unparse(node.func), node


each_file = pytest.mark.parametrize("path", FILES, ids=label)


@each_file
def test_imports_go_upwards_only(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return
    own = LINE_OF[room_of(path)]
    wrong = []
    for module, line in imports(parse(path)):
        assert not module.startswith("."), f"{label(path)}:{line}: a relative import"
        if top(module) != "patchflow":
            continue
        if module == "patchflow" and own == len(LINES) - 1:
            continue  # the last line stands where users stand
        target = module.split(".")[1] if "." in module else "patchflow"
        if LINE_OF.get(target, len(LINES)) > own:
            wrong.append(f"{label(path)}:{line} imports {module}")
    assert not wrong


@each_file
def test_no_import_of_patchflow_inside_a_function(path: Path) -> None:
    functions = [node for node in ast.walk(parse(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))]
    assert not [f"{label(path)}:{line} {module}" for node in functions for module, line in imports(node) if top(module) == "patchflow"]


@pytest.mark.parametrize("path", [path for path in FILES if path.name == "__init__.py" and path.parent != PACKAGE], ids=label)
def test_init_only_re_exports(path: Path) -> None:
    for node in parse(path).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        names = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        assert docstring or names or isinstance(node, ast.ImportFrom), f"{label(path)}:{node.lineno}: {ast.unparse(node)}"


@each_file
def test_files_hold_one_thing(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@each_file
def test_only_seeding_makes_generators(path: Path) -> None:
    if path == PACKAGE / "seeding.py":
        return
    tree = parse(path)
    found = [
        f"{label(path)}:{line} imports {module}"
        for module, line in imports(tree)
        if module == "random" or module.startswith("numpy.random")
    ]
    for name, node in calls(tree):
        owner, _, function = name.rpartition(".")
        makers = GENERATOR_MAKERS.get(owner, set())
        given = any(keyword.arg == "generator" for keyword in node.keywords)
        if (makers is None or function in makers) and not given:
            found.append(f"{label(path)}:{node.lineno} {name}")
    assert not found


@each_file
def test_only_the_layout_knows_hdf5_names(path: Path) -> None:
    tree = parse(path)
    own = {PACKAGE / name for name in ("cache/layout.py", "images/slabs.py", "images/decoder.py")}  # each the home of one format
    if path in own or "h5py" not in {top(module) for module, _ in imports(tree)}:
        return
    assert room_of(path) == "cache", f"{label(path)} imports h5py"
    found = []
    for name, node in calls(tree):
        method = name.rpartition(".")[2]
        literal = node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
        if method in {"create_dataset", "create_group", "require_dataset", "require_group"} and literal:
            found.append(f"{label(path)}:{node.lineno} {ast.unparse(node)}")
    for subscript in (node for node in ast.walk(tree) if isinstance(node, ast.Subscript)):
        if isinstance(subscript.value, ast.Attribute) and subscript.value.attr == "attrs" and isinstance(subscript.slice, ast.Constant):
            found.append(f"{label(path)}:{subscript.lineno} {ast.unparse(subscript)}")
    assert not found


@each_file
def test_only_what_lightning_calls_or_trains_with_it_imports_it(path: Path) -> None:
    if label(path) in {"datamodule.py", "callbacks.py", "segmentation.py", "demo.py", "commands/training.py"}:
        return
    assert not [f"{label(path)}:{line}" for module, line in imports(parse(path)) if top(module) in {"lightning", "pytorch_lightning"}]


@each_file
def test_only_the_command_line_and_the_demo_print(path: Path) -> None:
    if room_of(path) in {"cli", "commands", "demo"}:
        return
    assert not [f"{label(path)}:{node.lineno}" for name, node in calls(parse(path)) if name == "print"]


@each_file
def test_heavy_packages_are_imported_where_they_are_used(path: Path) -> None:
    heavy = {"matplotlib", "nilearn", "SimpleITK", "pydicom", "blosc2", "pandas", "monai", "torchio"}
    body = ast.Module([node for node in parse(path).body if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.If))], [])
    assert not [f"{label(path)}:{line} {module}" for module, line in imports(body) if top(module) in heavy]


@each_file
def test_no_stubs_and_no_notes_to_self(path: Path) -> None:
    text = path.read_text()
    assert not [mark for mark in ("TODO", "FIXME", "XXX") if mark in text]
    for node in ast.walk(parse(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            stub = [part for part in node.body if isinstance(part, ast.Raise) and "NotImplementedError" in ast.dump(part)]
            abstract = any("abstractmethod" in ast.unparse(decorator) for decorator in node.decorator_list)
            assert not stub or abstract, f"{label(path)}:{node.lineno} {node.name} is a stub"


@each_file
def test_no_exception_is_swallowed(path: Path) -> None:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
            silent = all(isinstance(part, (ast.Pass, ast.Continue)) for part in node.body)
            assert not (broad and silent), f"{label(path)}:{node.lineno}"
