"""Paths, folders, patterns and addresses as input, and what is said about the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from easydata.errors import (
    EasyDataError,
    MissingDependencyError,
    SourceError,
    SourceNotFoundError,
    UsageError,
)
from easydata.fingerprint.files import FileStamp
from easydata.sources import find_sources
from easydata.sources.raw import Place


@pytest.fixture
def folder(tmp_path):
    for name in (
        "b.jsonl", "a.txt", "sub/c.csv.gz", "sub/deep/d.PARQUET", "LICENSE", "x.bin",
        ".hidden.txt", ".git/e.txt",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def names(sources, folder):
    return [source.name.removeprefix(f"{folder}/") for source in sources]


def test_folder_gives_known_files_in_order(folder):
    found = find_sources(folder)
    assert names(found, folder) == ["a.txt", "b.jsonl", "sub/c.csv.gz", "sub/deep/d.PARQUET"]
    assert [(one.kind, one.codec) for one in found] == [
        ("text", None),
        ("jsonl", None),
        ("csv", "gzip"),
        ("parquet", None),
    ]
    found = find_sources(folder, type="jsonl")
    assert len(found) == 6
    assert {one.kind for one in found} == {"jsonl"}


def test_patterns(folder, monkeypatch):
    assert names(find_sources(f"{folder}/**/*.[tjc]*"), folder) == [
        "a.txt",
        "b.jsonl",
        "sub/c.csv.gz",
    ]
    assert names(find_sources([f"{folder}/*.jsonl", f"{folder}/a.txt"]), folder) == [
        "b.jsonl",
        "a.txt",
    ]
    monkeypatch.chdir(folder)
    assert names(find_sources("*.jsonl"), folder) == ["b.jsonl"]
    (folder / "[b].jsonl").write_bytes(b"")
    assert names(find_sources("[b].jsonl"), folder) == ["[b].jsonl"]


@pytest.mark.parametrize(
    ("inputs", "error", "what"),
    [
        ("none.jsonl", SourceNotFoundError, "none.jsonl does not exist"),
        ("*.tsv", SourceNotFoundError, r"pattern \*.tsv matches no file"),
        ("su*", SourceNotFoundError, r"matches folders only; add /\*\*"),
        ("LICENSE", SourceError, r"LICENSE has the unknown extension '\(none\)'.*\.jsonl.*--type"),
        ("x.bin", SourceError, "unknown extension '.bin'.*--type"),
        (
            "empty",
            SourceNotFoundError,
            "empty holds no file of a known type: it has 0 files. Known",
        ),
        (
            "odd",
            SourceNotFoundError,
            "odd holds .* 2 files with the extensions .bin, .gz. Known are",
        ),
        (["a.txt", "./a.txt"], SourceError, r"listed twice \(as a.txt and as ./a.txt\)"),
        (["a.txt", "*.txt"], SourceError, "a.txt is listed twice. Name it once"),
        ([], SourceNotFoundError, "list of inputs is empty"),
        ("", UsageError, "path is empty"),
        (5, UsageError, "An input is a int"),
        (b"a.txt", UsageError, "An input is a bytes"),
        (["a.txt", None], UsageError, "An input is a NoneType"),
        ({"text": "a"}, UsageError, "One dict is one row at most"),
        ("nosuch://x/y.txt", UsageError, "nosuch://x/y.txt is no address that fsspec knows"),
        ("memory://none.txt", SourceNotFoundError, "memory://none.txt does not exist"),
        ("memory://none/*.txt", SourceNotFoundError, "matches no file"),
    ],
)
def test_what_cannot_be_found(folder, monkeypatch, inputs, error, what):
    (folder / "empty").mkdir()
    (folder / "odd").mkdir()
    (folder / "odd/x.bin").write_bytes(b"")
    (folder / "odd/y.gz").write_bytes(b"")
    monkeypatch.chdir(folder)
    with pytest.raises(error, match=what):
        find_sources(inputs)


def test_options_that_cannot_be(folder):
    with pytest.raises(UsageError, match=r"type is 'xml'; give one of jsonl, json"):
        find_sources(folder, type="xml")
    with pytest.raises(UsageError, match="text_rows is 'word'; give 'file'"):
        find_sources(folder, text_rows="word")


def test_symbolic_link_is_the_same_file(folder):
    (folder / "link.txt").symlink_to(folder / "a.txt")
    with pytest.raises(SourceError, match="listed twice"):
        find_sources(folder)


def test_saved_dataset_is_not_a_folder_of_files(tmp_path):
    data = datasets.Dataset.from_dict({"text": ["a"]})
    data.save_to_disk(tmp_path / "saved")
    with pytest.raises(UsageError, match="load_from_disk"):
        find_sources(tmp_path / "saved")


def test_missing_package_names_the_extra(monkeypatch):
    def raise_import_error(url, **options):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", raise_import_error)
    with pytest.raises(MissingDependencyError, match=r"pip install 'easydata\[s3\]'"):
        find_sources("s3://bucket/a.jsonl")
    with pytest.raises(MissingDependencyError, match="Install s3fs"):
        find_sources("abfs://bucket/a.jsonl")


def test_importing_loads_nothing_heavy():
    heavy = "fsspec", "datasets", "pandas", "zstandard", "lz4", "pyarrow.parquet"
    code = f"import sys, easydata.sources; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.fixture
def memory(request):
    filesystem = fsspec.filesystem("memory")
    root = f"/{request.node.name}"
    yield filesystem, root
    filesystem.rm(root, recursive=True)


def test_urls(memory, read, compress):
    filesystem, root = memory
    for name, text in [
        ("b.jsonl", "b"),
        ("a.jsonl.gz", "a"),
        (".h/x.jsonl", "x"),
        ("n/z.bin", "z"),
    ]:
        line = b'{"text": "%s"}\n' % text.encode()
        filesystem.pipe(f"{root}/{name}", compress(".gz" if name.endswith("gz") else "", line))
    parquet = f"{root}/n/c.parquet"
    with filesystem.open(parquet, "wb") as file:
        pq.write_table(pa.table({"text": ["c"]}), file)
    for inputs in (f"memory:/{root}", [f"memory:/{root}/*.jsonl*", f"memory:/{parquet}"]):
        sources = find_sources(inputs)
        assert [source.name.rsplit("/", 1)[1] for source in sources] == [
            "a.jsonl.gz",
            "b.jsonl",
            "c.parquet",
        ]
        found = [read(source) for source in sources]
        assert [one.texts for one in found] == [["a"], ["b"], ["c"]]
        assert [one.content_hash for one in found] == [one.read_content_hash() for one in sources]
        assert [one.bytes_read for one in found] == [one.nbytes for one in sources]
    with pytest.raises(SourceError, match="listed twice"):
        find_sources([f"memory:/{root}/b.jsonl"] * 2)


def test_other_urls(tmp_path, read):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\n')
    [source] = find_sources(path.as_uri())
    assert (source.name, read(source).texts) == (path.as_uri(), ["a"])
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(path, "in/rows.jsonl")
    [source] = find_sources("zip://in/*.jsonl", storage_options={"fo": str(tmp_path / "all.zip")})
    assert read(source).texts == ["a"]
    [source] = find_sources(f"zip://in/rows.jsonl::{path.parent.as_uri()}/all.zip")
    assert read(source).content_hash == source.read_content_hash()


def test_features_of_files(tmp_path):
    data = datasets.Dataset.from_dict({"text": ["a"]})
    data.to_parquet(tmp_path / "a.parquet")
    data.save_to_disk(tmp_path / "saved")
    (tmp_path / "b.jsonl").write_bytes(b"")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "c.parquet")
    bad = pa.table({"text": ["a"]}).replace_schema_metadata({"huggingface": "{}"})
    pq.write_table(bad, tmp_path / "d.parquet")
    paths = ["a.parquet", "saved/data-00000-of-00001.arrow", "b.jsonl", "c.parquet", "d.parquet"]
    features = [source.features for source in find_sources([tmp_path / path for path in paths])]
    text = {"text": {"dtype": "string", "_type": "Value"}}
    assert features == [text, text, None, None, None]


def test_every_error_is_ours(tmp_path):
    for name in ("a.parquet", "b.arrow"):
        (tmp_path / name).write_bytes(b"not a table at all, but long enough to be one")
        [source] = find_sources(tmp_path / name)
        for action in (lambda: source.open(["text"], 10), lambda: source.features):  # noqa: B023
            with pytest.raises(EasyDataError, match=f"{name} cannot be read as"):
                action()


class Broken(MemoryFileSystem):
    """A server that stops answering."""

    protocol = "broken"
    store = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    failing = set()  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("broken://", "memory://"))

    def exists(self, path, **options):
        self.check("exists")
        return super().exists(path, **options)

    def info(self, path, **options):
        self.check("info")
        return super().info(path, **options)

    def open(self, path, mode="rb", **options):
        self.check("open")
        return self if "read" in self.failing else super().open(path, mode, **options)

    def readinto(self, buffer):
        self.check("read")

    def close(self):
        pass

    def check(self, what):
        if what in self.failing:
            raise ConnectionError(f"no answer to {what}")


def test_server_that_stops_answering(read):
    fsspec.register_implementation("broken", Broken, clobber=True)
    filesystem = fsspec.filesystem("broken")
    filesystem.pipe("/a.jsonl", b'{"text": "a"}\n')
    [source] = find_sources("broken://a.jsonl", retries=0)
    try:
        Broken.failing = {"open"}
        with pytest.raises(
            SourceError, match=r"broken://a\.jsonl cannot be read: no answer to open"
        ):
            read(source)
        Broken.failing = {"read"}
        with pytest.raises(
            SourceError, match=r"broken://a\.jsonl cannot be read: no answer to read"
        ):
            read(source)
        Broken.failing = {"info"}
        with pytest.raises(SourceError, match=r"broken://a\.jsonl cannot be looked up: no answer"):
            find_sources("broken://a.jsonl", retries=0)
        with pytest.raises(
            SourceError, match=r"broken://a\.jsonl cannot be read: no answer to info"
        ):
            _ = source.nbytes
        Broken.failing = {"exists"}
        with pytest.raises(SourceError, match=r"broken://\*\.jsonl cannot be looked up: no answer"):
            find_sources("broken://*.jsonl", retries=0)
    finally:
        Broken.failing = set()
    assert read(source).texts == ["a"]


def test_query_of_a_web_address_is_no_part_of_the_name():
    assert Place("n", "https://host/a.jsonl.gz?token=x.y").file_name == "/a.jsonl.gz"
    assert Place("n", "bucket/a?b.jsonl").file_name == "bucket/a?b.jsonl"


def test_stamps_of_local_files_and_objects(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\n')
    [source] = find_sources(path)
    before = source.stamp()
    assert before == FileStamp.of_local(path)
    assert source.stamp().matches(before)
    kept = path.stat()
    (tmp_path / "new").write_bytes(b'{"text": "b"}\n')
    os.utime(tmp_path / "new", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    (tmp_path / "new").replace(path)
    assert not source.stamp().matches(before)  # the inode tells
    path.unlink()
    with pytest.raises(SourceNotFoundError, match=r"rows\.jsonl does not exist"):
        source.stamp()
    table = pa.table({"text": ["a"]})
    for value in ([{"text": "a"}], table, datasets.Dataset(table)):
        assert find_sources(value)[0].stamp() is None
