// What screen readers and keyboards miss in the theme: the search dialog has no name, and wide tables cannot be
// scrolled without a mouse.
function reachable() {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) table.tabIndex = 0;
}

document.addEventListener("DOMContentLoaded", reachable);
window.addEventListener("load", reachable);
