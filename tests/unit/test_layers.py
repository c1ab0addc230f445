"""Who may import whom, read from the source: the decisions know no adapter, and importing does nothing."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import questdb_backup

PACKAGE = Path(questdb_backup.__file__).parent
FOREIGN_ADAPTERS = {"boto3", "botocore", "psycopg", "sqlite3", "subprocess", "socket", "urllib", "rich"}
OWN_ADAPTERS = ("stores", "status", "source", "local", "cli", "steps", "services", "handler")
PURE = (
    "clock",
    "errors",
    "words",
    "retention",
    "cron",
    "cron_words",
    "schedule",
    "restore_point",
    "restore_trigger",
    "server_conf",
    "properties",
    "instance_name",
    "settings",
    *(f"questdb/{name}" for name in ("txn", "cv", "meta", "txnlog", "column_types", "partitions")),
)
MAY_IMPORT_BOTO3 = ("stores/", "status/dynamodb.py", "questdb/", "aws")

SOURCES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
PURE_SOURCES = [
    name
    for name in SOURCES
    if name.removesuffix(".py") in PURE or (name.startswith("engine/") and name != "engine/__init__.py")
]


def tree_of(name: str) -> ast.Module:
    return ast.parse(SOURCES[name].read_text(encoding="utf-8"))


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Full names of the modules, and of what is taken from them."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that importing the module runs: no function bodies, nothing for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            defaults = [*child.args.defaults, *(each for each in child.args.kw_defaults if each)]
            for part in [*defaults, *getattr(child, "decorator_list", [])]:
                yield part
                yield from run_at_import(part)
        elif not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from run_at_import(child)


def reads_environment(nodes: Iterator[ast.AST]) -> bool:
    return any(
        (isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"))
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and _takes_environment(node))
        for node in nodes
    )


def _takes_environment(node: ast.ImportFrom) -> bool:
    return any(alias.name in ("environ", "environb", "getenv") for alias in node.names)


def is_adapter(module: str) -> bool:
    top, _, rest = module.partition(".")
    if top != "questdb_backup":
        return top in FOREIGN_ADAPTERS
    parts = rest.split(".")
    if parts[0] == "questdb":
        return parts[1] in ("pgwire", "conninfo")
    return parts[0] in OWN_ADAPTERS and parts[1:2] != ["base"]


def test_the_lists_name_modules_that_exist() -> None:
    assert {name.removesuffix(".py") for name in SOURCES} >= set(PURE)
    assert any(name.startswith("engine/") for name in PURE_SOURCES)


@pytest.mark.parametrize("name", PURE_SOURCES)
def test_a_pure_module_imports_no_adapter_not_even_in_a_function(name: str) -> None:
    assert [module for module in imported(ast.walk(tree_of(name))) if is_adapter(module)] == []


@pytest.mark.parametrize("name", PURE_SOURCES)
def test_a_pure_module_never_reads_the_environment(name: str) -> None:
    assert not reads_environment(ast.walk(tree_of(name)))


@pytest.mark.parametrize("name", SOURCES)
def test_importing_a_module_does_not_read_the_environment(name: str) -> None:
    assert not reads_environment(run_at_import(tree_of(name)))


@pytest.mark.parametrize("name", [name for name in SOURCES if not name.startswith(MAY_IMPORT_BOTO3)])
def test_importing_a_module_does_not_import_boto3(name: str) -> None:
    found = {module.partition(".")[0] for module in imported(run_at_import(tree_of(name)))}

    assert not found & {"boto3", "botocore"}


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("import os\nX = os.environ['A']", True),
        ("from os import environ", True),
        ("import os\nclass A:\n    x = os.getenv('A')", True),
        ("import os\ndef f(x=os.environ): ...", True),
        ("import os\ndef f(): return os.environ", False),
        ("import os\nf = lambda: os.environ", False),
    ],
)
def test_the_check_itself_sees_what_importing_reads(source: str, caught: bool) -> None:
    assert reads_environment(run_at_import(ast.parse(source))) is caught


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("import boto3.session", True),
        ("from psycopg import connect", True),
        ("from questdb_backup.stores.s3 import S3Store", True),
        ("from questdb_backup.stores import s3", True),
        ("from questdb_backup.stores.base import ObjectStore", False),
        ("from questdb_backup import keys", False),
        ("def f():\n    import sqlite3", True),
    ],
)
def test_the_check_itself_sees_an_adapter(source: str, caught: bool) -> None:
    assert any(map(is_adapter, imported(ast.walk(ast.parse(source))))) is caught
