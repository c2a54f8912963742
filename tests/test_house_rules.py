"""The rules of CONTRIBUTING.md that neither ruff nor mypy nor import-linter can check."""

from __future__ import annotations

import ast
import asyncio
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aiolibp2p.version import VERSION
from tests.conftest import GUARD, SocketsNotAllowedError, run_real

ROOT = Path(__file__).parent.parent
FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 60
PARAMETERS_MAX = 7
WAITS = frozenset({"timeout", "timeout_at", "sleep", "call_later", "call_at", "wait_for", "wait"})
UNWANTED_WORDS = ("Manager", "Helper", "Util", "Utils", "Base", "Service", "Impl")
ASYNCIO_NAMES = frozenset(
    name
    for interface in (asyncio.AbstractEventLoop, asyncio.BufferedProtocol, asyncio.Task, asyncio.Transport)
    for name in dir(interface)
)
REAL_WORLD = ("runtime.py", "sim/")
STORAGE_THREADS = ("blocks/lmdb_map.py", "blocks/threads.py")
"""Storage blocks, so it has threads of its own; they are bounded by Limits and owned by the store."""
GET_NAMES = frozenset({"get_many"})
"""Names of the public contract that begin with `get_`."""
BANNED_CALLS = {
    "asyncio.ensure_future": "a task has an owner and a name",
    "asyncio.create_task": "a task has an owner and a name",
    "asyncio.get_event_loop": "only inside a coroutine, with get_running_loop",
    "loop.time": "time comes from Runtime.clock",
    "datetime.now": "time comes from Runtime.clock",
    "datetime.utcnow": "time comes from Runtime.clock",
    "uuid.uuid4": "random bytes come from Runtime.entropy",
}
BANNED_MODULES = frozenset({"time", "random", "secrets", "uuid", "threading", "socket", "ssl"})

