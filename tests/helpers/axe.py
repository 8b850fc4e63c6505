"""What axe-core finds wrong with a page, for tests of pages in a browser."""

from importlib import resources
from typing import Any

GRAVE = ("serious", "critical")
RUN = """async () => (await axe.run(document, { resultTypes: ["violations"] })).violations.map((found) => ({
  impact: found.impact,
  rule: found.id,
  help: found.help,
  nodes: found.nodes.map((node) => node.target.join(" ")),
}))"""


def serious_violations(page: Any) -> list[str]:
    """One line about each serious or critical violation on a page of Playwright, as it is shown now.

    A line names the rule, what it asks for, and the elements that break it.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    return [
        f"{found['rule']}: {found['help']} ({', '.join(found['nodes'][:5])}, {len(found['nodes'])} in all)"
        for found in page.evaluate(RUN)
        if found["impact"] in GRAVE
    ]
