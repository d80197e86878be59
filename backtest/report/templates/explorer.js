// The explorer of a search: a map of its sets, sliders for what the axes do not show, and equity.
const holder = document.createElement("div");
holder.innerHTML = "<svg></svg>";
const svgSpace = holder.firstChild.namespaceURI;
const shape = (name, attributes, parent, text) => {
  const element = document.createElementNS(svgSpace, name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
};
const element = (name, parent, text, className) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  if (parent) parent.append(made);
  return made;
};
const round = (value) => Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 });
const writeForm = (value, form) => {
  if (!Number.isFinite(value)) return "n/a";
  if (form === "percent") return `${dropMinus((100 * value).toFixed(2))} %`;
  if (form === "count") return dropMinus(value.toLocaleString("en", { maximumFractionDigits: 0 }));
  return Math.abs(value) < 100 ? dropMinus(value.toFixed(2)) : round(value);
};
const unpackArray = (value) => Array.from(Array.isArray(value) ? value : unpackValue(value), (each) => (each === null ? NaN : each));

// Round values between two numbers.
const chooseEven = (low, high) => {
  const raw = (high - low) / 5;
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((each) => each * size).find((each) => each >= raw);
  const even = [];
  for (let value = Math.ceil(low / step) * step; value <= high && even.length < 9; value += step) even.push(value);
  return even;
};
const fewSteps = 12; // different values from which on they may be those of a random search
const mostSteps = 40; // different values up to which an axis has a cell for each

// A column that an axis or the colors can show: a parameter or a measure, scaled to 0..1.
const readColumn = (source, kind) => {
  const values = unpackArray(source.values);
  const turn = source.log ? Math.log : (value) => value;
  const known = values.filter(Number.isFinite);
  const low = Math.min(...known);
  const high = Math.max(...known);
  const span = turn(high) - turn(low) || 1;
  const distinct = [...new Set(known)].sort((a, b) => a - b);
  const write = (value) => (source.words ? source.words[value] : kind === "measure" ? writeForm(value, source.form) : round(value));
  // An axis has a cell for each value of a grid, and is a scale where nearly every set has its own.
  const isShared = distinct.length <= mostSteps && values.length >= 2 * distinct.length;
  const isStepped = kind === "parameter" && (Boolean(source.words) || distinct.length <= fewSteps || isShared);
  const unit = source.unit ? `, ${source.unit}` : "";
  return {
    ...source, kind, values, low, high, distinct, isStepped, write,
    title: kind === "measure" ? source.title : `${source.name}${unit}`,
    scale: (value) => (turn(value) - turn(low)) / span,
    back: (part) => (source.log ? Math.exp(turn(low) + part * span) : low + part * span),
  };
};
const near = 0.1; // of a range, as far as neighbors reach
const tied = 1e-4; // values are rounded to five digits