Rule = Callable[[ast.Module], Iterator[str]]


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def dotted(node: ast.expr) -> str:
    """Return `a.b.c` for a name or a chain of attributes; of anything longer, the last two parts."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value).rpartition('.')[2]}.{node.attr}"
    return ""


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def long_functions(tree: ast.Module) -> Iterator[str]:
    for function in functions(tree):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield f"{function.lineno}: {function.name} has {lines} lines"


def many_parameters(tree: ast.Module) -> Iterator[str]:
    for function in functions(tree):
        args = function.args
        by_keyword = list(zip(args.kwonlyargs, args.kw_defaults, strict=True))
        if function.name == "__init__":
            # Options of a constructor, each by keyword and with a default, may be many.
            by_keyword = [(arg, default) for arg, default in by_keyword if default is None]
        names = [arg.arg for arg in (*args.posonlyargs, *args.args, *(arg for arg, _ in by_keyword))]
        counted = [name for name in names if name not in ("self", "cls")]
        if len(counted) > PARAMETERS_MAX:
            yield f"{function.lineno}: {function.name} has {len(counted)} parameters"


def own_numbers(value: ast.expr) -> list[int | float]:
    """Return the numbers in an expression; not those that only scale a name, as in `timeouts.dial * 2`."""
    if isinstance(value, ast.Constant):
        number = value.value
        return [number] if isinstance(number, int | float) and not isinstance(number, bool) and number != 0 else []
    parts = [own_numbers(part) for part in ast.iter_child_nodes(value) if isinstance(part, ast.expr)]
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Mult | ast.Div) and not all(parts):
        return []
    return [number for part in parts for number in part]


def literal_durations(tree: ast.Module) -> Iterator[str]:
    for name, call in calls(tree):
        if name.rpartition(".")[2] not in WAITS:
            continue
        for value in (*call.args, *(keyword.value for keyword in call.keywords)):
            for number in own_numbers(value):
                yield f"{call.lineno}: {name} takes the number {number}: durations live in Timeouts"


def real_world(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            modules = names if isinstance(node, ast.Import) else [node.module or ""]
            if modules == ["os"] and "urandom" in names:
                yield f"{node.lineno}: imports os.urandom: random bytes come from Runtime.entropy"
            for module in modules:
                if module.partition(".")[0] in BANNED_MODULES:
                    yield f"{node.lineno}: imports {module}: only runtime.py does"
        if isinstance(node, ast.Attribute) and dotted(node) == "os.urandom":
            yield f"{node.lineno}: uses os.urandom: random bytes come from Runtime.entropy"
    for called, call in calls(tree):
        name = called.lstrip("_")
        if name in BANNED_CALLS:
            yield f"{call.lineno}: calls {name}: {BANNED_CALLS[name]}"


def nameless_tasks(tree: ast.Module) -> Iterator[str]:
    for name, call in calls(tree):
        if name.endswith("create_task") and not any(keyword.arg == "name" for keyword in call.keywords):
            yield f"{call.lineno}: {name} without name=: every task has a name"


def unwanted_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            name = node.name.lstrip("_")
            if name.endswith(UNWANTED_WORDS) or name.startswith(UNWANTED_WORDS):
                yield f"{node.lineno}: class {node.name}: say what it holds or does"
            if re.match(r"I[A-Z][a-z]", name):
                yield f"{node.lineno}: class {node.name}: no I prefix"
    for function in functions(tree):
        if function.name.lstrip("_").startswith("get_") and function.name not in ASYNCIO_NAMES | GET_NAMES:
            yield f"{function.lineno}: {function.name}: no get_ prefix"


def missing_future_import(tree: ast.Module) -> Iterator[str]:
    code = [node for node in tree.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    if code and not (isinstance(code[0], ast.ImportFrom) and code[0].module == "__future__"):
        yield "1: does not begin with `from __future__ import annotations`"


def reasonless_skips(tree: ast.Module) -> Iterator[str]:
    for name, call in calls(tree):
        if name.rpartition(".")[2] not in ("skip", "skipif", "xfail") or not name.startswith(("pytest.", "mark.")):
            continue
        reasons = [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
        if name == "pytest.skip":
            reasons += call.args[:1]
        if not any(isinstance(reason, ast.Constant | ast.JoinedStr) for reason in reasons):
            yield f"{call.lineno}: {name} gives no reason"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                if dotted(decorator) in ("mark.skip", "mark.xfail"):
                    yield f"{decorator.lineno}: {dotted(decorator)} gives no reason"


def timed_waits(tree: ast.Module) -> Iterator[str]:
    for name, call in calls(tree):
        if name == "time.sleep":
            yield f"{call.lineno}: a test sleeps"
        if name == "asyncio.sleep" and not (
            len(call.args) == 1 and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0
        ):
            yield f"{call.lineno}: a test sleeps on a real loop"


SOURCE_RULES: tuple[Rule, ...] = (
    long_functions,
    many_parameters,
    literal_durations,
    nameless_tasks,
    unwanted_names,
    missing_future_import,
)
TEST_RULES: tuple[Rule, ...] = (reasonless_skips, missing_future_import)
EVERY_RULE: tuple[Rule, ...] = (*SOURCE_RULES, real_world, reasonless_skips, timed_waits)

BAD_SNIPPETS: dict[Rule, tuple[str, ...]] = {
    long_functions: ("def f():\n" + "    pass\n" * FUNCTION_LINES_MAX,),
    many_parameters: (
        "def f(self, a, b, c, d, *, e=0, f=0, g, h): ...",
        "def __init__(self, *, a, b, c, d, e, f, g, h): ...",
    ),
    literal_durations: (
        "asyncio.timeout(5)",
        "await asyncio.sleep(delay=0.1)",
        "loop.call_later(2 * 60, f)",
        "clock.call_at(now + 1.5, f)",
    ),
    nameless_tasks: ("loop.create_task(f())", "group.create_task(f())"),
    unwanted_names: ("class PeerManager: ...", "class BaseStream: ...", "class _IHost: ...", "def get_peer(): ..."),
    missing_future_import: ('"""Say."""\nimport os',),
    real_world: (
        "import time",
        "from random import randbytes",
        "import socket as s",
        "os.urandom(4)",
        "from os import urandom",
        "self._loop.time()",
        "asyncio.ensure_future(f())",
    ),
    reasonless_skips: ("pytest.skip()", "@pytest.mark.xfail\ndef f(): ...", "pytest.mark.skipif(True)"),
    timed_waits: ("time.sleep(1)", "await asyncio.sleep(0.5)"),
}

BAD_TEXT = {
    "unfinished": re.compile(r"\b(TODO|FIXME|XXX)\b"),
    "package address": re.compile(r"https?://\S+\.(whl|tgz|tar\.gz|zip)\b"),
    "registry": re.compile(r"(--(extra-)?index-url|--find-links|\"resolved\"\s*:)"),
    "registry host": re.compile(
        r"\b(pypi\.(org|python\.org)|files\.pythonhosted|registry\.(npmjs|yarnpkg)|proxy\.golang)"
    ),
    "path of one machine": re.compile(r"(?<![\w.])/(root|work|home)/\w"),
}
BAD_TEXT_EXAMPLES = {
    "unfinished": "# TODO: later",
    "package address": "https://host.example/a-1.0.whl",
    "registry": '"resolved": "x"',
    "registry host": "proxy.golang.org",
    "path of one machine": "cd /home/someone/checkout",
}


def source_files() -> list[Path]:
    return [path for path in sorted((ROOT / "src").rglob("*.py")) if not path.name.endswith("_pb2.py")]


def own_files(*folders: str) -> list[Path]:
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    installed = {"node_modules", ".venv"}
    return [path for path in paths if not installed & set(path.parts) and not path.name.endswith("_pb2.py")]


def tracked_files() -> list[Path]:
    """Return the files in git, or, where there is no git, all that look like text of ours."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    return own_files("src", "tests", "benchmarks", "examples")


