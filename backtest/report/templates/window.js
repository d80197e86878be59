// One window of time for all charts, and the figures of what it shows.
const DAY = 864e5;
const blocks = data.window && { ...data.window, ends: unpackValue(data.window.ends) };
const timed = charts.filter(isTimed);
const wholeOfPage = () => {
  const story = data.charts.story || (timed.length && data.charts[timed[0].dataset.chart]);
  return story ? findWhole(story) : null;
};
const decimals = (value) => (
  dropMinus(value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 })));
const percent = (value) => `${decimals(100 * value)} %`;
// The figures of the whole blocks inside a window; null where there is none.
const measureWindow = ([from, to]) => {
  const slack = 1000; // ranges are written in seconds
  const begins = (k) => (k === 0 ? blocks.start : blocks.ends[k - 1]);
  let first = 0;
  while (first < blocks.ends.length && begins(first) < from - slack) first += 1;
  let last = blocks.ends.length - 1;
  while (last >= first && blocks.ends[last] > to + slack) last -= 1;
  if (last < first) return null;
  const begun = first === 0 ? 1 : blocks.unit[first - 1];
  let peak = begun;
  let fall = 0;
  const sums = { count: 0, returns: 0, squares: 0, excess: 0, excess_squares: 0 };
  let fills = 0;
  for (let k = first; k <= last; k += 1) {
    if (peak > 0) fall = Math.max(fall, 1 - blocks.low[k] / peak, blocks.fall[k]);
    peak = Math.max(peak, blocks.high[k]);
    Object.keys(sums).forEach((name) => { sums[name] += blocks[name][k]; });
    if (blocks.fills) fills += blocks.fills[k];
  }
  const n = sums.count;
  const deviate = (sum, squares) => Math.sqrt(Math.max(squares - (sum * sum) / n, 0) / (n - 1));
  const days = (blocks.ends[last] - begins(first)) / DAY;
  const spread = deviate(sums.excess, sums.excess_squares);
  return {
    from: begins(first),
    to: blocks.ends[last],
    total_return: begun > 0 ? percent(blocks.unit[last] / begun - 1) : "n/a",
    max_drawdown: percent(fall),
    volatility: n > 1 ? percent(deviate(sums.returns, sums.squares) * Math.sqrt(blocks.periods)) : "n/a",
    sharpe: days >= blocks.few && spread > 0 ? decimals((sums.excess / n / spread) * Math.sqrt(blocks.periods)) : "n/a",
    fills: blocks.fills ? fills.toLocaleString("en") : null,
  };
};
const figures = [...document.querySelectorAll(".facts .value[data-measure]")];
figures.forEach((element) => { element.dataset.whole = element.textContent; });
const note = document.querySelector(".window-note");
const showFigures = () => {
  if (!blocks || !note) return;
  const found = windows.span && measureWindow(windows.span);
  figures.forEach((element) => {
    const own = found && found[element.dataset.measure];
    element.textContent = own || element.dataset.whole;
    element.parentElement.classList.toggle("of-run", Boolean(windows.span) && !own);
  });
  document.querySelectorAll(".facts .value:not([data-measure])").forEach((element) => {
    element.parentElement.classList.toggle("of-run", Boolean(windows.span));
  });
  const day = (time) => writeTime(time).replace("T", " ").slice(0, 16).replace(" 00:00", "");
  note.textContent = found
    ? `Figures of ${day(found.from)} to ${day(found.to)} UTC; grey ones are of the whole run.`
    : (windows.span && "The window is shorter than one sampling period: the figures are of the whole run.") || "";
};
// The window by name: its buttons, its limits, and the charts that follow it.
const tools = document.querySelector(".window");
const setWindow = (span) => {
  const whole = wholeOfPage();
  if (!whole) return;
  let next = null;
  if (span) {
    const size = Math.max(Math.min(span[1] - span[0], whole[1] - whole[0]), 6e4);
    const from = Math.min(Math.max(span[0], whole[0]), whole[1] - size);
    if (size < 0.999 * (whole[1] - whole[0])) next = [from, from + size];
  }
  windows.span = next;
  drawLater(timed);
  showFigures();
  if (tools) {
    tools.querySelectorAll("[data-days]").forEach((button) => {
      const days = Number(button.dataset.days);
      const isOn = days ? Boolean(next) && Math.abs(next[1] - next[0] - days * DAY) < 6e4 : !next;
      button.setAttribute("aria-pressed", String(isOn));
    });
    tools.querySelectorAll("[data-move]").forEach((button) => { button.disabled = !next; });
  }
};
if (tools && wholeOfPage()) {
  const whole = wholeOfPage();
  const days = (whole[1] - whole[0]) / DAY;
  tools.querySelectorAll("[data-days]").forEach((button) => {
    const size = Number(button.dataset.days);
    if (size >= days) button.hidden = true;
    button.addEventListener("click", () => {
      if (!size) { setWindow(null); return; }
      const end = windows.span ? windows.span[1] : whole[1];
      const from = Math.max(end - size * DAY, whole[0]);
      setWindow([from, from + size * DAY]);
    });
  });
  tools.querySelectorAll("[data-move]").forEach((button) => button.addEventListener("click", () => {
    const [from, to] = windows.span || whole;
    const step = (Number(button.dataset.move) * (to - from)) / 2;
    setWindow([from + step, to + step]);
  }));
  tools.querySelectorAll("[data-from]").forEach((button) => button.addEventListener("click", () => {
    const [from, to] = [button.dataset.from, button.dataset.to].map(parseTime);
    const margin = Math.max(0.15 * (to - from), 2 * DAY);
    setWindow([from - margin, to + margin]);
  }));
  tools.hidden = false;
}
// A chart that is zoomed takes all others along; a double click shows the whole again.
const followZoom = (box) => {
  box.on("plotly_relayout", (event) => {
    const range = [event["xaxis.range[0]"], event["xaxis.range[1]"]];
    if (range[0] !== undefined && range[1] !== undefined) setWindow(range.map((x) => parseTime(String(x).slice(0, 19))));
    else if (event["xaxis.autorange"]) setWindow(null);
  });
  box.on("plotly_doubleclick", () => setWindow(null));
};
