// The search dialog of the theme has no name for screen readers.
document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
