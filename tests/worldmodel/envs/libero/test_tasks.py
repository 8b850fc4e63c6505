"""The names of LIBERO's suites and tasks."""

import pytest

from worldmodel.envs import env_class, has_simulator, is_foreign, make_env
from worldmodel.envs.scripts import SCRIPTS

try:
    from worldmodel.envs.libero.tasks import find_tasks, suites
except ValueError as error:  # it names the package that is missing
    pytest.skip(str(error), allow_module_level=True)

MILK = "pick_up_the_milk_and_place_it_in_the_basket"


def test_a_task_has_a_number_and_a_name():
    (by_number,), (by_name,) = find_tasks("libero:libero_object/7"), find_tasks(f"libero:libero_object/{MILK}")
    assert by_number == by_name
    assert (by_number.suite, by_number.number, by_number.name) == ("libero_object", 7, "libero:libero_object/7")
    assert by_number.words == "pick up the milk and place it in the basket"
    assert by_number.problem.is_file()
    assert by_number.starts.shape == (50, 110)


def test_a_suite_is_all_of_its_tasks():
    tasks = find_tasks("libero:libero_object")
    assert [task.number for task in tasks] == list(range(10))
    assert tasks[7] == find_tasks("libero:libero_object/7")[0]


def test_the_benchmark_is_complete():
    usual = ("libero_spatial", "libero_object", "libero_goal", "libero_90", "libero_10")
    assert sum(len(find_tasks(f"libero:{suite}")) for suite in usual) == 130
    assert set(usual) < set(suites())
    assert "libero_object_env" not in suites(), "LIBERO-PRO names it, but the package lacks its files"


@pytest.mark.parametrize(
    "suite, words",
    [
        ("libero_object_swap", "pick up the alphabet soup and place it in the basket"),
        ("libero_object_lan", "grab alphabet soup and put it into basket"),
        ("libero_object_task", "Pick the cream cheese and place it in the basket"),
    ],
)
def test_a_changed_suite_has_its_own_words_where_they_are_what_changed(suite, words):
    assert find_tasks(f"libero:{suite}/0")[0].words == words


@pytest.mark.parametrize(
    "name, message",
    [
        ("libero:libero_objct/0", "no suite 'libero_objct'; did you mean 'libero_object'"),
        ("libero:libero_object/10", "libero_object has the tasks 0 to 9, got 10"),
        (f"libero:libero_object/{MILK}s", f"no task '{MILK}s'; did you mean '{MILK}'"),
        ("libero:", "no suite ''; it has "),
        (
            "libero:libero_object_with_red_box/1",
            "red_box/1 cannot be simulated: LIBERO's package lacks custom_objects/red",
        ),
    ],
)
def test_a_mistyped_name_is_a_line_with_the_nearest_ones(name, message):
    with pytest.raises(ValueError, match=message) as error:
        find_tasks(name)
    assert "\n" not in str(error.value)


def test_every_name_of_libero_is_an_environment_of_this_package():
    """Also where the name looks like `module:Class`."""
    for name in ("libero:libero_object", "libero:libero_object/0", "libero:libero_90/89"):
        assert not is_foreign(name)
        assert has_simulator(name)
    with pytest.raises(ValueError, match="environment libero:libero_object: you asked for color, but the class Libero"):
        make_env("libero:libero_object", color=1)


def test_only_libero_object_has_scripts():
    assert "worldmodel.envs.libero.env:LiberoObject" in SCRIPTS
    assert "worldmodel.envs.libero.env:Libero" not in SCRIPTS
    kinds = {suite: env_class(f"libero:{suite}/0").__name__ for suite in ("libero_object", "libero_goal", "libero_90")}
    assert kinds == {"libero_object": "LiberoObject", "libero_goal": "Libero", "libero_90": "Libero"}
    assert env_class("libero:libero_object_swap").__name__ == "LiberoObject"
