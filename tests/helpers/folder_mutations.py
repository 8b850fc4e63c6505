"""Edits of data folders, and random ones drawn by hypothesis."""

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from small_sets import edit_json, edit_lines, with_values

NAN = float("nan")


def at(index, value):
    """Replace one element of a list."""
    return lambda values: [*values[:index], value, *values[index + 1 :]]


def cut(file, share):
    def edit(folder):
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: int(len(content) * share)])

    return edit


def swap(first, second):
    def edit(folder):
        (folder / first).rename(folder / "aside")
        (folder / second).rename(folder / first)
        (folder / "aside").rename(folder / second)

    return edit


def rename(name, other):
    return lambda rows: rows.rename_columns([other if n == name else n for n in rows.column_names])


def as_text(name):
    def edit(rows):
        place = rows.column_names.index(name)
        return rows.set_column(place, name, pa.array(["x"] * len(rows)))

    return edit


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 200),
    st.sampled_from([1e30, -0.5, NAN, 2**70]),
    st.text("ab{}/.:", max_size=4),
    st.just([]),
    st.just({}),
    st.just([[1]]),
)


def places(content, path=()):
    """Paths of all values inside a JSON document."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def mutate_json(draw, content):
    """Change or drop one value somewhere."""
    ignored = {"robot_type"}  # free text: any other string is as good
    *above, last = draw(st.sampled_from([p for p in places(content) if not ignored & set(p)]))
    for key in above:
        content = content[key]
    if draw(st.booleans()) or isinstance(content, list):
        content[last] = draw(scalars)
    elif draw(st.booleans()):
        del content[last]
    else:
        content[f"{last}x"] = content.pop(last)


def mutate_rows(draw, rows):
    """Reorder, drop or double elements."""
    size = len(rows)
    order = list(range(size))
    kind = draw(st.sampled_from(["swap", "drop", "double", "none"]))
    first, second = draw(st.integers(0, size - 1)), draw(st.integers(0, size - 1))
    if kind == "swap":
        order[first], order[second] = order[second], order[first]
    elif kind == "drop":
        del order[first]
    elif kind == "double":
        order.append(first)
    else:
        order = []
    return order


def mutate_table(draw, rows):
    names = [name for name in rows.column_names if not name.startswith("stats/")]
    name = draw(st.sampled_from(names))
    kind = draw(st.sampled_from(["rows", "drop", "rename", "null", "cell", "type"]))
    if kind == "rows":
        return rows.take(pa.array(mutate_rows(draw, rows), pa.int64()))
    if kind == "drop":
        return rows.drop_columns([name])
    if kind == "rename":
        return rename(name, name + "x")(rows)
    if kind == "type":
        return as_text(name)(rows)
    row = draw(st.integers(0, len(rows) - 1))
    old = rows.column(name).to_pylist()[row]
    if kind == "null":
        return with_values(name, at(row, None))(rows)
    if isinstance(old, bool | str) or name in {"next.reward", "tasks"}:
        return rows  # any other value is as good
    spoiled = NAN if isinstance(old, float) else old + 1 if isinstance(old, int) else [NAN] * 2
    return with_values(name, at(row, spoiled))(rows)


def mutate_file(draw, folder):
    """One structural change of one file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "stats" not in path.name)
    file = draw(st.sampled_from(files))
    kind = draw(st.sampled_from(["delete", "cut", "empty", "swap", "content", "content", "content"]))
    if kind == "delete":
        file.unlink()
    elif kind == "cut":
        cut(file, draw(st.floats(0, 0.999)))(folder)
    elif kind == "empty":
        file.write_bytes(draw(st.sampled_from([b"", b"{}", b"[]", b"null", b"PAR1", bytes(64)])))
    elif kind == "swap":
        other = draw(st.sampled_from(files))
        if other != file:
            swap(file, other)(folder)
    elif file.suffix == ".json":
        edit_json(file, lambda content: mutate_json(draw, content))
    elif file.suffix == ".jsonl":
        mutate_lines(draw, file)
    elif file.suffix == ".parquet":
        pq.write_table(mutate_table(draw, pq.read_table(file)), file)
    else:
        cut(file, 0.99)(folder)


def mutate_lines(draw, file):
    if draw(st.booleans()):
        edit_lines(file, lambda rows: [rows[i] for i in mutate_rows(draw, rows)])
    else:
        edit_lines(file, lambda rows: (mutate_json(draw, rows), rows)[1])
