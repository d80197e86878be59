// The list of a store: sorted, filtered, and two runs laid over each other.
const { measures, rows: curves } = JSON.parse(document.getElementById("curves").textContent);
const table = document.querySelector(".list");
const body = table.querySelector("tbody");
const rows = [...body.rows];
const form = document.querySelector(".search");
const words = form.querySelector(".words");
const kinds = form.querySelector(".kinds");

// ---------------------------------------------------------------- filter
const show = () => {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  rows.forEach((row) => {
    const text = row.textContent.toLowerCase();
    const fits = (!kinds.value || row.dataset.kind === kinds.value)
      && wanted.every((word) => text.includes(word));
    row.hidden = !fits;
    shown += fits;
  });
  form.querySelector(".count").textContent = `${shown} of ${rows.length} shown`;
};
words.addEventListener("input", show);
kinds.addEventListener("change", show);
form.addEventListener("submit", (event) => event.preventDefault());

// ------------------------------------------------------------------ sort
const read = (row, column) => {
  const cell = row.cells[column];
  const value = cell.dataset.value ?? cell.textContent;
  const number = Number(value);
  return value !== "" && Number.isFinite(number) ? number : value;
};
const order = (a, b) => {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
  return typeof a === "number" ? -1 : 1; // what is not known comes last
};
[...table.tHead.rows[0].cells].forEach((head, column) => {
  if (head.tagName !== "TH" || head.textContent === "equity") return;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "link";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const isDown = head.ariaSort !== "descending";
    [...table.tHead.rows[0].cells].forEach((each) => each.removeAttribute("aria-sort"));
    head.ariaSort = isDown ? "descending" : "ascending";
    const known = rows.filter((row) => read(row, column) !== "");
    const unknown = rows.filter((row) => read(row, column) === "");
    known.sort((a, b) => (isDown ? -1 : 1) * order(read(a, column), read(b, column)));
    body.append(...known, ...unknown);
    table.caption.textContent = `By ${button.textContent.trim()}, the ${isDown ? "largest" : "smallest"} first`;
  });
});

// --------------------------------------------------------------- compare
const both = document.getElementById("both");
const ticks = [...body.querySelectorAll("input[data-place]")];
const make = (name, text, className) => {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
};
const draw = (pair) => {
  const [width, height, foot] = [900, 260, 22];
  const start = Math.min(...pair.map((each) => each.start));
  const end = Math.max(...pair.map((each) => each.end));
  const known = pair.flatMap((each) => each.values).filter((value) => value > 0);
  const [low, high] = [Math.log(Math.min(...known)), Math.log(Math.max(...known))];
  const names = body.querySelector("svg").namespaceURI;
  const svg = document.createElementNS(names, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "Values of 1 over time, on a logarithmic scale");
  pair.forEach((each, k) => {
    const line = document.createElementNS(names, "polyline");
    line.setAttribute("class", k ? "spark second" : "spark");
    const last = each.values.length - 1;
    line.setAttribute("points", each.values.map((value, i) => {
      const time = each.start + ((each.end - each.start) * i) / last;
      const x = 60 + ((width - 64) * (time - start)) / (end - start || 1);
      const up = value > 0 ? (Math.log(value) - low) / (high - low || 1) : 0;
      return `${x.toFixed(1)},${(height - foot - 4 - (height - foot - 8) * up).toFixed(1)}`;
    }).join(" "));
    svg.append(line);
  });
  const write = (text, x, y, anchor) => {
    const label = document.createElementNS(names, "text");
    label.setAttribute("x", x);
    label.setAttribute("y", y);
    label.setAttribute("text-anchor", anchor);
    label.textContent = text;
    svg.append(label);
  };
  const day = (time) => new Date(time).toISOString().slice(0, 10);
  write(Math.exp(high).toPrecision(3), 54, 12, "end");
  write(Math.exp(low).toPrecision(3), 54, height - foot - 2, "end");
  write(day(start), 60, height - 4, "start");
  write(day(end), width - 4, height - 4, "end");
  return svg;
};
const compare = () => {
  const chosen = ticks.filter((tick) => tick.checked);
  ticks.forEach((tick) => { tick.disabled = chosen.length > 1 && !tick.checked; });
  both.hidden = chosen.length !== 2;
  if (both.hidden) return;
  const pair = chosen.map((tick) => curves[tick.dataset.place]);
  const grid = make("table");
  const head = grid.createTHead().insertRow();
  ["measure", "first", "second", "change"].forEach((text, k) => {
    const cell = make("th", text, k ? "number" : "word");
    cell.scope = "col";
    head.append(cell);
  });
  const lines = grid.createTBody();
  Object.entries(measures).forEach(([name, { title, better }]) => {
    const values = pair.map((each) => each.measures[name]);
    if (!values.every(Boolean)) return;
    const row = lines.insertRow();
    const label = make("th", title);
    label.scope = "row";
    const change = values[1][0] - values[0][0];
    const word = !better || !change ? "" : (change > 0) === (better > 0) ? " better" : " worse";
    row.append(label, make("td", values[0][1], "number"), make("td", values[1][1], "number"),
      make("td", !change ? "=" : `${change > 0 ? "▲" : "▼"}${word}`, "number"));
  });
  const key = make("p", undefined, "lead");
  pair.forEach((each, k) => key.append(make("span", `${k ? "second" : "first"}: ${each.title}`, k ? "key second" : "key")));
  both.replaceChildren(make("h2", "Two results"), key, draw(pair), grid);
  both.scrollIntoView({ block: "nearest" });
};
ticks.forEach((tick) => { tick.hidden = false; tick.addEventListener("change", compare); });
form.hidden = false;
show();
