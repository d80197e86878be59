(() => {
  const table = document.querySelector(".list");
  if (!table) return;
  const body = table.querySelector("tbody");
  const heads = [...table.querySelectorAll("thead th")].slice(1);
  const search = document.getElementById("search");
  const input = search.querySelector(".words");
  const kind = search.querySelector(".kind-of");
  const count = search.querySelector(".count");
  const more = document.querySelector(".more");
  const words = data.rows.map((row) => `${row.cells.join(" ")} ${row.under}`.toLowerCase());
  const order = data.rows.map((row, place) => place);
  const chosen = new Map();
  let limit = data.first;
  let by = heads.length - 1;
  let rising = false;

  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const line = (row) => {
    const tr = make("tr", row.kind === "damaged" ? "broken" : "");
    const pick = make("td", "pick");
    if (row.key) {
      const box = make("input");
      box.type = "checkbox";
      box.name = "run";
      box.value = row.key;
      box.checked = chosen.has(row.key);
      box.setAttribute("aria-label", `compare ${row.cells[0]}`);
      box.addEventListener("change", () => {
        if (box.checked) chosen.set(row.key, row.cells[0]); else chosen.delete(row.key);
        tell();
      });
      pick.append(box);
    }
    tr.append(pick);
    row.cells.forEach((text, column) => {
      const cell = make(column ? "td" : "th", column ? (data.numbers[column] ? "number" : "word") : "long");
      if (column) cell.textContent = text;
      else {
        cell.scope = "row";
        const name = make(row.link ? "a" : "span", "", text);
        if (row.link) name.href = row.link;
        cell.append(name, make("span", "under", row.under));
      }
      tr.append(cell);
    });
    return tr;
  };

  // ------------------------------------------------------ filter and sort
  const compare = (a, b) => {
    const [x, y] = [data.rows[a].order[by], data.rows[b].order[by]];
    if (x === null || y === null || x === "" || y === "") {
      const missing = (value) => (value === null || value === "" ? 1 : 0);
      return missing(x) - missing(y) || a - b;
    }
    const sign = x < y ? -1 : x > y ? 1 : 0;
    return (rising ? sign : -sign) || a - b;
  };
  const show = () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = order.filter((place) => (!kind.value || data.rows[place].kind === kind.value)
      && wanted.every((word) => words[place].includes(word)));
    body.replaceChildren(...found.slice(0, limit).map((place) => line(data.rows[place])));
    more.hidden = found.length <= limit;
    count.textContent = `${Math.min(found.length, limit).toLocaleString("en")} of `
      + `${found.length.toLocaleString("en")} shown`;
  };
  const sort = () => {
    order.sort(compare);
    heads.forEach((head, column) => {
      if (column === by) head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    show();
  };
  heads.forEach((head, column) => {
    const button = make("button", "sort", head.textContent);
    button.type = "button";
    button.addEventListener("click", () => {
      rising = by === column ? !rising : !data.numbers[column] && column < heads.length - 1;
      by = column;
      sort();
    });
    head.replaceChildren(button);
  });
  const restart = () => { limit = data.first; show(); };
  input.addEventListener("input", restart);
  kind.addEventListener("change", restart);
  search.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { limit += data.first; show(); });
  search.hidden = false;

  // ---------------------------------------------------------------- compare
  const bar = document.getElementById("bar");
  const text = bar && bar.querySelector(".chosen");
  const button = document.getElementById("compare");
  const clear = document.getElementById("clear");
  const plain = text && text.textContent;
  const tell = () => {
    if (!bar) return;
    const names = [...chosen.values()];
    const short = (name) => (name.length > 60 ? `${name.slice(0, 59)}…` : name);
    text.textContent = !names.length ? plain
      : names.length > data.most ? `${names.length} ticked: at most ${data.most} can be told apart`
        : `${names.length} ticked, baseline ${short(names[0])}`;
    button.disabled = names.length < 2 || names.length > data.most;
    clear.hidden = !names.length;
  };
  document.getElementById("choose").addEventListener("submit", (event) => {
    event.preventDefault();
    if (chosen.size < 2) return;
    window.location.href = `/compare?${[...chosen.keys()].map((key) => `run=${encodeURIComponent(key)}`).join("&")}`;
  });
  if (clear) clear.addEventListener("click", () => { chosen.clear(); tell(); show(); });
  tell();
  sort();
  document.documentElement.dataset.ready = "yes";
})();