def broken(paths: list[Path], rules: tuple[Rule, ...]) -> list[str]:
    found = []
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        found += [f"{path.relative_to(ROOT)}:{finding}" for rule in rules for finding in rule(tree)]
    return found


def test_source_keeps_the_rules() -> None:
    assert not broken(source_files(), SOURCE_RULES)


def test_only_the_runtime_and_the_simulator_reach_the_real_world() -> None:
    package = ROOT / "src" / "aiolibp2p"
    inside = [path for path in source_files() if not str(path.relative_to(package)).startswith(REAL_WORLD)]
    threads = tuple(f"src/aiolibp2p/{name}:" for name in STORAGE_THREADS)
    found = broken(inside, (real_world,))
    assert not [line for line in found if not (line.startswith(threads) and "imports threading:" in line)]


def test_tests_and_examples_keep_the_rules() -> None:
    assert not broken(own_files("tests", "benchmarks", "examples"), TEST_RULES)


def test_no_test_sleeps() -> None:
    marked = {"interop"}  # they poll programs of other stacks, on real time
    paths = [path for path in own_files("tests") if not marked & set(path.parts)]
    assert not broken([path for path in paths if path != Path(__file__)], (timed_waits,))


@pytest.mark.parametrize("rule", EVERY_RULE, ids=lambda rule: rule.__name__)
def test_each_rule_can_fail(rule: Rule) -> None:
    for snippet in BAD_SNIPPETS[rule]:
        assert list(rule(ast.parse(snippet))), snippet


def test_no_file_is_longer_than_800_lines() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in own_files("src", "tests")}
    assert not {str(path): n for path, n in lines.items() if n > FILE_LINES_MAX}


def test_no_tracked_file_names_a_registry_a_machine_or_unfinished_work() -> None:
    found = []
    for path in tracked_files():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for what, pattern in BAD_TEXT.items():
            found += [f"{path.relative_to(ROOT)}: {what}: {match[0]}" for match in pattern.finditer(text)]
    assert not found


@pytest.mark.parametrize("what", BAD_TEXT)
def test_each_text_rule_can_fail(what: str) -> None:
    assert BAD_TEXT[what].search(BAD_TEXT_EXAMPLES[what])


def requirements(name: str) -> set[str]:
    """Return the entries of a locked file, each with its hashes."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return {entry.strip() for entry in re.split(r"\n(?=\S)", text) if entry.strip()}


def test_every_pinned_requirement_has_a_hash() -> None:
    for name in ("run.txt", "test.txt", "demo.txt", "py-build.txt", "py-peer.txt"):
        entries = requirements(name)
        assert entries
        for entry in entries:
            assert re.match(r"[a-z0-9-]+==[^\s;]+", entry), entry
            assert "--hash=sha256:" in entry, entry


def test_what_the_package_needs_is_pinned_alike_for_running_and_for_testing() -> None:
    def pins(name: str) -> set[str]:
        text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
        return set(re.findall(r"^[a-z0-9-]+==[^\s;]+", text, re.MULTILINE))

    assert pins("run.txt") <= pins("test.txt")


def test_what_make_run_installs_beside_is_what_the_tests_install() -> None:
    assert requirements("demo.txt") <= requirements("test.txt")


def test_the_version_of_the_package_is_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION


def test_every_public_name_is_documented() -> None:
    import aiolibp2p

    public = getattr(aiolibp2p, "__all__", [])
    undocumented = [name for name in public if callable(thing := getattr(aiolibp2p, name)) and not thing.__doc__]
    assert not undocumented


def test_an_unmarked_test_cannot_open_a_socket() -> None:
    import socket

    with pytest.raises(SocketsNotAllowedError):
        socket.socket()
    with pytest.raises(SocketsNotAllowedError):
        socket.getaddrinfo("localhost", 1)
    GUARD.refused.clear()


@pytest.mark.sockets
def test_a_test_on_a_real_loop_fails_when_it_leaves_a_task() -> None:
    tasks = []

    async def leave_a_task() -> None:
        tasks.append(asyncio.get_running_loop().create_task(asyncio.Event().wait(), name="left behind"))

    with pytest.raises(AssertionError, match="left behind"):
        run_real(leave_a_task)


@pytest.mark.sockets
def test_a_test_on_a_real_loop_fails_when_a_callback_raises() -> None:
    async def raise_in_a_callback() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_real(raise_in_a_callback)


async def test_a_coroutine_test_runs_in_virtual_time(virtual_now: Callable[[], int]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3600):
            await asyncio.Event().wait()
    assert virtual_now() == 3_600_000_000_000