const explore = (box, source) => {
  const parameters = source.parameters.map((each) => readColumn(each, "parameter"));
  const measures = source.measures.map((each) => readColumn(each, "measure"));
  const columns = [...parameters, ...measures];
  const ruined = unpackArray(source.ruined);
  const n = ruined.length;
  const places = [...Array(n).keys()];
  const find = (name) => columns.find((each) => `${each.kind} ${each.name}` === name);
  const key = (column) => `${column.kind} ${column.name}`;
  const { curves } = source;
  const times = curves ? unpackArray(curves.times) : [];
  const units = curves ? unpackArray(curves.units) : [];
  const curveOf = (place) => {
    const row = curves ? curves.places.indexOf(place) : -1;
    return row < 0 ? null : units.slice(row * times.length, (row + 1) * times.length);
  };
  const state = {
    x: parameters[0] || measures[0],
    y: parameters[1] || measures[0],
    color: measures[0],
    measure: measures[0],
    sliders: new Map(),
    selected: source.best,
  };
  const isObjective = () => state.measure.name === source.objective;
  const distance = (one, other, of = parameters) => Math.max(0, ...of.map((each) => {
    const [a, b] = [each.values[one], each.values[other]];
    return each.words ? Number(a !== b) : Math.abs(each.scale(a) - each.scale(b));
  }));

  // The best set of the measure that is chosen, and those that are near it.
  const numberOf = (each) => {
    const value = source.default[each.name];
    return each.words ? each.words.indexOf(value) : value;
  };
  const atDefault = source.default ? places.find((place) => parameters.every((each) => (
    each.words ? each.values[place] === numberOf(each) : Math.abs(each.scale(each.values[place]) - each.scale(numberOf(each))) <= tied))) : undefined;
  const findBest = () => {
    if (isObjective()) return source.best;
    const direction = state.measure.better < 0 ? -1 : 1;
    const alive = places.filter((place) => !ruined[place] && Number.isFinite(state.measure.values[place]));
    return alive.reduce((best, place) => (
      best < 0 || direction * (state.measure.values[place] - state.measure.values[best]) > 0 ? place : best), -1);
  };
  const findNear = (best) => {
    if (isObjective()) {
      const flags = unpackArray(source.near);
      return new Set(places.filter((place) => flags[place]));
    }
    const reaches = parameters.map((each) => {
      const steps = each.distinct.slice(1).map((value, k) => each.scale(value) - each.scale(each.distinct[k]));
      return each.words ? 0 : Math.max(near, Math.min(1, ...steps));
    });
    return new Set(places.filter((place) => place !== best && parameters.every((each, k) => (
      distance(place, best, [each]) <= reaches[k] + tied))));
  };
  const better = (one, other) => {
    const direction = state.measure.better < 0 ? -1 : 1;
    const [a, b] = [one, other].map((place) => (ruined[place] ? -Infinity : direction * state.measure.values[place]));
    return Number.isFinite(a) && !(a <= b);
  };
  // How far a set is from the sliders, in shares of the ranges of their parameters.
  const fixed = () => [...state.sliders].filter(([each, slider]) => slider.isOn && each !== state.x && each !== state.y);
  const distanceToSliders = (place) => Math.max(0, ...fixed().map(([each, slider]) => (
    each.words ? Number(each.values[place] !== slider.value)
      : Math.abs(each.scale(each.values[place]) - each.scale(slider.value)))));
  // A set that was ruined has no measures: it stands at the foot of an axis of one.
  const spotOf = (column, place) => {
    const value = column.values[place];
    return ruined[place] && !Number.isFinite(value) ? column.low : value;
  };
  // One set for each place of the map: the nearest to the sliders, and the best of equals.
  const findShown = () => {
    const chosen = new Map();
    places.forEach((place) => {
      const [x, y] = [state.x, state.y].map((each) => spotOf(each, place));
      if (!Number.isFinite(x) || !Number.isFinite(y)) return;
      const far = distanceToSliders(place);
      const spot = `${x} ${y}`;
      const held = chosen.get(spot);
      if (!held || far < held.far - tied || (far < held.far + tied && better(place, held.place))) {
        chosen.set(spot, { place, far, x, y });
      }
    });
    return [...chosen.values()].sort((a, b) => b.far - a.far);
  };

  // ------------------------------------------------------------ controls
  const form = element("form", box, undefined, "controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  const choose = (name, title, options) => {
    const label = element("label", form, `${title} `);
    const list = element("select", label);
    options.forEach((each) => { element("option", list, each.kind === "measure" ? each.title : each.name).value = key(each); });
    list.value = key(state[name]);
    list.addEventListener("change", () => { state[name] = find(list.value); if (name === "measure") lists.color.value = key(state.color = state.measure); show(); });
    return list;
  };
  const lists = {};
  lists.x = choose("x", "across", columns);
  lists.y = choose("y", "up", columns);
  lists.color = choose("color", "color", columns);
  lists.measure = choose("measure", "best by", measures);
  const sliders = element("div", box, undefined, "sliders");
  parameters.forEach((each) => {
    const isStepped = each.words || each.distinct.length <= mostSteps;
    const isOn = parameters.every((own) => own.isStepped); // of a random search no set lies on sliders
    const steps = isStepped ? each.distinct.length - 1 : 200;
    const value = each.values[source.best];
    const slider = { value, isOn };
    state.sliders.set(each, slider);
    const row = element("div", sliders, undefined, "slider");
    slider.row = row;
    const label = element("label", row);
    const check = element("input", label);
    check.type = "checkbox";
    check.checked = isOn;
    label.append(` ${each.name}`);
    const range = element("input", row);
    range.type = "range";
    range.min = 0;
    range.max = steps;
    range.setAttribute("aria-label", each.name);
    range.value = isStepped ? each.distinct.findIndex((own) => own === value) : Math.round(steps * each.scale(value));
    range.disabled = !isOn;
    const output = element("output", row, isOn ? each.write(value) : "any");
    const read = () => {
      slider.value = isStepped ? each.distinct[range.value] : each.back(range.value / steps);
      slider.isOn = check.checked;
      range.disabled = !check.checked;
      output.textContent = check.checked ? each.write(slider.value) : "any";
      show();
    };
    check.addEventListener("change", read);
    range.addEventListener("input", read);
  });
  const said = element("p", box, undefined, "note said");
  said.setAttribute("aria-live", "polite");
  const halves = element("div", box, undefined, "explored");
  const left = element("div", halves);
  const right = element("div", halves);

  // ----------------------------------------------------------------- map
  const place1 = (column, size, from, isUp) => {
    const { isStepped } = column;
    const step = size / (isStepped ? column.distinct.length : 1);
    const part = (value) => (isStepped ? (column.distinct.indexOf(value) + 0.5) / column.distinct.length : 0.03 + 0.94 * column.scale(value));
    const at = (value) => (isUp ? from + size - part(value) * size : from + part(value) * size);
    return { isStepped, step, at };
  };
  // Where a value lies that no set has: between the steps of a grid that it lies between.
  const between = (column, axis, value) => {
    if (!axis.isStepped) return axis.at(value);
    const upper = column.distinct.findIndex((own) => own >= value);
    if (upper < 0) return axis.at(column.high);
    if (upper === 0) return axis.at(column.low);
    const [a, b] = [column.distinct[upper - 1], column.distinct[upper]];
    const share = (column.scale(value) - column.scale(a)) / (column.scale(b) - column.scale(a));
    return axis.at(a) + share * (axis.at(b) - axis.at(a));
  };
  const listTicks = (column, axis, room) => {
    if (axis.isStepped) {
      const every = Math.max(1, Math.ceil(room / axis.step));
      return column.distinct.filter((_, k) => k % every === 0);
    }
    const ticks = column.log ? chooseTicks(column.low, column.high, 400 * (22 / room)) : null;
    if (ticks && ticks.length > 1) return ticks;
    return column.high > column.low ? chooseEven(column.low, column.high) : [column.low];
  };
  const tint = (place, [low, high]) => {
    const value = state.color.values[place];
    if (!Number.isFinite(value)) return "none";
    const isLess = state.color.better < 0;
    const part = Math.min(Math.max((value - low) / (high - low || 1), 0), 1);
    const share = Math.round(100 * (isLess ? 1 - part : part));
    return `color-mix(in oklab, var(--accent) ${share}%, var(--pale))`;
  };
  const findLimits = () => {
    const alive = places.filter((place) => !ruined[place]).map((place) => state.color.values[place]).filter(Number.isFinite).sort((a, b) => a - b);
    if (!alive.length) return [0, 1];
    const cut = (share) => alive[Math.round(share * (alive.length - 1))];
    return state.color.better < 0 ? [alive[0], cut(0.95)] : [cut(0.05), alive[alive.length - 1]];
  };
  const drawMap = (shown, best, neighbors) => {
    const width = Math.max(left.clientWidth || 560, 260);
    const height = Math.min(Math.max(0.72 * width, 300), 480);
    const labels = state.y.isStepped ? state.y.distinct.map(state.y.write) : [state.y.low, state.y.high, state.y.back(0.5)].map(state.y.write);
    const margin = { l: 16 + Math.min(Math.max(...labels.map((text) => measureText(text, 11))), 110), r: 10, t: 24, b: 58 };
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, tabindex: 0, role: "application", "aria-label": `Map of ${shown.length} sets: arrow keys walk from set to set` });
    const hatch = shape("pattern", { id: `hatch-${box.dataset.explorer}`, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, shape("defs", {}, svg));
    shape("rect", { width: 6, height: 6, class: "hatch-paper" }, hatch);
    shape("rect", { width: 2.2, height: 6, class: "hatch-line" }, hatch);
    const x = place1(state.x, width - margin.l - margin.r, margin.l, false);
    const y = place1(state.y, height - margin.t - margin.b, margin.t, true);
    const limits = findLimits();
    const isGrid = x.isStepped && y.isStepped && shown.length >= 0.3 * state.x.distinct.length * state.y.distinct.length;
    const marks = new Map();
    const outline = (spot, grow, attributes) => {
      const [cx, cy] = [x.at(spot.x), y.at(spot.y)];
      if (isGrid) {
        const [w, h] = [x.step - 2 * grow, y.step - 2 * grow];
        return shape("rect", { x: cx - w / 2, y: cy - h / 2, width: Math.max(w, 1), height: Math.max(h, 1), ...attributes }, svg);
      }
      return shape("circle", { cx, cy, r: 5.5 - grow, ...attributes }, svg);
    };
    shown.forEach((spot) => {
      const { place } = spot;
      const fill = ruined[place] ? `url(#hatch-${box.dataset.explorer})` : tint(place, limits);
      const mark = outline(spot, isGrid ? 0.5 : 0, { class: "set", style: `fill: ${fill}; opacity: ${Math.max(1 - 1.6 * Math.max(spot.far - tied, 0), 0.15)}` });
      const title = ruined[place] ? "ruined" : `${state.color.title} ${state.color.write(state.color.values[place])}`;
      shape("title", {}, mark, `${parameters.map((each) => `${each.name} ${each.write(each.values[place])}`).join(", ")}: ${title}`);
      mark.addEventListener("click", () => { state.selected = place; show(); });
      marks.set(place, spot);
    });
    shown.filter(({ place }) => neighbors.has(place)).forEach((spot) => outline(spot, 1.5, { class: "mark near" }));
    const atBest = { place: best, x: spotOf(state.x, Math.max(best, 0)), y: spotOf(state.y, Math.max(best, 0)) };
    if (best >= 0 && Number.isFinite(atBest.x) && Number.isFinite(atBest.y)) {
      outline(atBest, isGrid ? 1 : -2, { class: "mark best" });
    }
    const { selected } = state;
    if (selected !== best) outline({ x: spotOf(state.x, selected), y: spotOf(state.y, selected) }, isGrid ? 1 : -2, { class: "mark selected" });
    const ends = [state.x, state.y].map((each) => {
      if (!source.default) return NaN;
      if (each.kind === "measure") return atDefault === undefined ? NaN : spotOf(each, atDefault);
      const value = numberOf(each);
      return each.words ? value : Math.min(Math.max(value, each.low), each.high);
    });
    if (ends.every((value) => Number.isFinite(value) && value !== -1)) {
      const [cx, cy] = [between(state.x, x, ends[0]), between(state.y, y, ends[1])];
      const mark = shape("path", { d: `M${cx},${cy - 8}l8,8l-8,8l-8,-8z`, class: "mark default" }, svg);
      shape("title", {}, mark, "the default");
    }
    const write = (text, at, up, anchor, attributes) => shape("text", { x: at, y: up, "text-anchor": anchor, ...attributes }, svg, text);
    const wide = Math.max(...(state.x.words || [state.x.write(state.x.low), state.x.write(state.x.high), state.x.write(state.x.back(0.31))]).map((text) => measureText(text, 11))) + 12;
    let last = -Infinity;
    listTicks(state.x, x, wide).forEach((value) => {
      const text = state.x.write(value);
      const size = measureText(text, 11);
      const at = Math.min(Math.max(x.at(value), margin.l + size / 2 - 6), width - 2 - size / 2);
      if (at - size / 2 < last + 6) return;
      last = at + size / 2;
      write(text, at, height - margin.b + 16, "middle", {});
    });
    last = Infinity;
    listTicks(state.y, y, 16).forEach((value) => {
      const at = y.at(value);
      if (last - at < 14 && last >= at) return;
      last = at;
      write(state.y.write(value), margin.l - 8, at + 4, "end", {});
    });
    write(state.x.title, margin.l + (width - margin.l - margin.r) / 2, height - margin.b + 33, "middle", { class: "axis" });
    write(state.y.title, 2, 13, "start", { class: "axis" });
    // The scale of the colors.
    const bar = { l: margin.l, w: 110, y: height - 16 };
    for (let k = 0; k < 22; k += 1) {
      const part = state.color.better < 0 ? 1 - k / 21 : k / 21;
      shape("rect", { x: bar.l + 5 * k, y: bar.y, width: 5.2, height: 9, style: `fill: color-mix(in oklab, var(--accent) ${Math.round(100 * part)}%, var(--pale))` }, svg);
    }
    const from = state.color.better < 0 ? state.color.write(limits[0]) : `${state.color.write(limits[0])} or less`;
    const to = state.color.better < 0 ? `${state.color.write(limits[1])} or more` : state.color.write(limits[1]);
    write(`${state.color.title}: ${from} to ${to}`, bar.l + 118, bar.y + 8.5, "start", {});
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      const here = { x: x.at(spotOf(state.x, selected)), y: y.at(spotOf(state.y, selected)) };
      let nearest = null;
      shown.forEach((spot) => {
        const [dx, dy] = [x.at(spot.x) - here.x, y.at(spot.y) - here.y];
        const along = dx * step[0] + dy * step[1];
        const aside = Math.abs(dx * step[1]) + Math.abs(dy * step[0]);
        if (along < 0.5 || spot.place === selected) return;
        const cost = along + 3 * aside;
        if (!nearest || cost < nearest.cost) nearest = { cost, place: spot.place };
      });
      if (!nearest) return;
      state.selected = nearest.place;
      show();
      left.querySelector("svg").focus();
    });
    left.replaceChildren(svg);
    const legend = element("p", left, undefined, "legend");
    [["best", "best"], ["near", "its neighbors"], ["selected", "chosen"], ["default", "default"], ["ruined", "ruined"]].forEach(([name, text]) => {
      if (name === "default" && !left.querySelector(".default")) return;
      if (name === "ruined" && !ruined.some(Boolean)) return;
      element("span", legend, text, `key-${name}`);
    });
  };

  // -------------------------------------------------------------- equity
  const drawEquity = (lines) => {
    const width = Math.max(right.clientWidth || 560, 260);
    const height = 250;
    const margin = { l: 52, r: 8, t: 8, b: 24 };
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `One unit of money over time: ${lines.map((line) => `${line.name} ends at ${round(line.values[line.values.length - 1])}`).join(", ")}` });
    const positive = lines.flatMap((line) => line.values).filter((value) => value > 0);
    const high = Math.max(...positive);
    const low = Math.max(Math.min(...positive), high * 1e-5);
    const isLog = high / low >= 4;
    const turn = isLog ? Math.log : (value) => value;
    const foot = isLog ? low : Math.min(low, ...lines.flatMap((line) => line.values));
    const up = (value) => height - margin.b - (turn(Math.max(value, foot)) - turn(foot)) / (turn(high) - turn(foot) || 1) * (height - margin.t - margin.b);
    const across = (time) => margin.l + (time - times[0]) / (times[times.length - 1] - times[0]) * (width - margin.l - margin.r);
    const ticks = isLog ? chooseTicks(low, high, height - margin.t - margin.b) : chooseEven(foot, high);
    ticks.forEach((value) => {
      shape("line", { x1: margin.l, x2: width - margin.r, y1: up(value), y2: up(value), class: "grid" }, svg);
      shape("text", { x: margin.l - 6, y: up(value) + 4, "text-anchor": "end" }, svg, round(value));
    });
    lines.forEach((line) => {
      const points = line.values.map((value, k) => `${across(times[k]).toFixed(1)},${up(value).toFixed(1)}`);
      shape("polyline", { points: points.join(" "), class: `curve ${line.className}` }, svg);
    });
    const day = (time) => writeTime(time).slice(0, 10);
    shape("text", { x: margin.l, y: height - 6, "text-anchor": "start" }, svg, day(times[0]));
    shape("text", { x: width - margin.r, y: height - 6, "text-anchor": "end" }, svg, day(times[times.length - 1]));
    return svg;
  };
  const drawChosen = (best) => {
    const { selected } = state;
    right.replaceChildren();
    element("h3", right, selected === best ? "The best set" : "The chosen set beside the best");
    if (curves) {
      const lines = [];
      const ofBest = best >= 0 ? curveOf(best) : null;
      // A constant policy is its own constant leverage.
      const constant = curves.constant && unpackArray(curves.constant.values);
      const isOwn = constant && ofBest && constant.every((value, k) => Math.abs(value - ofBest[k]) <= 1e-3 * ofBest[k]);
      if (constant && !isOwn) lines.push({ name: curves.constant.name, values: constant, className: "constant" });
      if (ofBest) lines.push({ name: "best", values: ofBest, className: "best" });
      let place = selected;
      if (!curveOf(place)) place = curves.places.reduce((a, b) => (distance(b, selected) < distance(a, selected) ? b : a));
      if (selected !== best || !ofBest) lines.push({ name: place === selected ? "chosen" : "nearest with a curve", values: curveOf(place), className: "selected" });
      right.append(drawEquity(lines));
      const legend = element("p", right, undefined, "legend");
      lines.forEach((line) => element("span", legend, line.name, `line-${line.className}`));
      if (place !== selected) {
        element("p", right, `This set has no stored curve; the nearest of the ${curves.places.length} that have one is ${distance(place, selected).toFixed(2)} of a range away.`, "note");
      }
    } else element("p", right, "No equity curves are stored with this result.", "note");
    const scroll = element("div", right, undefined, "scroll");
    const table = element("table", scroll);
    const head = element("tr", element("thead", table));
    const shown = selected === best || best < 0 ? [["set", selected]] : [["chosen", selected], ["best", best]];
    const label = element("th", head, `set ${source.labels[selected]}`, "word");
    label.scope = "col";
    shown.forEach(([name]) => { element("th", head, name, "number").scope = "col"; });
    if (source.default) element("th", head, "default", "number").scope = "col";
    const body = element("tbody", table);
    columns.forEach((each) => {
      const row = element("tr", body);
      element("th", row, each.title).scope = "row";
      shown.forEach(([, place]) => element("td", row, ruined[place] && each.name === source.objective && each.kind === "measure" ? "ruined" : each.write(each.values[place]), "number"));
      if (!source.default) return;
      const value = each.kind === "parameter" ? source.default[each.name] : undefined;
      element("td", row, value === undefined ? "" : typeof value === "number" ? round(value) : value, "number");
    });
  };
  const show = () => {
    state.sliders.forEach((slider, each) => { slider.row.hidden = each === state.x || each === state.y; });
    sliders.hidden = [...sliders.children].every((row) => row.hidden);
    const best = findBest();
    const shown = findShown();
    drawMap(shown, best, findNear(best));
    drawChosen(best);
    const total = source.total > n ? `Of ${source.total.toLocaleString("en")} sets ${n.toLocaleString("en")} are here, the best among them. ` : "";
    const own = fixed();
    if (!own.length) { said.textContent = `${total}${shown.length < n ? "Where sets share a place, the best of them is shown." : ""}`; return; }
    const nearest = shown[shown.length - 1];
    const values = own.map(([each, slider]) => `${each.name} ${each.write(each.values[nearest.place])}${
      each.values[nearest.place] === slider.value ? "" : ` (asked ${each.write(slider.value)})`}`).join(", ");
    const exact = shown.filter((spot) => spot.far <= tied).length;
    said.textContent = `${total}Nearest to the sliders: ${values}, ${nearest.far <= tied ? "exactly" : `${nearest.far.toFixed(2)} of a range away`}. `
      + `${exact} of ${shown.length} places ${exact === 1 ? "lies" : "lie"} on the sliders${exact < shown.length ? `, the farthest ${shown[0].far.toFixed(2)} of a range away (the paler, the farther)` : ""}.`;
  };
  box.hidden = false;
  show();
  return show;
};
const explorers = [...document.querySelectorAll("[data-explorer]")].map((box, k) => explore(box, data.explorers[k]));
