// Charts: their data unpacked, their axes fitted to what is shown, drawn and redrawn.
// Five letters of 85 are four bytes: see pack_text of render.py.
const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%:()*+-;,=.?@^_`{|}~";
const unpackLetters = (text) => {
  const codes = new Uint8Array(128);
  [...letters].forEach((letter, code) => { codes[letter.charCodeAt(0)] = code; });
  const left = (5 - (text.length % 5)) % 5;
  const padded = text + "~".repeat(left);
  const bytes = new Uint8Array((padded.length / 5) * 4);
  const code = (place) => codes[padded.charCodeAt(place)];
  for (let k = 0, at = 0; k < padded.length; k += 5, at += 4) {
    const value = 85 * (85 * (85 * (85 * code(k) + code(k + 1)) + code(k + 2)) + code(k + 3)) + code(k + 4);
    bytes[at] = value >>> 24;
    bytes[at + 1] = value >>> 16;
    bytes[at + 2] = value >>> 8;
    bytes[at + 3] = value;
  }
  return bytes.subarray(0, bytes.length - left);
};
const inflate = async (packed) => {
  const bytes = unpackLetters(packed);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).text();
};
const data = JSON.parse(await inflate(document.getElementById("page-data").textContent));
const root = document.documentElement;
const charts = [...document.querySelectorAll("[data-chart]")];
const system = window.matchMedia("(prefers-color-scheme: dark)");
const wide = 640;
const buttons = 32;
let printing = false;

// ---------------------------------------------------------------- data
// Browsers before 2025 have no fromBase64, which is many times as fast.
const readBytes = (text) => (Uint8Array.fromBase64
  ? Uint8Array.fromBase64(text)
  : Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
// The first byte of each value, then the second of each, and so on: see packing.py.
const unshuffle = (text) => {
  const bytes = readBytes(text);
  const n = bytes.length / 4;
  const table = new Uint8Array(bytes.length);
  for (let k = 0; k < n; k += 1) {
    for (let place = 0; place < 4; place += 1) table[4 * k + place] = bytes[place * n + k];
  }
  return table.buffer;
};
const unpackTimes = ({ first, step, steps }) => {
  const counts = new Int32Array(unshuffle(steps));
  const times = new Float64Array(counts.length);
  let time = first;
  counts.forEach((count, k) => { time += count * step; times[k] = time; });
  return times;
};
const unpackValue = (value) => {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
  if ("floats" in value) return new Float32Array(unshuffle(value.floats));
  if ("steps" in value) return unpackTimes(value);
  if ("bdata" in value && !("shape" in value)) {
    const { buffer } = readBytes(value.bdata);
    return value.dtype === "f8" ? new Float64Array(buffer) : new Float32Array(buffer);
  }
  return value;
};
Object.values(data.charts).forEach((figure) => figure.data.forEach((trace) => {
  ["x", "y"].forEach((name) => { if (name in trace) trace[name] = unpackValue(trace[name]); });
}));

// ---------------------------------------------------------------- colors
const isDark = () => !printing
  && (root.dataset.theme === "dark" || (root.dataset.theme === "auto" && system.matches));
const swaps = Object.keys(data.light).map((name) => [data.light[name], data.dark[name]]);
const swap = (text) => (
  /[#(]/.test(text) ? swaps.reduce((all, [from, to]) => all.split(from).join(to), text) : text);
// A copy of a figure, in the colors of the theme; long arrays are shared.
const copy = (value) => {
  if (typeof value === "string") return isDark() ? swap(value) : value;
  if (Array.isArray(value)) return value.map(copy);
  if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return value;
  if ("bdata" in value) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, copy(item)]));
};

// ------------------------------------------------------------------ axes
const parseTime = (text) => (typeof text === "number" ? text : Date.parse(`${text.replace(" ", "T")}Z`));
// The library takes a number or a date for a time of the reader's zone, and a text for what it says.
// To write and to read thousands of texts takes long: a date whose zone is UTC is taken as it is.
class UtcDate extends Date {
  getTimezoneOffset() { return 0; }
  getMinutes() { return this.getUTCMinutes(); }
}
const dated = new WeakMap();
const toDates = (times) => {
  if (!dated.has(times)) dated.set(times, Array.from(times, (time) => new UtcDate(time)));
  return dated.get(times);
};
const writeTime = (time) => new Date(time).toISOString().slice(0, 19);
const pen = document.createElement("canvas").getContext("2d");
// Asked for once: after each chart that is drawn the answer would compute the styles of the page.
const { fontFamily } = getComputedStyle(document.body);
const measureText = (text, size) => {
  pen.font = `${size}px ${fontFamily}`;
  return pen.measureText(text.replace(/<[^>]*>/g, "")).width;
};
// A title of a panel that is wider than a narrow screen goes on in a second line over the first
// panel, where there is room, and ends in an ellipsis over the others.
const fitTitle = (note, layout) => {
  const room = layout.width - layout.margin.l - layout.margin.r;
  const isFirst = note.y > 0.99;
  let line = "";
  let isCut = false;
  note.text = note.text.match(/<span.*?<\/span>|\S+/g).map((part) => {
    const next = line ? `${line} ${part}` : part;
    const isFull = line && measureText(next, note.font.size) > room;
    line = isFull && isFirst ? part : next;
    if (!isFull) return isCut ? "" : part;
    if (isFirst) {
      layout.margin = { ...layout.margin, t: layout.margin.t + 16 };
      return `<br>${part}`;
    }
    const mark = isCut ? "" : "…";
    isCut = true;
    return mark;
  }).filter(Boolean).join(" ");
};
const isTimed = (box) => {
  const { xaxis } = data.charts[box.dataset.chart].layout;
  return Boolean(xaxis && xaxis.type === "date");
};
// The whole time of a chart: its own range, or from its first value to its last.
const findWhole = (figure) => {
  const { range } = figure.layout.xaxis;
  if (range) return range.map(parseTime);
  const ends = figure.data.filter((trace) => trace.x && trace.x.length)
    .map((trace) => [parseTime(trace.x[0]), parseTime(trace.x[trace.x.length - 1])]);
  return [Math.min(...ends.map((pair) => pair[0])), Math.max(...ends.map((pair) => pair[1]))];
};
// The first place of a sorted array that is not before a time.
const findPlace = (times, time) => {
  let [low, high] = [0, times.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < time) low = middle + 1; else high = middle;
  }
  return low;
};
const axisOf = (trace) => `yaxis${(trace.yaxis || "y").slice(1)}`;
const isLine = (trace) => (trace.mode || "").startsWith("lines") && trace.visible !== false
  && ArrayBuffer.isView(trace.x) && ArrayBuffer.isView(trace.y);
// The lowest and the highest value of lines in a window of time, as they are stacked.
const findExtent = (traces, [from, to], isLog) => {
  let [low, high] = [Infinity, -Infinity];
  const sums = new Map();
  traces.forEach((trace) => {
    const first = Math.max(findPlace(trace.x, from) - 1, 0);
    const last = Math.min(findPlace(trace.x, to) + 1, trace.x.length);
    for (let k = first; k < last; k += 1) {
      let value = trace.y[k];
      if (trace.stackgroup) {
        const key = `${trace.stackgroup} ${trace.x[k]}`;
        value += sums.get(key) || 0;
        sums.set(key, value);
      }
      if (Number.isFinite(value) && (!isLog || value > 0)) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
  });
  return low <= high ? [low, high] : null;
};
const isPercent = (axis) => (axis.tickformat || "").endsWith("%");
// What rounds to zero has no minus.
const dropMinus = (text) => (/[1-9]/.test(text) ? text : text.replace("-", ""));
// As toLocaleString("en") writes it, which loads a language before the first chart is drawn.
const writeNumber = (value, digits) => {
  const rounded = Number(value.toPrecision(digits));
  const isTiny = rounded !== 0 && Math.abs(rounded) < 1e-6;
  const [whole, part] = (isTiny ? rounded.toFixed(20).replace(/0+$/, "") : String(rounded)).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return part ? `${grouped}.${part}` : grouped;
};
const writeTick = (value, axis) => (
  isPercent(axis) ? `${writeNumber(100 * value, 3)}%` : writeNumber(value, 4));
// Ticks of a logarithmic axis: the densest steps whose labels have room, else even steps.
const chooseTicks = (low, high, height) => {
  const room = 22;
  const span = Math.log10(high / low) || 1e-9;
  const far = (a, b) => (Math.log10(b / a) / span) * height;
  const from = Math.floor(Math.log10(low));
  const to = Math.ceil(Math.log10(high));
  const found = [[1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]
    .map((digits) => {
      const all = [];
      for (let power = from; power <= to; power += 1) digits.forEach((each) => all.push(each * 10 ** power));
      return all.filter((value) => value >= low * 0.999 && value <= high * 1.001);
    }).filter((all) => all.length > 1 && all.every((value, k) => k === 0 || far(all[k - 1], value) >= room));
  if (found.length) return found[0];
  const powers = [];
  const every = Math.max(1, Math.ceil((room * span) / height));
  for (let power = from; power <= to; power += every) {
    if (10 ** power >= low && 10 ** power <= high) powers.push(10 ** power);
  }
  if (powers.length > 1) return powers;
  const most = Math.max(2, Math.floor(height / room));
  const raw = (high - low) / most;
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((each) => each * size).find((each) => each >= raw);
  const all = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) all.push(value);
  const kept = [];
  all.forEach((value) => { if (!kept.length || far(kept[kept.length - 1], value) >= room) kept.push(value); });
  return kept;
};
// Steps of the calendar, in ms or months, none much over twice the one before: where one has a
// single date in a span, the step before has four at most.
const hours = [1, 2, 3, 6, 12, 24, 48, 96, 168, 336, 504].map((count) => count * 36e5);
const dateSteps = [...[1, 2, 5, 10, 15, 30].map((count) => count * 6e4), ...hours,
  ...[1, 2, 3, 6, 12, 24, 48, 96].map((count) => `M${count}`)];
const countDates = (step, [from, to]) => {
  const place = (time) => {
    if (typeof step === "number") return (time - Date.UTC(2000, 0, 1)) / step;
    const date = new Date(time);
    const months = 12 * (date.getUTCFullYear() - 2000) + date.getUTCMonth();
    const isInside = Date.UTC(2000, months) < time;
    return (months + (isInside ? 0.5 : 0)) / Number(step.slice(1));
  };
  return Math.floor(place(to)) - Math.ceil(place(from)) + 1;
};
// The shortest step whose dates are not too many, but two of them.
const chooseDateStep = (shown, most) => {
  const fitting = dateSteps.findIndex((step) => countDates(step, shown) <= most);
  const place = fitting < 0 ? dateSteps.length - 1 : fitting;
  return dateSteps[countDates(dateSteps[place], shown) < 2 && place > 0 ? place - 1 : place];
};
// Fit the axes of values to what the lines are in a window of time.
const fitAxes = (traces, layout, shown) => {
  const lines = traces.filter(isLine);
  const plot = layout.height - layout.margin.t - layout.margin.b;
  new Set(lines.map(axisOf)).forEach((name) => {
    const axis = layout[name] = { ...layout[name] };
    const isLog = axis.type === "log";
    const extent = findExtent(lines.filter((trace) => axisOf(trace) === name), shown, isLog);
    const [foot, top] = axis.domain || [0, 1];
    const height = plot * (top - foot);
    axis.fixedrange = true;
    if (!isLog) axis.nticks = Math.max(2, Math.min(axis.nticks || 6, Math.floor(height / 22)));
    if (!extent) return;
    let [low, high] = extent;
    axis.exponentformat = chooseExponents(low, high);
    if (isLog) {
      const pad = Math.max(0.05 * Math.log10(high / low), 0.004);
      [low, high] = [low / 10 ** pad, high * 10 ** pad];
      axis.range = [Math.log10(low), Math.log10(high)];
      axis.tickmode = "array";
      axis.tickvals = chooseTicks(low, high, height);
      axis.ticktext = axis.tickvals.map((value) => writeTick(value, axis));
      return;
    }
    if (axis.rangemode === "tozero") [low, high] = [Math.min(low, 0), Math.max(high, 0)];
    const pad = 0.05 * (high - low) || 0.05 * Math.abs(high) || 1;
    axis.range = [
      axis.rangemode === "tozero" && low === 0 ? 0 : low - pad,
      axis.rangemode === "tozero" && high === 0 ? 0 : high + pad,
    ];
  });
};
// A legend over the title of the first panel has room for as many rows as it breaks into: names that
// do not stand side by side stand in columns as wide as the widest of them.
const fitLegend = (traces, layout) => {
  if (!layout.showlegend || !layout.legend || layout.legend.yref !== "container") return;
  const key = 45; // pixels of the sign of a name, and of the gaps beside it
  const names = traces.filter((each) => each.showlegend && each.visible !== false).map((each) => each.name);
  const widths = names.map((name) => measureText(name, 12) + key);
  const room = layout.width - layout.margin.l - layout.margin.r;
  const total = widths.reduce((sum, width) => sum + width, 0);
  const abreast = total < room ? names.length : Math.max(1, Math.floor(room / Math.max(...widths)));
  const rows = Math.ceil(names.length / abreast);
  layout.margin = { ...layout.margin, t: Math.max(layout.margin.t, 22 + 19 * rows) };
};
// Small amounts, as of coins, are written out: the library would write 0.00002 as 20 \u00b5.
const chooseExponents = (low, high) => Math.max(Math.abs(low), Math.abs(high)) < 0.1 ? "none" : "B";
const fitBarNumbers = (trace, layout) => {
  if (trace.type !== "bar") return;
  ["x", "y"].forEach((letter) => {
    const values = Array.from(trace[letter]).filter(Number.isFinite);
    if (!values.length) return;
    const exponentformat = chooseExponents(Math.min(...values), Math.max(...values));
    layout[`${letter}axis`] = { ...layout[`${letter}axis`], exponentformat };
  });
};
// Numbers at the ends of bars have room beside the labels, also where a chart is narrow.
const fitBars = (traces, layout) => {
  const bars = traces.filter((trace) => trace.textposition === "outside");
  if (!bars.length || !layout.xaxis.range) return;
  const [labels, texts, values] = ["y", "text", "x"].map((key) => bars.flatMap((trace) => trace[key]));
  const widest = (words, size) => Math.max(...words.map((word) => measureText(word, size)));
  const plot = layout.width - widest(labels, 11) - 24;
  const share = Math.min((widest(texts, bars[0].textfont.size) + 8) / plot, 0.4);
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const sides = Number(low < 0) + Number(high > 0);
  const room = (share * (high - low)) / (1 - sides * share);
  const [from, to] = layout.xaxis.range;
  const range = [low < 0 ? Math.min(low - room, from) : from, high > 0 ? Math.max(high + room, to) : to];
  layout.xaxis = { ...layout.xaxis, range };
};
// Names of lines and spans stay where they are in view, and overlap none before them.
const placeNames = (layout, [from, to]) => {
  const room = layout.width - layout.margin.l - layout.margin.r;
  const taken = { line: [], span: [] };
  layout.annotations = (layout.annotations || []).filter((note) => {
    if (!(note.name in taken)) return true;
    const time = parseTime(note.x);
    if (time < from || time > to) return false;
    const size = measureText(note.text, note.font.size) + 10;
    let left = ((time - from) / (to - from)) * room;
    if (note.name === "span") left -= size / 2;
    else if (left + size > room) { note.xanchor = "right"; note.xshift = -3; left -= size; }
    const isFree = taken[note.name].every(([first, last]) => left >= last || left + size <= first);
    if (isFree) taken[note.name].push([left, left + size]);
    return isFree;
  });
};

// ----------------------------------------------------------------- charts
const settings = {
  displaylogo: false, responsive: false, showSendToCloud: false, showLink: false,
  modeBarButtons: [["toImage"]],
};
const timedSettings = { ...settings, doubleClick: false };
const chosen = {}; // by chart: which of its choices is shown
const windows = { span: null }; // the window of time that all charts show, null for the whole
const findShown = (figure) => {
  const whole = findWhole(figure);
  const { story } = data.charts;
  if (data.window && story) whole[1] = Math.min(whole[1], findWhole(story)[1]); // it ends after ruin
  if (!windows.span || printing) return whole;
  const [from, to] = windows.span;
  return [Math.max(from, whole[0]), Math.min(to, whole[1])];
};
// On paper charts are lower, and their letters as small as those of tables.
const shrinkLetters = (value) => {
  if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return;
  Object.entries(value).forEach(([key, item]) => {
    if (/font$/.test(key) && item.size) item.size = Math.round(8 * item.size) / 10;
    shrinkLetters(item);
  });
};
// The share of its height that a chart keeps on paper. A run with options has more charts, which stay
// within four sheets too.
const chooseShare = (box, tall, isWhole) => {
  const hasOptions = document.getElementById("payoff");
  if (tall > 600) return hasOptions ? 0.5 : 0.64;
  if (box.closest("#payoff")) return 0.72; // five panels of Greeks
  if (!hasOptions) return 0.5;
  return isWhole ? 0.3 : 0.42;
};
const compose = (box) => {
  const plain = data.charts[box.dataset.chart];
  const figure = copy(plain);
  const template = copy(data.template);
  // On paper a chart is as wide as its column, and lower.
  const sheet = 952;
  const isBeside = box.closest(".abreast") && box.closest(".abreast").querySelectorAll(".block").length < 2;
  const paper = { half: 0.48, third: 0.31, beside: isBeside ? 0.4 : 1 };
  const width = printing ? Math.round(sheet * (paper[box.parentElement.className] || 1)) : box.clientWidth;
  const tall = Number(box.dataset.height);
  const isWhole = !paper[box.parentElement.className];
  const height = printing ? Math.max(Math.round(tall * chooseShare(box, tall, isWhole)), 110) : tall;
  const layout = { ...figure.layout, template, width, height };
  if (printing) [layout.annotations, layout.legend, template].forEach((part) => shrinkLetters(part || null));
  if (width < wide) {
    layout.dragmode = false;
    // The buttons are always shown where nothing hovers: keep them off the first line of the chart.
    layout.margin = { ...layout.margin, t: Math.max(layout.margin.t, buttons) };
  }
  (layout.annotations || []).forEach((note) => { if (note.align === "left") fitTitle(note, layout); });
  figure.data.filter((each) => each.x.length * 40 > width).forEach((each) => delete each.texttemplate);
  if (box.dataset.scale) layout.yaxis = { ...layout.yaxis, type: box.dataset.scale };
  const choice = chosen[box.dataset.chart];
  if (choice) figure.data.forEach((each) => { if (each.meta) each.visible = each.meta === choice; });
  fitLegend(figure.data, layout);
  fitBars(figure.data, layout);
  figure.data.forEach((each) => fitBarNumbers(each, layout));
  if (isTimed(box) && figure.data.some(isLine)) {
    const shown = findShown(plain);
    layout.xaxis = { ...layout.xaxis, range: shown.map(writeTime) };
    fitAxes(figure.data, layout, shown);
    placeNames(layout, shown);
    // Dates are not turned, which need not be measured then: of a narrow chart they are few.
    const most = Math.max(3, Math.floor((width - layout.margin.l - layout.margin.r) / 62));
    layout.xaxis.tickangle = 0;
    if (width < wide) Object.assign(layout.xaxis, { tick0: "2000-01-01", dtick: chooseDateStep(shown, most) });
  }
  return { traces: figure.data, layout };
};
const stale = new Set();
const afterCharts = []; // what can wait until the charts are drawn
const draw = (box) => {
  if (!window.Plotly || (!printing && !box.clientWidth)) return; // folded: drawn when it is opened
  stale.delete(box);
  const isNew = !box.layout;
  if (isNew) box.replaceChildren();
  const { traces, layout } = compose(box);
  const isDated = layout.xaxis && layout.xaxis.type === "date";
  if (isDated) traces.filter((each) => ArrayBuffer.isView(each.x)).forEach((each) => { each.x = toDates(each.x); });
  window.Plotly.react(box, traces, layout, isTimed(box) ? timedSettings : settings);
  if (isNew) listen(box);
};
const ahead = 400; // pixels above and below the screen in which charts are drawn
const isInView = (box, margin = 0) => {
  const { top, bottom } = box.getBoundingClientRect();
  return Boolean(box.clientWidth) && top < window.innerHeight + margin && bottom > -margin;
};
// Charts near the screen are drawn at once, others when they come near.
const drawLater = (boxes) => boxes.filter((box) => box.layout).forEach((box) => {
  if (isInView(box, ahead)) draw(box); else stale.add(box);
});
const drawAgain = () => drawLater(charts);

// A still of the lines of a chart: it stands until the library has been compiled, which takes longer.
const sketch = (box) => {
  const { traces, layout } = compose(box);
  const lines = traces.filter(isLine);
  if (!lines.length || !layout.xaxis.range) return;
  const canvas = document.createElement("canvas");
  const paper = canvas.getContext("2d");
  const { l, r, t, b } = layout.margin;
  const [width, height, ratio] = [layout.width - l - r, layout.height - t - b, window.devicePixelRatio];
  canvas.width = layout.width * ratio;
  canvas.height = layout.height * ratio;
  canvas.style.cssText = `display: block; width: ${layout.width}px; height: ${layout.height}px`;
  paper.scale(ratio, ratio);
  const write = (text, x, y, align, color) => {
    paper.textAlign = align;
    paper.fillStyle = color;
    paper.fillText(text, x, y);
    return x + paper.measureText(text).width;
  };
  const [from, to] = layout.xaxis.range.map(parseTime);
  const across = (time) => l + ((time - from) / (to - from)) * width;
  (layout.shapes || []).filter((each) => each.type === "rect").forEach((each) => {
    const [first, last] = [each.x0, each.x1].map(parseTime).map(across);
    paper.globalAlpha = each.opacity;
    paper.fillStyle = each.fillcolor;
    paper.fillRect(first, t, last - first, height);
  });
  paper.globalAlpha = 1;
  const { font } = layout.template.layout.xaxis.title;
  paper.font = `11.5px ${fontFamily}`;
  new Set(lines.map(axisOf)).forEach((name) => {
    const axis = layout[name];
    if (!axis.range) return;
    const [foot, head] = (axis.domain || [0, 1]).map((part) => t + height * (1 - part));
    const turn = axis.type === "log" ? Math.log10 : (value) => value;
    const up = (value) => foot - ((foot - head) * (turn(value) - axis.range[0])) / (axis.range[1] - axis.range[0]);
    lines.filter((each) => axisOf(each) === name && !each.stackgroup).forEach((each) => {
      paper.beginPath();
      paper.strokeStyle = each.line.color;
      paper.lineWidth = each.line.width;
      let isOn = false;
      each.x.forEach((time, k) => {
        const y = up(each.y[k]);
        if (!Number.isFinite(y) || time > to) { isOn = false; return; }
        if (isOn && each.line.shape === "hv") paper.lineTo(across(time), up(each.y[k - 1]));
        paper[isOn ? "lineTo" : "moveTo"](across(time), y);
        isOn = true;
      });
      paper.stroke();
    });
    const ends = axis.tickvals || axis.range;
    ends.forEach((value) => write(writeTick(value, axis), l - 6, up(value) + 4, "right", font.color));
  });
  (layout.shapes || []).filter((each) => each.type === "line").forEach((each) => {
    paper.strokeStyle = each.line.color;
    paper.beginPath();
    paper.moveTo(across(parseTime(each.x0)), t);
    paper.lineTo(across(parseTime(each.x0)), t + height);
    paper.stroke();
  });
  write(layout.xaxis.range[0].slice(0, 10), l, layout.height - b + 18, "left", font.color);
  write(layout.xaxis.range[1].slice(0, 10), l + width, layout.height - b + 18, "right", font.color);
  (layout.annotations || []).filter((note) => note.align === "left").forEach((note) => {
    let x = l;
    note.text.replaceAll("<br>", "").split(/<span style="color:([^"]*)">(.*?)<\/span>/).forEach((part, k, all) => {
      if (k % 3 !== 1) x = write(part, x, t + height * (1 - note.y) - 6, "left", k % 3 ? all[k - 1] : note.font.color);
    });
  });
  box.replaceChildren(canvas);
};
document.querySelectorAll(".scale").forEach((button) => {
  const box = button.closest("figure").querySelector(".chart");
  const axis = data.charts[box.dataset.chart].layout.yaxis;
  box.dataset.scale = axis.type || "linear";
  const say = () => { button.textContent = box.dataset.scale === "log" ? "Linear scale" : "Log scale"; };
  button.addEventListener("click", () => {
    box.dataset.scale = box.dataset.scale === "log" ? "linear" : "log";
    say();
    draw(box);
  });
  say();
  button.hidden = false;
});
document.querySelectorAll(".choices").forEach((group) => {
  const box = group.closest("figure").querySelector(".chart");
  const key = box.dataset.chart;
  data.charts[key].layout.meta.choices.forEach((name, k) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.setAttribute("aria-pressed", String(k === 0));
    button.addEventListener("click", () => {
      chosen[key] = name;
      [...group.children].forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
      draw(box);
    });
    group.append(button);
  });
  group.hidden = false;
});
const unpackLibrary = async () => {
  const script = document.createElement("script");
  const own = document.getElementById("plotly");
  script.textContent = await inflate(own ? own.textContent : window.packedLibrary);
  document.head.append(script);
};
