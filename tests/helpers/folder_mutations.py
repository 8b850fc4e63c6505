"""Edits of data folders, and random ones."""

import json
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from small_sets import with_values

NAN = float("nan")
SCALARS = [None, True, False, -3, 0, 1, 3, 200, 1e30, -0.5, NAN, 2**70, "", "a", "{}", "a/b", "7", [], {}, [[1]], [3]]
FRAME = 0.1  # seconds


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


def places(content, path=()):
    """Paths of all values inside a JSON document."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def mutate_folder(rng: random.Random, folder: Path) -> str:
    """One change of one file, or of two; what was done, in words."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "stats" not in path.name)
    file = rng.choice(files)
    alike = [path for path in files if path.suffix == file.suffix and path != file]
    other = rng.choice(alike if alike and rng.random() < 0.8 else files)
    kind = rng.choice(["delete", "cut", "empty", "swap", "copy", "rename", *["content"] * 12])
    name = file.relative_to(folder)
    if kind == "delete":
        file.unlink()
    elif kind == "cut":
        cut(file, rng.random())(folder)
    elif kind == "empty":
        file.write_bytes(rng.choice([b"", b"{}", b"[]", b"null", b"PAR1", bytes(64)]))
    elif kind == "swap" and other != file:
        swap(file, other)(folder)
        kind = f"swap with {other.relative_to(folder)} of"
    elif kind == "copy" and other != file:
        shutil.copy(other, file)
        kind = f"copy of {other.relative_to(folder)} over"
    elif kind == "rename":
        file.rename(file.with_name(rng.choice(["x", "episode_000009"]) + file.suffix))
    elif kind == "content":
        try:
            kind = mutate_content(rng, file)
        except (ValueError, IndexError):  # a change before has left nothing to change
            kind = "nothing more of"
    return f"{kind} {name}"


def mutate_content(rng: random.Random, file: Path) -> str:
    """Change something inside a file."""
    if file.suffix == ".json":
        content = json.loads(file.read_text())
        done = mutate_json(rng, content)
        file.write_text(json.dumps(content))
        return done
    if file.suffix == ".jsonl":
        rows = [json.loads(line) for line in file.read_text().splitlines() if line]
        order = list(range(len(rows)))
        done = mutate_order(rng, order) if rng.random() < 0.5 else mutate_json(rng, rows)
        file.write_text("".join(json.dumps(rows[i]) + "\n" for i in order))
        return done
    if file.suffix == ".parquet":
        table, done = mutate_table(rng, pq.ParquetFile(file).read())
        pq.write_table(table, file)
        return done
    cut(file, 0.99)(file.parent)
    return "cut a little of"


def mutate_json(rng: random.Random, document) -> str:
    """Change, drop, rename or exchange values."""
    ignored = {"robot_type"}  # free text: any other string is as good
    paths = [path for path in places(document) if not ignored & set(path)]
    *above, last = rng.choice(paths)
    content = document
    for key in above:
        content = content[key]
    kind = rng.choice(["value", "drop", "rename", "exchange"])
    if kind == "exchange" and isinstance(content, dict) and len(content) > 1:
        other = rng.choice([key for key in content if key != last])
        content[last], content[other] = content[other], content[last]
        return f"exchanged {[*above, last]} and {other} of"
    if kind == "value" or isinstance(content, list):
        content[last] = rng.choice(SCALARS)
        return f"{[*above, last]} = {content[last]!r} in"
    value = content.pop(last)
    if kind != "drop":
        content[f"{last}x"] = value
    return f"{kind} {[*above, last]} of"


def mutate_order(rng: random.Random, order: list[int]) -> str:
    """Reorder, drop or double elements, in place."""
    size = len(order)
    kind = rng.choice(["swap", "drop", "double", "none", "first ones", "last ones", "turned", "reversed", "shuffled"])
    first, second = rng.randrange(size), rng.randrange(size)
    count = rng.randint(1, min(3, size))
    if kind == "swap":
        order[first], order[second] = order[second], order[first]
    elif kind == "drop":
        del order[first]
    elif kind == "double":
        order.insert(first, order[first])
    elif kind == "none":
        order.clear()
    elif kind == "first ones":
        del order[:count]
    elif kind == "last ones":
        del order[-count:]
    elif kind == "turned":
        order[:] = order[count:] + order[:count]
    elif kind == "reversed":
        order.reverse()
    else:
        rng.shuffle(order)
    return f"rows: {kind} ({first}, {second}, {count})"


def mutate_table(rng: random.Random, rows: pa.Table) -> tuple[pa.Table, str]:
    """Change rows, names, types or cells."""
    names = [name for name in rows.column_names if not name.startswith("stats/")]
    name, other = rng.choice(names), rng.choice(names)
    kind = rng.choice(["rows", "rows", "drop", "rename", "exchange", "null", "cell", "cell", "type"])
    if kind == "rows":
        order = list(range(len(rows)))
        done = mutate_order(rng, order)
        return rows.take(pa.array(order, pa.int64())), done
    if kind == "drop":
        return rows.drop_columns([name]), f"dropped {name} of"
    if kind == "rename":
        new = rng.choice([f"{name}x", f"{name}s", "action", "actions"])
        return rename(name, new)(rows), f"{name} renamed to {new} in"
    if kind == "exchange":
        back = {name: other, other: name}
        return rows.rename_columns([back.get(n, n) for n in rows.column_names]), f"exchanged names {name}, {other} in"
    if kind == "type":
        return _other_type(rng, rows, name)
    row = rng.randrange(len(rows))
    old = rows.column(name).to_pylist()[row]
    if kind == "null":
        return with_values(name, at(row, None))(rows), f"null {name} of row {row} in"
    new = _spoiled(rng, name, old)
    return with_values(name, at(row, new))(rows), f"{name} of row {row} = {new!s:.30} in"


def _other_type(rng: random.Random, rows: pa.Table, name: str) -> tuple[pa.Table, str]:
    kind = rng.choice(["text", "float64", "int32", "float16"])
    if kind == "text":
        return as_text(name)(rows), f"text {name} in"
    types = {"float64": pa.float64(), "int32": pa.int32(), "float16": pa.float32()}
    try:
        values = rows.column(name).cast(types[kind], safe=True)
    except pa.ArrowException:
        return as_text(name)(rows), f"text {name} in"
    return rows.set_column(rows.column_names.index(name), name, values), f"{kind} {name} in"


def _spoiled(rng: random.Random, name: str, old):
    """Another value that must not go unnoticed; where any other is as good, the old one."""
    if isinstance(old, bool | str | dict) or name in {"next.reward", "tasks"} or old is None:
        return old
    if name.endswith("_timestamp"):
        return max(0.0, old + rng.choice([-3, -1, 1, 3, 100]) * FRAME)
    if isinstance(old, float):
        return rng.choice([NAN, 1e30])
    if isinstance(old, int):
        return max(0, old + rng.choice([-2, -1, 1, 2]))
    return [NAN] * len(old)
