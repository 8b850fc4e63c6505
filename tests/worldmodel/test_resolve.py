import sys

import numpy as np
import pytest
from mine import write_module

from worldmodel.resolve import has_module, is_spec, kind_of, made, resolve, source_hash


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder; the search path is put back afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", str(tmp_path))])
    return tmp_path


def message(spec: str) -> str:
    with pytest.raises(ValueError, match=r"^thing ") as caught:
        resolve(spec, "thing")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_object_of_the_current_folder_is_found_and_not_called(here):
    name = write_module(here, "class Thing:\n    def __init__(self): raise RuntimeError\nvalue = 5\n")
    assert resolve(f"{name}:value", "thing") == 5
    assert isinstance(resolve(f"{name}:Thing", "thing"), type)
    assert resolve("collections.abc:Mapping", "thing").__name__ == "Mapping"


def test_a_module_in_a_package_of_the_current_folder_is_found(here):
    (here / "pack_of_mine").mkdir()
    name = write_module(here / "pack_of_mine", "value = 6\n")
    assert resolve(f"pack_of_mine.{name}:value", "thing") == 6


def test_a_file_written_after_the_folder_was_looked_at_is_found(here):
    message("not_yet_written:value")
    (here / "not_yet_written.py").write_text("value = 7\n")
    assert resolve("not_yet_written:value", "thing") == 7


@pytest.mark.parametrize("spec", ["plain", "a:b:c", "./a.py:b", "a-b:c", ":b", "a:", "metaworld:push-v3", "a.:b"])
def test_what_has_another_form_is_no_spec(spec):
    assert not is_spec(spec)
    assert message(spec) == f"thing {spec!r} does not have the form module:name, as in my_module:my_name"


def test_a_missing_module_is_named_with_the_folder_and_the_nearest_file(here):
    (here / "kitchen.py").write_text("")
    assert message("kitchn:pot") == (
        f"thing kitchn:pot: there is no module kitchn, neither in {here} nor installed; did you mean 'kitchen'?"
    )
    assert message("nowhere.at_all:pot") == (
        f"thing nowhere.at_all:pot: there is no module nowhere, neither in {here} nor installed"
    )
    assert "there is no module kitchen.py, neither" in message("kitchen.py:pot")


def test_a_module_that_does_not_import_is_told_from_one_that_is_missing(here):
    name = write_module(here, "import a_module_that_nobody_has\n")
    assert message(f"{name}:x") == (
        f"thing {name}:x: the module {name} does not import: ModuleNotFoundError: No module named "
        f"'a_module_that_nobody_has' ({here}/{name}.py, line 1)"
    )
    name = write_module(here, "x = 1\nraise RuntimeError('two\\nlines')\n")
    assert message(f"{name}:x").endswith(f"does not import: RuntimeError: two lines ({here}/{name}.py, line 2)")
    name = write_module(here, "x = (\n")
    assert message(f"{name}:x").endswith(f"does not import: SyntaxError: '(' was never closed ({name}.py, line 1)")


def test_a_missing_name_is_named_with_the_nearest_or_with_what_is_there(here):
    name = write_module(here, "class MyEnv: pass\ndef other(): pass\n_hidden = 1\n")
    assert message(f"{name}:MyEnvv") == f"thing {name}:MyEnvv: {here}/{name}.py has no 'MyEnvv'; did you mean 'MyEnv'?"
    assert message(f"{name}:xyz").endswith("has no 'xyz'; it has MyEnv, other")
    empty = write_module(here, "")
    assert message(f"{empty}:xyz").endswith("has no 'xyz'; it has no names")


def test_whether_there_is_a_module_is_asked_without_importing_it(here):
    name = write_module(here, "raise RuntimeError\n")
    assert has_module(f"{name}:x") and has_module("collections.abc:x")
    assert not has_module("nowhere:x") and not has_module("nowhere.at_all:x")
    assert name not in sys.modules


def test_a_source_hash_is_that_of_the_text(here):
    text = "value = 1\n"
    first, second, third = (write_module(here, each) for each in (text, text, "value = 2\n"))
    hashes = [source_hash(f"{name}:value", "thing") for name in (first, second, third)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_module_without_source_is_named():
    with pytest.raises(ValueError, match="thing math:fabs: the module is not written in Python"):
        source_hash("math:fabs", "thing")


def test_what_cannot_be_made_is_one_line_with_the_place():
    class Heavy:
        def __init__(self):
            raise MemoryError("no room\nfor weights")

    with pytest.raises(
        ValueError, match=r"policy a:Heavy: the class Heavy cannot be made: MemoryError: no room for weights \(.*line"
    ):
        made(Heavy, "a:Heavy", "policy")
    assert made(dict, "a:dict", "policy") == {}


def test_things_are_called_by_what_they_are():
    things = [int, len, kind_of, np, 3]
    words = ["the class int", "the function len", "the function kind_of", "the module numpy"]
    assert [kind_of(thing) for thing in things] == [*words, "an object of the class int"]
