import tempfile
from pathlib import Path

import pytest

from mutorch.utils import whole_file


def test_a_file_that_a_writer_put_there_with_its_own_permissions_gets_those_of_any_new_file(tmp_path):
    usual = tmp_path / "usual"
    usual.touch()
    with whole_file(tmp_path / "whole") as partial:
        with tempfile.NamedTemporaryFile(dir=tmp_path, delete=False) as private:
            private.write(b"done")
        Path(private.name).replace(partial)
    assert (tmp_path / "whole").read_bytes() == b"done"
    assert (tmp_path / "whole").stat().st_mode == usual.stat().st_mode


def test_after_an_error_the_old_file_is_as_it_was_and_nothing_is_left_behind(tmp_path):
    target = tmp_path / "notes.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(target) as partial:
        partial.write_text(str(1 / 0))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert target.read_text() == "old"
