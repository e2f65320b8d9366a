"""Files that are whole or not there, and where none can be written."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from layerwise.config import SettingError
from layerwise.run.files import commit, output_file, read_tensors, sha256, write_json, write_tensors


def test_commit__leaves_the_old_file_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    commit(path, lambda temporary: temporary.write_text("old"))

    def fails(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        commit(path, fails)
    assert path.read_text() == "old"
    commit(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new" and [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_commit__says_what_failed_where_nothing_was_written_yet(tmp_path: Path) -> None:
    def write(_: Path) -> None:
        raise OSError("no such device")

    with pytest.raises(OSError, match="could not be written: no such device"):
        commit(tmp_path / "file", write)
    assert list(tmp_path.iterdir()) == []


def test_commit__says_to_make_room__only_where_that_is_what_lacks(tmp_path: Path) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def forbidden(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    for write, remedy in ((full, "make room for it"), (forbidden, "let it be written")):
        with pytest.raises(OSError, match=f"could not be written: .*; {remedy} and give the same command"):
            commit(tmp_path / "file", write)


def test_commit__leaves_nothing_where_a_signal_ends_it(tmp_path: Path) -> None:
    def stopped(temporary: Path) -> None:
        temporary.write_text("half")
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        commit(tmp_path / "file", stopped)
    assert list(tmp_path.iterdir()) == []


def test_tensors__are_read_back_with_what_is_said_of_them(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T.requires_grad_(), "b": torch.tensor([1, 2])}
    write_tensors(tmp_path / "t", tensors, {"format": 3, "names": ["ä"]})
    found, about = read_tensors(tmp_path / "t")
    assert found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in found)
    assert about == {"format": 3, "names": ["ä"]}
    write_tensors(tmp_path / "t", tensors)
    assert read_tensors(tmp_path / "t")[1] is None


def test_json__is_readable_text__without_what_json_lacks(tmp_path: Path) -> None:
    write_json(tmp_path / "j", {"a": [1, "Φ"]})
    assert (tmp_path / "j").read_text(encoding="utf-8") == '{\n  "a": [\n    1,\n    "Φ"\n  ]\n}\n'
    value = {os.fsdecode(b"caf\xe9"): "\udcff"}  # names of files that are no UTF-8
    write_json(tmp_path / "j", value)
    assert json.loads((tmp_path / "j").read_text(encoding="utf-8")) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "j", float("nan"))


def test_sha256__of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_output_file__is_where_links_lead__and_names_the_option(tmp_path: Path) -> None:
    new, old, link = tmp_path / "new.json", tmp_path / "old.json", tmp_path / "link.json"
    old.touch()
    link.symlink_to("old.json")
    assert output_file("--json", None) is None
    assert output_file("--json", str(new)) == new and not new.exists()
    assert output_file("--json", str(old)) == output_file("--json", str(link)) == old
    with pytest.raises(SettingError, match=r"^--json: .*none/a\.json cannot be written, since its folder is not there"):
        output_file("--json", str(tmp_path / "none" / "a.json"))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for no_file in (tmp_path, tmp_path / "pipe", tmp_path / "loop", "/dev/null"):
        with pytest.raises(SettingError, match=f"^--json: {no_file} is a folder, a device, a pipe or a link to itself"):
            output_file("--json", str(no_file))
