"""The words are true: every example runs, every option is explained, every module has its place."""

from __future__ import annotations

import ast
import glob
import inspect
import json
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import zstandard

import easydata as ed
from easydata import cli, errors
from easydata.cli.main import app
from easydata.sources import find_sources
from tests.bpe import train_bpe

ROOT = Path(__file__).resolve().parents[1]
SPEC = ROOT / "easydata" / "format" / "SPEC.md"
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CACHE_SPEC = ROOT / "easydata" / "cache" / "log" / "SPEC.md"
PAGES = [
    *GUIDES,
    SPEC,
    CACHE_SPEC,
    *(ROOT / f"{n}.md" for n in ("ARCHITECTURE", "CONTRIBUTING", "CHANGELOG")),
]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str = "") -> list[tuple[str, str]]:
    """Language and text of the fenced blocks of a page."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(kind, text) for kind, text in found if language in ("", kind)]


# --- The guides: their blocks run, in order, in a folder with the files that they speak of.


@pytest.fixture(scope="module")
def tokenizer_json() -> str:
    lines = ["a short text about nothing", "and another one"]
    return str(train_bpe(lines, vocab_size=400).to_str())


@pytest.fixture
def folder(tmp_path: Path, tokenizer_json: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader of the guides has on their disk."""
    monkeypatch.chdir(tmp_path)
    for name in ("corpus", "notes", "folder"):
        Path(name).mkdir()
    rows = [
        {"text": f"Text {i}: " + "some words that say little. " * (i % 7 + 1), "id": i, "url": "u"}
        for i in range(120)
    ]
    for part in range(3):
        lines = "".join(json.dumps(row) + "\n" for row in rows[40 * part : 40 * part + 40])
        data = zstandard.ZstdCompressor().compress(lines.encode())
        Path(f"corpus/part-{part}.jsonl.zst").write_bytes(data)
    Path("notes/one.txt").write_text("A note.\nIts second line.\n\nIts second paragraph.\n" * 5)
    Path("notes/two.txt").write_text("Another note, longer than the first.\n" * 30)
    Path("data.csv").write_text("body,id\nfirst,1\nsecond,2\n")
    Path("LICENSE").write_text("Do as you like.\nNo warranty.\n")
    Path("broken.jsonl").write_text('{"text": "good"}\n{"text": \n{"text": "good too"}\n')
    Path("tokenizer.json").write_text(tokenizer_json)
    Path("folder/tokenizer.json").write_text(tokenizer_json)
    return tmp_path


def run_python(code: str, namespace: dict[str, Any]) -> None:
    """Run a block; an expression with a comment `# → value` must have that value."""
    lines = code.splitlines()
    for statement in ast.parse(code).body:
        _, arrow, expected = lines[(statement.end_lineno or 1) - 1].partition("# → ")
        if arrow:
            assert isinstance(statement, ast.Expr), "only an expression has a value"
            value = eval(compile(ast.Expression(statement.value), "<docs>", "eval"), namespace)
            assert repr(value) == expected, ast.unparse(statement)
        else:
            exec(compile(ast.Module([statement], []), "<docs>", "exec"), namespace)


def run_shell(text: str) -> None:
    """Run the commands of a block: `easydata …` for real, others are looked up."""
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] == "easydata":
            arguments = [a for word in words[1:] for a in sorted(glob.glob(word)) or [word]]
            expected = re.search(r"# exit code (\d)\b", line)
            assert cli.main(arguments) == int(expected[1] if expected else 0), line
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
        else:
            assert words[:2] == ["pip", "install"], line
            extras = re.search(r"\[(.*)\]", words[2])
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            wanted = extras[1].split(",") if extras else []
            assert set(wanted) <= project["optional-dependencies"].keys(), line


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
@pytest.mark.usefixtures("folder")
@pytest.mark.filterwarnings(
    "ignore:.*fork", "ignore:.set_vital. is deprecated", "ignore:This DataLoader will create"
)
def test_every_block_of_a_guide_runs(page: Path) -> None:
    namespace: dict[str, Any] = {}
    for language, text in blocks(page):
        if language == "python":
            run_python(text, namespace)
        elif language == "sh":
            run_shell(text)
        else:
            assert language == "text"
    # PyTorch's workers end at once; were they left in a cycle of garbage, each would take 5 s.
    namespace.clear()
    assert blocks(page, "python")


def test_a_wrong_value_in_a_block_fails() -> None:
    run_python("x = 1\nx + 1  # → 2", {})
    with pytest.raises(AssertionError):
        run_python("x = 1\nx + 1  # → 3", {})


def test_every_fence_is_closed_and_has_a_language() -> None:
    for page in PAGES:
        fences = re.findall(r"^```.*$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(blocks(page)), page.name


# --- Nothing is left out, and nothing is named that is not there.


def command_options(command: Any) -> set[str]:
    return {name for item in command.params for name in (*item.opts, *item.secondary_opts)} - {
        "--help"
    }


def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def all_guides() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in GUIDES)


