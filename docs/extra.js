// What the theme leaves out: the name of its search and that wide tables can be scrolled, for keyboards and screen readers;
// and figures that open at their own size, where a phone shows them small.
document$.subscribe(() => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  requestAnimationFrame(() => document.querySelectorAll(".md-typeset__scrollwrap").forEach((one) => { one.tabIndex = 0; }));
  document.querySelectorAll(".md-content img").forEach((figure) => {
    if (figure.closest("a")) return;
    const link = document.createElement("a");
    link.href = figure.src;
    link.className = figure.className; // of a figure or its panels one is shown
    figure.replaceWith(link);
    link.append(figure);
  });
});
