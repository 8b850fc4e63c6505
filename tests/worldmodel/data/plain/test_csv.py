"""CSV by pandas, Excel and NumPy: right, or refused with what is ambiguous; never shifted by a row."""

import io

import numpy as np
import pandas
import pytest
from plain_folders import LENGTHS, NAMES, actions, assert_true, csv_text, states, write_plain

from worldmodel.data import open_episodes
from worldmodel.data.formats import DataWarning, open_set
from worldmodel.data.options import DataOptions, Request

pytestmark = pytest.mark.filterwarnings("ignore::worldmodel.data.formats.DataWarning")


def frame(values, names=None):
    return pandas.DataFrame(values, columns=names)


def excel(text):
    return "\ufeff" + text.replace("\n", "\r\n")


def semicolons(text):
    return text.replace(",", ";").replace(".", ",")


def saved(values, **options):
    stream = io.StringIO()
    np.savetxt(stream, values, **options)
    return stream.getvalue()


def with_first(values, column):
    return np.concatenate([np.asarray(column, float)[:, None], values], axis=1)


def times(values):
    return np.arange(len(values)) / 10


def odd(values):
    """Values with decimals, so that whole numbers are told from rounded ones."""
    return values + 0.123456


def one(values):
    return values[:, :1]


RIGHT = {
    "pandas, names": lambda v: frame(v, NAMES).to_csv(index=False),
    "pandas, names and index": lambda v: frame(v, NAMES).to_csv(),
    "pandas, names and index from 1": lambda v: frame(v, NAMES).set_index(np.arange(1, len(v) + 1)).to_csv(),
    "pandas, numbers as names": lambda v: frame(v).to_csv(index=False),
    "pandas, numbers as names, one row less": lambda v: frame(v[:-1]).to_csv(index=False),
    "pandas, numbers as names and index": lambda v: frame(v).to_csv(),
    "pandas, numbers as names and index, one row less": lambda v: frame(v[:-1]).to_csv(),
    "pandas, named index": lambda v: frame(v, NAMES).to_csv(index_label="frame"),
    "pandas, index without a label": lambda v: frame(v, NAMES).to_csv(index_label=False),
    "pandas, no header": lambda v: frame(v).to_csv(index=False, header=False),
    "pandas, no header, one row less": lambda v: frame(v[:-1]).to_csv(index=False, header=False),
    "pandas, tabs": lambda v: frame(v, NAMES).to_csv(index=False, sep="\t"),
    "pandas, quoted": lambda v: frame(v, NAMES).to_csv(index=False, quoting=1),
    "pandas, last action missing": lambda v: frame(np.concatenate([v[:-1], v[-1:] * np.nan]), NAMES).to_csv(
        index=False
    ),
    "Excel, UTF-8": lambda v: excel(csv_text(v)),
    "Excel, UTF-8, no header": lambda v: excel(csv_text(v, None)),
    "Excel, UTF-8, no header, one row less": lambda v: excel(csv_text(v[:-1], None)),
    "Excel, semicolons and decimal commas": lambda v: excel(semicolons(csv_text(v))),
    "Excel, semicolons and points": lambda v: excel(csv_text(v).replace(",", ";")),
    "Excel, with sep": lambda v: excel("sep=;\n" + csv_text(v).replace(",", ";")),
    "Excel, empty rows at the end": lambda v: excel(csv_text(v) + "\n\n"),
    "commas at the ends": lambda v: csv_text(v).replace("\n", ",\n"),
    "commas at the ends, no header": lambda v: csv_text(v, None).replace("\n", ",\n"),
    "blanks": lambda v: csv_text(v).replace(",", " , "),
    "empty lines": lambda v: csv_text(v).replace("\n", "\n\n"),
    "numpy": lambda v: saved(v),
    "numpy, commas": lambda v: saved(v, delimiter=","),
    "numpy, header": lambda v: saved(v, delimiter=",", header="x,y,z,g"),
    "numpy, bare header": lambda v: saved(v, delimiter=",", header="x,y,z,g", comments=""),
    "numpy, comment": lambda v: saved(v, delimiter=",", header="recorded on Monday, by hand"),
    "time": lambda v: frame(with_first(v, times(v)), ["t", *NAMES]).to_csv(index=False),
    "timestamp in nanoseconds": lambda v: frame(with_first(v, 1.7e18 + times(v) * 1e9), ["timestamp", *NAMES]).to_csv(
        index=False
    ),
    "time and index": lambda v: frame(with_first(v, times(v)), ["time (s)", *NAMES]).to_csv(),
    "step": lambda v: frame(with_first(v, range(len(v))), ["step", *NAMES]).to_csv(index=False),
    "episode and done": lambda v: (
        frame(v, NAMES).assign(episode=3, frame=range(len(v)), done=[False] * (len(v) - 1) + [True]).to_csv(index=False)
    ),
    "dates": lambda v: (
        frame(v, NAMES).assign(timestamp=pandas.date_range("2026-11-27", periods=len(v), freq="100ms")).to_csv()
    ),
    "numbered columns": lambda v: frame(v, [f"action_{i}" for i in range(4)]).to_csv(index=False),
}