def test_every_option_of_build_is_in_its_guide() -> None:
    text = (ROOT / "docs" / "build.md").read_text(encoding="utf-8")
    parameters = set(inspect.signature(ed.build).parameters)
    for name in ("transform", "transform_version", "engine"):  # objects: of no command line
        parameters.remove(name)
        assert f"`{name}=`" in text, f"no row about {name}"
    options = {f"--{name.replace('_', '-')}" for name in parameters}
    for option in options - {"--sources", "--out"}:
        assert re.search(rf"`{option}`", text), f"no row about {option}"
        assert any(
            re.search(rf"{option}\b", block) for _, block in blocks(ROOT / "docs/build.md")
        ) or option in ("--type", "--storage-options"), f"no example of {option}"


def test_every_command_and_its_options_are_in_the_guides() -> None:
    text = all_guides()
    for name, command in commands().items():
        assert f"easydata {name}" in text
        assert command.help
        for item in command.params:
            if item.opts[0].startswith("-") and item.name != "help":
                # One side of a flag is enough: the other is its default.
                names = item.opts if not item.secondary_opts else item.opts[:1]
                assert all(re.search(rf"(?<![\w-]){one}\b", text) for one in names), item


def test_a_wrong_option_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--nothing"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_no_guide_names_an_option_that_is_not_there() -> None:
    known = {option for command in commands().values() for option in command_options(command)}
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8")))
        assert named <= known | {"--debug", "--help", "--strict"}, page.name


@pytest.mark.parametrize(
    ("function", "guide"), [(ed.open_dataset, "reading.md"), (ed.DataLoader, "loader.md")]
)
def test_every_argument_of_reading_is_in_its_guide(
    function: Callable[..., Any], guide: str
) -> None:
    text = (ROOT / "docs" / guide).read_text(encoding="utf-8")
    for name in inspect.signature(function).parameters:
        assert name == "self" or re.search(rf"\b{name}\b", text), name


CACHES = [ed.MemoryCache, ed.DiskCache, ed.TreeCacheManager]


@pytest.mark.parametrize("layer", CACHES)
def test_every_method_of_a_cache_and_its_arguments_are_in_the_guide(layer: type) -> None:
    text = (ROOT / "docs" / "caching.md").read_text(encoding="utf-8")
    internal = {"find", "lock_path", "stamp", "version", "write"}  # for the layer above
    for name, method in inspect.getmembers(layer):
        if name.startswith("_") or name in internal:
            continue
        assert re.search(rf"\b{name}\b", text), name
        if callable(method):
            for argument in set(inspect.signature(method).parameters) - {"self"}:
                assert re.search(rf"\b{argument}\b", text), f"{name}({argument})"
    for argument in inspect.signature(layer).parameters:
        assert re.search(rf"\b{argument}\b", text), argument


def test_every_count_of_a_cache_is_in_the_guide() -> None:
    text = (ROOT / "docs" / "caching.md").read_text(encoding="utf-8")
    table = text.split("| in `stats` |")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table)) == ed.MemoryCache().stats.keys()


def test_every_public_name_is_in_a_guide() -> None:
    text = all_guides()
    hidden = {"__version__", "BuildEstimate", "CacheMetadata", "Lineage"}
    for name in set(ed.__all__) - hidden - {"EasyDataError"}:
        assert re.search(rf"\b{name}\b", text), name


def test_every_error_is_in_the_table() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert {name for name in errors.__all__ if f"| `{name}` |" not in text} == {"EasyDataError"}


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), target


def test_no_page_names_a_path_of_one_machine() -> None:
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(work|tmp|root|home)\b", page.read_text("utf-8")), page


def test_the_numbers_have_their_place() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("<!-- numbers -->") == text.count("<!-- /numbers -->") == 1
    assert text.index("<!-- numbers -->") < text.index("<!-- /numbers -->")


def test_the_architecture_names_every_module_and_no_other() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    package = ROOT / "easydata"
    there = {str(path.relative_to(package).as_posix()) for path in package.rglob("*.py")}
    there = {path for path in there if Path(path).name != "__init__.py"}
    named = re.findall(r"^\| `([\w/]+\.py)` \|", text, re.MULTILINE)
    assert len(named) == len(set(named))
    assert set(named) == there


def test_the_changelog_starts_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", text, re.MULTILINE)[0] == ed.__version__


def test_every_known_extension_is_in_the_readme(folder: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (folder / "x.unknown").write_text("x")
    with pytest.raises(ed.SourceError) as caught:
        find_sources("x.unknown")
    for suffix in re.findall(r"\.\w+", str(caught.value).split("Known are")[1].split("Pass")[0]):
        assert f"`{suffix}`" in text
