// What the theme leaves out for keyboards and screen readers: the name of its search, and that wide tables can be scrolled.
document$.subscribe(() => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  requestAnimationFrame(() => document.querySelectorAll(".md-typeset__scrollwrap").forEach((one) => { one.tabIndex = 0; }));
});
