"""The plain text of documents and docstrings, and what is measured of it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median

NUMBER_STYLE = {
    "a zero before the point": re.compile(r"(?<![\w.*/)\]])\.\d"),
    "no blank before %": re.compile(r"\d\s%"),
    "an ASCII minus": re.compile("\u2212"),
    "a blank before the unit": re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?:s|ms|dB|kB|MB|GB|fps)\b"),
}
"""What is wrong with a number, by the rule that it breaks."""
SPELLING = {
    r"data-?sets?": "data set",
    r"world-models?": "world model",
    r"roll-outs?": "rollout",
    r"time-?steps?": "time step",
    r"post training|posttraining": "post-training",
    r"dreamt": "dreamed",
    r"learnt": "learned",
    r"optimi(?:z\w+)": "optimis...",
    r"(?:un)?normaliz\w+": "normalis...",
    r"initializ\w+": "initialis...",
    r"behaviors?": "behaviour",
    r"colors?|colored": "colour",
    r"centers?|centered": "centre",
    r"gray\w*": "grey",
    r"licenses?": "licence",
    r"labeled|labeling": "labelled",
    r"Meta ?[wW]orld": "Meta-World",
    r"Lerobot|Le Robot": "LeRobot",
    r"Web[sS]ockets?|web sockets?": "websocket",
    r"judgments?": "judgement",
    r"Tensor[bB]oards?(?<!TensorBoard)|tensorboards?": "TensorBoard",
}
"""A spelling that is not ours, as a pattern of whole words, and ours."""
WORDS = {
    re.compile(rf"(?<![\w.=\-])(?:{theirs})(?![\w=(:]|\.\w)", re.IGNORECASE if theirs.islower() else 0): ours
    for theirs, ours in SPELLING.items()
}
ANY_WORD = re.compile("|".join(SPELLING), re.IGNORECASE)
CODE = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"^ *\|.*$", re.MULTILINE)
NAMES = re.compile(
    r"`[^`]*`|\]\([^)]*\)|<[^>]+>|https?://\S+|hf://\S+|\b[\w.-]+/[\w./-]+|\b\w+\.(?:md|py|json|toml)\b|(?<!\w)--[\w.-]+"
)


DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def prose_of(document: str) -> str:
    """The running text of a Markdown document: without code, tables, links' targets and names of files.

    Line breaks stay, so that places have their line numbers.
    """
    for pattern in (CODE, TABLE, NAMES):
        document = pattern.sub(lambda found: "\n" * found[0].count("\n") or " ", document)
    return document


def docstrings(file: Path) -> Iterator[tuple[int, str]]:
    """Line and text of all docstrings of a source file, those of fields included, without code."""
    for node in ast.walk(ast.parse(file.read_text())):
        for line in node.body if isinstance(node, DOCUMENTED) else ():
            if (
                isinstance(line, ast.Expr)
                and isinstance(line.value, ast.Constant)
                and isinstance(line.value.value, str)
            ):
                yield line.lineno, NAMES.sub(" ", line.value.value)


def messages(file: Path) -> Iterator[tuple[int, str]]:
    """Line and text of all strings of a source file that have a blank, such as messages; docstrings are among them.

    Style sheets and scripts, which have both braces and semicolons, are not.
    """
    for node in ast.walk(ast.parse(file.read_text())):
        text = isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip()
        if text and not {"{", ";"} <= set(node.value):
            yield node.lineno, NAMES.sub(" ", node.value)


def wrong_numbers(text: str) -> list[str]:
    """The numbers of a text that are not in the style of the house, each with the rule that it breaks."""
    lines = text.splitlines()
    return [
        f"line {number}: {line[max(found.start() - 15, 0) : found.end() + 15].strip()!r}: {rule}"
        for number, line in enumerate(lines, start=1)
        for rule, pattern in NUMBER_STYLE.items()
        for found in pattern.finditer(line)
    ]


def wrong_words(text: str) -> list[str]:
    """The words of a text that are spelled otherwise than in the rest of the house."""
    return [
        f"line {number}: {found[0]!r}: write {ours}"
        for number, line in enumerate(text.splitlines(), start=1)
        if ANY_WORD.search(line)
        for pattern, ours in WORDS.items()
        for found in pattern.finditer(line)
    ]


def measure(document: str) -> dict[str, float]:
    """How plain a Markdown document is: the lengths of its sentences in words, and its numbers per 100 words.

    Headings, code, tables, links' targets and names of files do not count. A sentence ends with a stop, a
    question mark, an exclamation mark or a colon, with a paragraph, and with an item of a list.
    """
    text = re.sub(r"^#.*$", "", prose_of(document), flags=re.MULTILINE)
    blocks = re.split(r"\n\s*\n|\n\s*(?:[-*]|\d+\.) ", text)
    sentences = [part for block in blocks for part in re.split(r"(?<=[.!?:])\s+", " ".join(block.split()))]
    lengths = sorted(count for part in sentences if (count := len(re.findall(r"[A-Za-z][\w'-]*", part))))
    words, numbers = sum(lengths), len(re.findall(r"(?<![\w.])-?\d[\d,.]*", text))
    return {
        "median sentence": median(lengths),
        "p90 sentence": lengths[min(int(0.9 * len(lengths)), len(lengths) - 1)],
        "numbers per 100 words": 100 * numbers / words,
    }
