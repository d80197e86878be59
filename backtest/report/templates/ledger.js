// Ledgers: long tables that are searched by words, and lead to a time in the first chart.
const ledgers = [...document.querySelectorAll("[data-ledger]")].map((box, number) => {
  const rows = data.ledgers[number];
  let words = null; // of each row, made for the first search
  const search = box.querySelector(".search");
  const input = box.querySelector(".words");
  const body = box.querySelector("tbody");
  const more = box.querySelector(".more");
  const count = box.querySelector(".count");
  let limit = data.first;

  const line = (row, place) => {
    const tr = document.createElement("tr");
    tr.dataset.row = place;
    row.forEach((text, column) => {
      const cell = document.createElement(column === 0 ? "th" : "td");
      if (column === 0) cell.scope = "row";
      else cell.className = data.numbers[number][column] ? "number" : "word";
      if (column === 0 && data.charts.story) {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "link";
        button.title = "Show this time in the first chart";
        button.textContent = text;
        button.addEventListener("click", () => zoom(text));
        cell.append(button);
      } else cell.textContent = text;
      tr.append(cell);
    });
    return tr;
  };
  const show = () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [];
    if (wanted.length && !words) words = rows.map((row) => row.join(" ").toLowerCase());
    rows.forEach((row, place) => {
      if (wanted.every((word) => words[place].includes(word))) found.push(place);
    });
    body.replaceChildren(...found.slice(0, limit).map((place) => line(rows[place], place)));
    more.hidden = found.length <= limit;
    count.textContent = `${Math.min(found.length, limit).toLocaleString("en")} of `
      + `${found.length.toLocaleString("en")} shown`;
  };
  const restart = () => { limit = data.first; show(); };
  input.addEventListener("input", restart);
  search.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { limit += 200; show(); });
  // The first rows stand in the page: they get their buttons when the charts are drawn.
  afterCharts.push(() => { search.hidden = false; if (!input.value) show(); });
  return (place) => {
    const fold = box.closest("details");
    if (fold) fold.open = true;
    input.value = ""; limit = Math.max(data.first, place + 20);
    show();
    const row = body.querySelector(`[data-row="${place}"]`);
    if (!row) return;
    row.classList.add("found");
    row.scrollIntoView({ block: "center" });
    row.querySelector("button, th").focus();
  };
});

const zoom = (text) => {
  const box = charts.find((each) => each.dataset.chart === "story");
  const middle = parseTime(text);
  if (!box.layout) draw(box);
  const [from, to] = findWhole(data.charts.story);
  const half = Math.max((to - from) / 24, 36e5);
  setWindow([middle - half, middle + half]);
  box.scrollIntoView({ block: "start" });
  draw(box);
};
const listen = (box) => {
  if (isTimed(box)) followZoom(box);
  box.on("plotly_click", (event) => {
    const place = event.points.map((point) => point.customdata).find(Number.isInteger);
    if (place !== undefined && place >= 0 && ledgers.length) ledgers[0](place);
  });
};