def write_csv(folder, form, change=lambda values: values):
    def write(part, episode, length):
        text = form(change(actions(episode, length)))
        (part / "actions.csv").write_text(text, encoding="utf-8", newline="")

    return write_plain(folder, cameras=("top",), write=write)


@pytest.mark.parametrize("name", RIGHT)
def test_right(tmp_path, name):
    source = open_episodes(write_csv(tmp_path, RIGHT[name]))
    assert (source.lengths, source.action_dim) == (LENGTHS, 4)
    assert_true(source)


def whole(text):
    """Cells as `%g` and Excel write them."""
    return text.replace(".0,", ",").replace(".0\n", "\n")


AMBIGUOUS = {
    "first cell empty": (lambda v: "," + csv_text(v, None).partition(",")[2], ["column 0 of row 0 is empty"]),
    "one name missing": (lambda v: csv_text(v, ("", "y", "z", "g")), ["column without a name is 0.0", "or a name"]),
    "one name missing, whole numbers": (
        lambda v: whole(csv_text(v, ("", "y", "z", "g"))),
        ["1: episode_1/actions.csv: column without a name is 100.0", "or a name"],
    ),
    "an index without a name, no header": (
        lambda v: frame(v).to_csv(header=False),
        ["column 0 has no name and counts like an index"],
    ),
    "an index in decimals, no header": (
        lambda v: saved(with_first(v, range(len(v))), delimiter=","),
        ["column 0 has no name and counts like an index"],
    ),
    "a time without a name": (
        lambda v: saved(with_first(v, times(v)), delimiter=","),
        ["column 0 has no name and rises by 1 / fps like a time"],
    ),
    "a time under a number": (
        lambda v: frame(with_first(v, times(v))).to_csv(index=False),
        ["column 0 has no name and rises by 1 / fps like a time"],
    ),
    "whole numbers under numbers": (
        lambda v: "0,1,2,3\n" + whole(csv_text(v[1:], None)),
        ["row 0 is 0,1,2,3", "header"],
    ),
    "one row more": (
        lambda v: csv_text(np.concatenate([v, v[-1:]])),
        ["number of rows of actions", "expected 21 or 20"],
    ),
    "two rows less": (lambda v: csv_text(v[:-2]), ["number of rows of actions is 19", "expected 21 or 20"]),
    "a number missing": (
        lambda v: csv_text(v).replace("\n3.0,", "\n,", 1) if v[0, 0] == 0 else csv_text(v),
        ["frame 3", "nan"],
    ),
    "a gap in the index": (lambda v: frame(v, NAMES).drop(index=4).to_csv(), ["without a name is 5 after 3", "gaps"]),
    "time that falls": (
        lambda v: frame(with_first(v, times(v)[::-1]), ["t", *NAMES]).to_csv(index=False),
        ["column 't' is not ascending"],
    ),
    "points and commas": (lambda v: csv_text(v).replace(",", ";").replace("2.0", "2,0"), ["'2,0' beside", "decimal"]),
    "commas that separate and mark decimals": (
        lambda v: "".join(f"{x:.2f}\n" for x in v[:, 0] + 0.05).replace(".", ","),
        ["a row is", ",05", "decimal points"],
    ),
    "decimal commas below one name": (
        lambda v: "x\n" + csv_text(one(v), None).replace(".", ","),
        ["0: episode_0/actions.csv: a row is 0,0, expected decimal points"],
    ),
    "thousands": (lambda v: "a;b\n" + "1,234;5,678\n" * len(v), ["'1,234'", "groups of thousands"]),
    "words": (lambda v: csv_text(v).replace("3.0", "high", 1), ["'high'"]),
    "a word in the first row": (
        lambda v: csv_text(v, None).replace(".0,", "oops,", 1),
        ["row 0 is", "either names or numbers"],
    ),
    "ragged": (lambda v: csv_text(v) + "1,2\n", ["width of row", "2"]),
    "a wide header": (lambda v: csv_text(v, (*NAMES, "h")), ["width of the header is 5", "4"]),
    "the same name twice": (lambda v: csv_text(v, ("x", "x", "y", "z")), ["header is x, x, y, z"]),
    "other columns": (lambda v: csv_text(v, ("action_0", "action_1", "torque", "g")), ["torque", "--action-keys"]),
    "empty": (lambda v: "", ["number of rows is 0"]),
    "only a header": (lambda v: "x,y,z,g\n", ["number of rows is 0"]),
    "no text": (lambda v: "\0\1\2", ["actions.csv"]),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_refused_with_what_is_ambiguous(tmp_path, name):
    form, words = AMBIGUOUS[name]
    with pytest.raises(ValueError) as error:
        open_episodes(write_csv(tmp_path, form))
    assert "\n" not in str(error.value)
    for word in (str(tmp_path), "/actions.csv", *words):
        assert word in str(error.value)


def g(text):
    """Numbers as `%g` and JavaScript write them: `0`, then `0.1234`."""
    return "".join(",".join(f"{float(cell):g}" for cell in line.split(",")) + "\n" for line in text.splitlines())


def fractions(values):
    """No whole number but those of the first row of the first episode."""
    return values + 0.1234 * (np.arange(len(values)) > 0)[:, None]


HEADERS_OR_ROWS = {
    "%g": lambda v: g(csv_text(v, None)),
    "%g, one column": lambda v: g(csv_text(one(v), None)),
    "JavaScript": lambda v: whole(csv_text(v, None)),
    "a header over one row less": lambda v: "0,1,2,3\n" + whole(csv_text(v[1:], None)),
    "a header over one row less, fractions": lambda v: "0,1,2,3\n" + csv_text(v[1:], None),
}


@pytest.mark.parametrize("name", HEADERS_OR_ROWS)
def test_a_first_row_that_counts_is_a_row_if_another_episode_shows_it_and_refused_if_none_does(tmp_path, name):
    folder = write_csv(tmp_path / "set", HEADERS_OR_ROWS[name], fractions)
    with pytest.raises(ValueError, match=r"row 0 is 0(,1,2,3)?, which may be a header of numbers or the first of 21"):
        open_episodes(folder, options=DataOptions(episodes="1"))
    if "header" not in name:
        source = open_episodes(folder)  # the first rows of episodes 1 and 2 do not count
        found = source.read(0, 0, 5).actions
        assert found.tolist() == [pytest.approx(row[: source.action_dim]) for row in fractions(actions(0, 21))[:4]]


def test_a_header_of_numbers_is_told_from_a_row_by_the_number_of_rows_or_by_its_style(tmp_path):
    rows = write_csv(tmp_path / "rows", lambda v: "0,1,2,3\n" + whole(csv_text(v, None)))
    assert_true(open_episodes(rows))  # one row more than frames
    assert_true(open_episodes(rows, options=DataOptions(episodes="1")))
    style = write_csv(tmp_path / "style", lambda v: frame(v[:-1]).to_csv(index=False))
    assert_true(open_episodes(style, options=DataOptions(episodes="1")))
    file = style / "episode_1/actions.csv"
    file.write_text(
        "0,1,2,3\n" + csv_text(actions(1, 17)[:-1] + 0.5, None)
    )  # as the others, but without a whole number
    found = open_episodes(style).read(1, 0, 3).actions.tolist()
    assert found == (actions(1, 3)[:2] + 0.5).tolist()
    shorter = write_csv(tmp_path / "shorter", lambda v: whole(csv_text(v[:-1], None)))
    assert_true(open_episodes(shorter, options=DataOptions(episodes="1")))  # a header would leave two rows less


def test_a_blank_line_between_rows_is_refused(tmp_path):
    folder = write_csv(tmp_path / "set", lambda v: csv_text(v) + "\n  \n")
    assert_true(open_episodes(folder))
    for place, blank in ((5, ""), (1, "  "), (0, "")):
        lines = csv_text(actions(1, 17)).splitlines()
        lines[place] = blank
        (folder / "episode_1/actions.csv").write_text("\n".join(lines) + "\n")
        with pytest.raises(ValueError, match=rf"episode_1/actions\.csv: line {place + 1} is blank, expected a row"):
            open_episodes(folder)


def test_an_empty_cell_of_one_column_is_refused(tmp_path):
    folder = write_csv(tmp_path / "set", lambda v: csv_text(one(v), ["x"]).replace("\n4.0\n", "\n\n"))
    with pytest.raises(ValueError, match=r"0: episode_0/actions\.csv: line 6 is blank"):
        open_episodes(folder)


def test_a_row_that_was_made_a_comment_is_refused(tmp_path):
    folder = write_csv(tmp_path / "set", lambda v: "# by hand\n" + csv_text(v).replace("\n103.0,", "\n#103.0,"))
    with pytest.raises(ValueError, match=r"1: episode_1/actions\.csv: line 6 is '#103\.0,104\.0,105\.0,106\.0'"):
        open_episodes(folder)


def test_utf_16(tmp_path):
    folder = write_csv(tmp_path, csv_text)
    for file in folder.rglob("actions.csv"):
        file.write_bytes(file.read_text().replace(",", "\t").encode("utf-16"))
    assert_true(open_episodes(folder))


def test_what_is_left_out_is_named(tmp_path):
    notes = open_set(write_csv(tmp_path / "a", RIGHT["time and index"]), Request()).notes
    assert "column time (s) of actions.csv is a time and is not read" in notes
    assert "column without a name of actions.csv is an index and is not read" in notes
    assert (
        "actions.csv has decimal commas"
        in open_set(write_csv(tmp_path / "b", RIGHT["Excel, semicolons and decimal commas"]), Request()).notes
    )
    with pytest.warns(DataWarning, match="column time"):
        open_episodes(tmp_path / "a")


def test_columns_of_one_table_are_found_by_their_names_or_by_keys(tmp_path):
    def write(part, episode, length):
        values = np.concatenate(
            [times(actions(episode, length))[:, None], states(episode, length), actions(episode, length)], 1
        )
        names = ["stamp", *(f"state_{i}" for i in range(5)), *(f"action_{i}" for i in range(4))]
        frame(values, names).to_csv(part / "log.csv", index=False)

    folder = write_plain(tmp_path / "log", cameras=("top",), write=write)
    assert_true(open_episodes(folder))
    keys = DataOptions(action_keys=("action_2", "state"), state_keys=("log/state_4",))
    clip = open_episodes(folder, options=keys).read(1, 0, 3)
    assert clip.actions[1].tolist() == pytest.approx([actions(1, 3)[1, 2], *states(1, 3)[1]])
    assert clip.states.tolist() == [pytest.approx([value]) for value in states(1, 3)[:, 4]]
    with pytest.raises(ValueError, match=r"--action-keys torque is missing, expected one of log\.csv: stamp, state_0"):
        open_episodes(folder, options=DataOptions(action_keys=("torque",)))


def test_columns_in_another_order_are_refused(tmp_path):
    folder = write_csv(tmp_path, csv_text)
    file = folder / "episode_1/actions.csv"
    file.write_text(csv_text(actions(1, LENGTHS[1])[:, [1, 0, 2, 3]], ("y", "x", "z", "g")))
    with pytest.raises(ValueError, match=r"episode 1 of 3 is broken .*columns of actions is \('y', 'x'"):
        open_episodes(folder)


def test_an_action_less_than_in_the_other_episodes_may_be_the_first_one(tmp_path):
    folder = write_csv(tmp_path, csv_text)
    (folder / "episode_2/actions.csv").write_text(csv_text(actions(2, LENGTHS[2])[1:]))
    with pytest.raises(ValueError, match=r"episode 2 of 3 is broken .*rows of actions is 24, expected one a frame"):
        open_episodes(folder)
    kept = open_episodes(folder, options=DataOptions(skip_broken=True))
    assert kept.lengths == LENGTHS[:2]
    assert_true(kept)
