// Sorts a table by the column whose heading is clicked, the better end first; what is missing or not finite is last.
function sortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const text = row.cells[column].dataset.value ?? row.cells[column].textContent;
    return text === "" || text === "nan" ? null : isNaN(Number(text)) ? text : Number(text);
  };
  headings.forEach((heading, column) => heading.querySelector("button")?.addEventListener("click", () => {
    const first = heading.dataset.first ?? "ascending";
    const again = heading.getAttribute("aria-sort") === first;
    const descending = (first === "descending") !== again;
    headings.forEach((other) => other.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a, column), value(b, column)];
      if (x === null || y === null) return (x === null) - (y === null);
      const order = typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x === "number" ? -1 : 1;
      return descending ? -order : order;
    });
    table.tBodies[0].append(...rows);
  }));
}
