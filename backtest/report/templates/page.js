"use strict";
(async () => {
  const inflate = async (id) => {
    const text = atob(document.getElementById(id).textContent);
    const bytes = new Uint8Array(text.length);
    for (let k = 0; k < text.length; k += 1) bytes[k] = text.charCodeAt(k);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).text();
  };
  const data = JSON.parse(await inflate("page-data"));
  const root = document.documentElement;
  const charts = [...document.querySelectorAll("[data-chart]")];
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const wide = 640;
  const buttons = 32;
  let printing = false;

  // ---------------------------------------------------------------- colors
  const isDark = () => !printing
    && (root.dataset.theme === "dark" || (root.dataset.theme === "auto" && system.matches));
  const swaps = Object.keys(data.light).map((name) => [data.light[name], data.dark[name]]);
  const recolor = (value) => {
    if (typeof value === "string") {
      return /[#(]/.test(value)
        ? swaps.reduce((text, [from, to]) => text.split(from).join(to), value) : value;
    }
    if (Array.isArray(value)) return value.map(recolor);
    if (value === null || typeof value !== "object" || "bdata" in value) return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recolor(item)]));
  };

  // ----------------------------------------------------------------- charts
  const settings = {
    displaylogo: false, responsive: false, showSendToCloud: false, showLink: false,
    modeBarButtons: [["toImage", "resetScale2d"]],
  };
  // The title of a panel that is wider than a narrow screen goes on in a second line.
  const pen = document.createElement("canvas").getContext("2d");
  const fit = (note, layout) => {
    pen.font = `${note.font.size}px ${getComputedStyle(document.body).fontFamily}`;
    let line = "";
    note.text = note.text.match(/<span.*?<\/span>|\S+/g).map((part) => {
      const words = part.replace(/<[^>]*>/g, "");
      const next = line ? `${line} ${words}` : words;
      const isFull = line && pen.measureText(next).width > layout.width - 2 * 60;
      if (isFull) layout.margin = { ...layout.margin, t: layout.margin.t + 16 };
      line = isFull ? words : next;
      return isFull ? `<br>${part}` : part;
    }).join(" ");
  };
  const compose = (box) => {
    const plain = data.charts[box.dataset.chart];
    const figure = isDark() ? recolor(plain) : JSON.parse(JSON.stringify(plain));
    const template = isDark() ? recolor(data.template) : data.template;
    const width = printing ? ({ half: 330, third: 220 }[box.parentElement.className] || 690) : box.clientWidth;
    const layout = { ...figure.layout, template, width, height: printing ? Math.min(box.dataset.height, 800) : Number(box.dataset.height) };
    if (width < wide) {
      layout.dragmode = false;
      // The buttons are always shown where nothing hovers: keep them off the first line of the chart.
      layout.margin = { ...layout.margin, t: Math.max(layout.margin.t, buttons) };
    }
    (layout.annotations || []).forEach((note) => { if (note.align === "left") fit(note, layout); });
    figure.data.filter((each) => each.x.length * 40 > width).forEach((each) => delete each.texttemplate);
    if (box.dataset.scale) layout.yaxis = { ...layout.yaxis, type: box.dataset.scale };
    return { traces: figure.data, layout };
  };
  const draw = (box) => {
    if (!window.Plotly || (!printing && !box.clientWidth)) return; // folded: drawn when it is opened
    const isNew = !box.layout;
    if (isNew) box.replaceChildren();
    const { traces, layout } = compose(box);
    window.Plotly.react(box, traces, layout, settings);
    if (isNew) listen(box);
  };
  const drawAgain = () => charts.filter((box) => box.layout).forEach(draw);

  // A still of the lines of a chart: it stands until the library has been compiled, which takes longer.
  const decode = ({ dtype, bdata }) => {
    const { buffer } = Uint8Array.from(atob(bdata), (letter) => letter.charCodeAt(0));
    return [...(dtype === "f8" ? new Float64Array(buffer) : new Float32Array(buffer))];
  };
  const parseTime = (text) => Date.parse(`${text.replace(" ", "T")}Z`);
  const sketch = (box) => {
    const { traces, layout } = compose(box);
    const lines = traces.filter((each) => each.mode === "lines" && each.x.bdata && each.y.bdata);
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
    paper.font = `11.5px ${getComputedStyle(document.body).fontFamily}`;
    new Set(lines.map((each) => each.yaxis || "y")).forEach((name) => {
      const axis = layout[`yaxis${name.slice(1)}`];
      const [low, high] = (axis.domain || [0, 1]).map((part) => t + height * (1 - part));
      const own = lines.filter((each) => (each.yaxis || "y") === name).map((each) => (
        { ...each, x: decode(each.x), y: decode(each.y) }));
      const turn = axis.type === "log" ? Math.log10 : (value) => value;
      const isKnown = (value) => Number.isFinite(turn(value));
      const known = own.flatMap((each) => each.y).filter(isKnown);
      if (axis.rangemode === "tozero") known.push(0);
      if (!known.length) return;
      const [least, most] = [Math.min, Math.max].map((pick) => known.reduce((x, y) => pick(x, y)));
      const room = (turn(most) - turn(least)) * 1.1 || 1;
      const up = (value) => low - (high - low) * ((turn(least) - turn(value)) / room - 0.05);
      own.forEach((each) => {
        paper.beginPath();
        paper.strokeStyle = each.line.color;
        paper.lineWidth = each.line.width;
        each.x.forEach((time, k) => {
          if (!isKnown(each.y[k])) return;
          const isNext = k > 0 && isKnown(each.y[k - 1]);
          if (isNext && each.line.shape === "hv") paper.lineTo(across(time), up(each.y[k - 1]));
          paper[isNext ? "lineTo" : "moveTo"](across(time), up(each.y[k]));
        });
        paper.stroke();
      });
      const isPercent = (axis.tickformat || "").endsWith("%");
      const round = (value) => value.toLocaleString("en", { style: isPercent ? "percent" : "decimal", maximumSignificantDigits: isPercent ? 2 : 4 });
      [least, most].forEach((value) => write(round(value), l - 6, up(value) + 4, "right", font.color));
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
  const unpack = async () => {
    const script = document.createElement("script");
    script.textContent = await inflate("plotly");
    document.head.append(script);
  };

  // ----------------------------------------------------------------- ledger
  const ledgers = [...document.querySelectorAll("[data-ledger]")].map((box, number) => {
    const rows = data.ledgers[number];
    const words = rows.map((row) => row.join(" ").toLowerCase());
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
    search.hidden = false;
    show();
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
    const [from, to] = data.charts.story.layout.xaxis.range.map(parseTime);
    const half = Math.max((to - from) / 24, 36e5);
    const range = [middle - half, middle + half].map((each) => new Date(each).toISOString().slice(0, 19));
    window.Plotly.relayout(box, { "xaxis.range": range });
    box.scrollIntoView({ block: "start" });
  };
  const listen = (box) => box.on("plotly_click", (event) => {
    const place = event.points.map((point) => point.customdata).find(Number.isInteger);
    if (place !== undefined && place >= 0 && ledgers.length) ledgers[0](place);
  });

  // ------------------------------------------------------------------ theme
  const button = document.getElementById("theme");
  const label = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    label();
    drawAgain();
  });
  system.addEventListener("change", () => { label(); drawAgain(); });
  button.hidden = false;
  label();

  // ------------------------------------------------------- width and paper
  let width = window.innerWidth;
  let waiting = 0;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width || printing) return;
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(drawAgain, 150);
  });
  let theme = root.dataset.theme;
  window.addEventListener("beforeprint", () => {
    printing = true; theme = root.dataset.theme; root.dataset.theme = "light";
    charts.forEach(draw);
  });
  window.addEventListener("afterprint", () => {
    printing = false; root.dataset.theme = theme;
    drawAgain();
  });

  document.querySelectorAll("details").forEach((fold) => fold.addEventListener("toggle", () => {
    if (fold.open) charts.filter((box) => fold.contains(box)).forEach(draw);
  }));
  const isInView = (box) => box.clientWidth && box.getBoundingClientRect().top < window.innerHeight;
  const arrivals = new IntersectionObserver((entries) => entries.forEach(({ isIntersecting, target }) => {
    if (isIntersecting && !target.layout) draw(target);
  }), { rootMargin: "400px" });
  const start = async () => {
    charts.filter(isInView).forEach(sketch);
    performance.mark("sketched");
    await new Promise((resume) => { requestAnimationFrame(() => setTimeout(resume)); }); // shown before the work
    if (document.readyState === "loading") {
      await new Promise((resume) => { document.addEventListener("DOMContentLoaded", resume); });
    }
    if (charts.length) await unpack();
    charts.filter(isInView).forEach(draw);
    root.dataset.ready = "yes";
    charts.forEach((box) => arrivals.observe(box));
  };
  start().catch((error) => {
    root.dataset.ready = "failed";
    charts.forEach((box) => {
      box.style.minHeight = "0";
      box.textContent = `This chart could not be drawn (${error.message}); a browser of 2023 or later draws it.`;
    });
  });
})();
